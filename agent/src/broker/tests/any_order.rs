//! Whatever happens in whatever order, the promises hold.

use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout};

use super::{Answer, Lab, pass, rejected, storage, transient};

#[derive(Clone, Debug)]
enum Step {
    Get,
    /// A caller that goes away at once.
    GetAndLeave,
    GetWithLife(u64),
    Challenge,
    Forget,
    Pass(u64),
    /// The wall clock moves by so many seconds, the runtime's time does not.
    Jump(i64),
    Issuer(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Get),
        2 => Just(Step::GetAndLeave),
        2 => (0_u64..5_000).prop_map(Step::GetWithLife),
        2 => Just(Step::Challenge),
        1 => Just(Step::Forget),
        6 => prop_oneof![0_u64..5, 0_u64..100, 0_u64..4_000].prop_map(Step::Pass),
        1 => (-10_000_i64..10_000).prop_map(Step::Jump),
        3 => (0_u8..7, 0_u64..40).prop_map(|(answer, latency)| Step::Issuer(answer, latency)),
    ]
}

fn answer(number: u8) -> Answer {
    match number {
        0 => Answer::Again,
        1 => Answer::Blank,
        2 => Answer::Failure(transient().with_retry_after(Duration::from_secs(500))),
        3 => Answer::Failure(rejected()),
        4 => Answer::Failure(rejected().malformed()),
        5 => Answer::Never,
        _ => Answer::New,
    }
}

async fn run(steps: Vec<Step>, life: u64, is_declared: bool) {
    let lab = Lab::new();
    let key = storage();
    let start = Instant::now();
    lab.issuer(|manner| manner.life = Duration::from_secs(life));
    if is_declared {
        lab.broker.declare([key.clone()]);
    }
    // While the clock only moves forward, each token of one life ends later than the one before.
    let mut is_clock_sane = true;
    for step in steps {
        let held = lab.broker.status().first().and_then(|held| held.expires_on);
        let mut is_forgotten = false;
        match step {
            Step::Get => drop(bounded(lab.get(&key)).await),
            Step::GetAndLeave => {
                let mut get = Box::pin(lab.get(&key));
                let _ = futures::poll!(&mut get);
            }
            Step::GetWithLife(seconds) => drop(bounded(lab.get_with_life(&key, seconds)).await),
            Step::Challenge => drop(bounded(lab.challenge(&key)).await),
            Step::Forget => {
                lab.broker.forget(&key);
                is_forgotten = true;
            }
            Step::Pass(seconds) => pass(seconds).await,
            Step::Jump(seconds) => {
                is_clock_sane &= seconds >= 0;
                lab.clock.jump(seconds * 1_000);
            }
            Step::Issuer(number, latency) => lab.issuer(|manner| {
                manner.answer = answer(number);
                manner.latency = Duration::from_secs(latency);
            }),
        }
        let now = lab.clock.now();
        let token = lab.peek(&key);
        assert!(token.as_ref().is_none_or(|token| token.is_valid(now)));
        if let Some(end) = held
            && is_clock_sane
            && !is_forgotten
            && now.as_secs() < end
        {
            assert!(token.is_some(), "a valid token was lost");
        }
        let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
        let challenges = 1 + seconds / 30;
        assert!(
            lab.fetches() <= 2 + seconds + challenges,
            "more than one fetch a second"
        );
    }
    // And whatever happened, it heals.
    lab.issuer_works();
    pass(15 * 60).await;
    assert!(lab.get(&key).await.is_ok());
}

/// No call outlasts the bound on a fetch by more than the rounds it may take.
async fn bounded<T>(call: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(3 * 121), call)
        .await
        .expect("a call that does not end")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn promises_hold_in_any_order(
        steps in proptest::collection::vec(step(), 1..80),
        life in prop_oneof![Just(3_u64), Just(20), Just(400), Just(3_600), Just(86_400)],
        is_declared: bool,
    ) {
        Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(steps, life, is_declared));
    }
}
