//! What is in use is renewed in time, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Answer, HOUR, Lab, numbered, pass, secret, storage, transient};
use crate::broker::Key;
use crate::token::Identity;

#[tokio::test(start_paused = true)]
async fn a_key_in_use_never_lets_a_caller_wait_or_fail_for_a_day() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.latency = Duration::from_secs(20));
    lab.get(&storage()).await.unwrap();
    for _ in 0..24 * 60 {
        pass(60).await;
        let token = lab.peek(&storage()).expect("a hit");
        assert!(token.is_valid(lab.clock.now()));
    }
    // An hour's token is renewed once in 3150 s; a day has 27 times that.
    assert!((26..=29).contains(&lab.fetches()), "{}", lab.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_minute_in_use_is_renewed_before_its_end() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.life = Duration::from_secs(60));
    lab.get(&storage()).await.unwrap();
    pass(1).await;
    assert!(lab.peek(&storage()).is_some());
    // Three quarters of its life, without a further question.
    pass(45).await;
    assert_eq!(lab.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn hits_are_served_at_once_while_a_renewal_is_under_way() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    assert!(lab.peek(&storage()).is_some());
    lab.issuer(|manner| manner.latency = Duration::from_secs(100));
    pass(3_160).await;
    assert_eq!(lab.fetches(), 2);
    let start = Instant::now();
    let token = lab.get(&storage()).await.unwrap();
    assert_eq!(
        (secret(&token), start.elapsed()),
        ("s3cret-1", Duration::ZERO)
    );
    pass(100).await;
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn a_key_nobody_asks_for_again_is_let_go_at_its_end() {
    let lab = Lab::new();
    let held = Arc::downgrade(&lab.get(&storage()).await.unwrap());
    pass(HOUR - 1).await;
    assert_eq!(lab.broker.status().len(), 1);
    pass(2).await;
    assert!(lab.broker.status().is_empty());
    assert!(held.upgrade().is_none());
    pass(24 * HOUR).await;
    assert_eq!(lab.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_renewal_is_not_a_reason_for_the_next() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    lab.peek(&storage()).unwrap();
    pass(24 * HOUR).await;
    assert_eq!(lab.fetches(), 2);
    assert!(lab.broker.status().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_ask_after_the_time_to_renew_renews() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    pass(3_500).await;
    assert_eq!(lab.fetches(), 1);
    assert_eq!(secret(&lab.peek(&storage()).unwrap()), "s3cret-1");
    pass(1).await;
    assert_eq!(secret(&lab.peek(&storage()).unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn declared_keys_are_got_and_kept_without_being_asked_for() {
    let lab = Lab::new();
    assert!(lab.broker.ready(), "nothing is missing");
    let registry = Key::Registry {
        identity: Identity::Job,
        server: "m.azurecr.io".to_owned(),
    };
    lab.issuer(|manner| manner.latency = Duration::from_secs(1));
    lab.broker.declare([storage(), registry]);
    assert!(!lab.broker.ready());
    assert_eq!(lab.broker.runway(), Some(Duration::ZERO));
    pass(2).await;
    assert!(lab.broker.ready());
    pass(100 * HOUR).await;
    assert!(lab.broker.ready());
    let per_key = 100 * 3_600 / 3_151 + 1;
    let fetches = u64::try_from(lab.fetches()).unwrap();
    assert!(
        (2 * per_key - 2..=2 * per_key + 2).contains(&fetches),
        "{fetches}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_declared_key_that_could_not_be_had_is_tried_until_it_can() {
    let lab = Lab::new();
    lab.issuer_fails(transient());
    lab.broker.declare([storage()]);
    pass(20 * 60).await;
    assert!(!lab.broker.ready());
    let gaps = lab.gaps();
    assert_eq!(gaps[..6], [1, 2, 4, 8, 16, 32]);
    assert!(
        gaps[6..].iter().all(|gap| (44..=46).contains(gap)),
        "{gaps:?}"
    );
    lab.issuer_works();
    pass(60).await;
    assert!(lab.broker.ready());
}

#[tokio::test(start_paused = true)]
async fn the_servers_time_is_what_callers_are_told() {
    let lab = Lab::new();
    lab.issuer(|manner| {
        manner.life = Duration::from_secs(24 * HOUR);
        manner.refresh_in = Some(Duration::from_secs(1_000));
    });
    let start = lab.clock.now();
    let token = lab.get(&storage()).await.unwrap();
    assert_eq!(token.refresh_on, start + Duration::from_secs(1_000));
    lab.peek(&storage()).unwrap();
    pass(949).await;
    assert_eq!(lab.fetches(), 1);
    pass(2).await;
    assert_eq!(lab.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn short_lives_never_fail_a_caller_nor_flood_the_issuer() {
    for life in [2, 3, 5, 10] {
        let lab = Lab::new();
        lab.issuer(|manner| {
            manner.life = Duration::from_secs(life);
            manner.latency = Duration::from_millis(30);
        });
        for _ in 0..600 {
            lab.get(&storage()).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        let expected = usize::try_from(60 / life).unwrap();
        assert!(
            lab.fetches() <= 2 * expected + 2,
            "{life}: {}",
            lab.fetches()
        );
        assert!(lab.fetches() >= expected, "{life}: {}", lab.fetches());
    }
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_repeats_its_token_is_asked_at_a_bounded_rate() {
    let lab = Lab::new();
    lab.issuer(|manner| {
        manner.life = Duration::from_secs(24 * HOUR);
        manner.answer = Answer::Again;
    });
    lab.broker.declare([storage()]);
    pass(23 * HOUR).await;
    let token = lab.peek(&storage()).unwrap();
    assert_eq!(secret(&token), "s3cret-1");
    assert!(token.refresh_on > lab.clock.now(), "callers are not nagged");
    assert!(token.refresh_on <= token.expires_on());
    assert_eq!(token.obtained_on.as_secs(), 1_800_000_000);
    let gaps = lab.gaps();
    assert_eq!(gaps[1..6], [30, 60, 120, 240, 300]);
    assert!(lab.fetches() < 150, "{}", lab.fetches());
    assert!(lab.broker.counters().unchanged > 100);
    // When its cache ends there is a newer one, and no caller sees a gap of more than the last pause.
    pass(HOUR + 60).await;
    assert_ne!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_token_never_gets_older_by_being_repeated() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(1).await;
    let end = lab.peek(&storage()).unwrap().expires_on();
    // A relative lifetime out of a cache: the same token with a later end.
    lab.issuer(|manner| manner.answer = Answer::Again);
    for token in lab.issuer.issued.lock().unwrap().values_mut() {
        token.expires_on = end + Duration::from_secs(10 * HOUR);
    }
    pass(3_590).await;
    assert_eq!(lab.peek(&storage()).unwrap().expires_on(), end);
    pass(20).await;
    assert!(
        lab.peek(&storage())
            .is_none_or(|token| token.expires_on() != end)
    );
}

#[tokio::test(start_paused = true)]
async fn status_counts_and_shows_no_secret() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    lab.get(&numbered(7)).await.unwrap();
    for _ in 0..3 {
        lab.peek(&storage()).unwrap();
    }
    let status = lab.broker.status();
    assert_eq!(status.len(), 2);
    let token = status.iter().find(|s| s.hits == 3).unwrap();
    assert_eq!(
        (
            token.kind.as_str(),
            token.identity.as_str(),
            token.resource.as_str()
        ),
        ("token", "default", "https://storage.azure.com/")
    );
    assert_eq!((token.fetches, token.failures), (1, 0));
    assert_eq!(token.expires_on, Some(1_800_003_600));
    assert_eq!(token.refresh_on, Some(1_800_003_150));
    assert_eq!(lab.broker.counters().hits, 3);
    assert_eq!(lab.broker.runway(), Some(Duration::from_secs(HOUR)));
    for shown in [
        format!("{status:?}"),
        format!("{:?}", lab.broker),
        format!("{:?}", lab.peek(&storage())),
    ] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
