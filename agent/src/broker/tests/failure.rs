//! A failure takes nothing away, is not repeated in a loop, and is never for ever.

use std::time::Duration;

use jobcred_wire::ErrorCode;
use tokio::time::{Instant, sleep};

use super::{Answer, HOUR, Lab, pass, rejected, secret, storage, transient};
use crate::error::TokenError;

#[tokio::test(start_paused = true)]
async fn a_failing_renewal_keeps_the_token_to_its_end_and_not_beyond() {
    for error in [transient(), rejected(), rejected().malformed()] {
        let lab = Lab::new();
        lab.broker.declare([storage()]);
        pass(1).await;
        lab.issuer_fails(error.clone());
        for _ in 0..3_598 {
            pass(1).await;
            assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
        }
        assert!(lab.fetches() > 3, "it was tried");
        pass(1).await;
        assert!(lab.peek(&storage()).is_none());
        let refused = lab.get(&storage()).await.unwrap_err();
        assert_eq!(refused.kind(), error.kind());
        assert!(!lab.broker.ready());
    }
}

#[tokio::test(start_paused = true)]
async fn a_blank_answer_never_takes_a_good_tokens_place() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.answer = Answer::Blank);
    assert_eq!(
        lab.get(&storage()).await.unwrap_err().kind(),
        ErrorCode::Internal
    );
    lab.issuer_works();
    lab.broker.declare([storage()]);
    pass(1).await;
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-2");
    lab.issuer(|manner| manner.answer = Answer::Blank);
    pass(3_500).await;
    assert!(lab.fetches() > 2);
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_the_callers_answer() {
    let lab = Lab::new();
    lab.issuer_fails(
        rejected()
            .with_hint("assign a role")
            .with_issuer_code("invalid_scope"),
    );
    let error = lab.get(&storage()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert_eq!(
        (error.hint(), error.issuer_code()),
        (Some("assign a role"), Some("invalid_scope"))
    );
    let last = lab.broker.last_upstream_error().unwrap();
    assert_eq!(
        (last.code, last.message.as_str(), last.at),
        (ErrorCode::Rejected, "no such role", 1_800_000_000)
    );
    assert_eq!(lab.broker.status()[0].last_error, Some(last));
    assert_eq!(lab.broker.counters().failures_of(ErrorCode::Rejected), 1);
}

#[tokio::test(start_paused = true)]
async fn renewals_that_fail_back_off_and_recover() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.life = Duration::from_secs(24 * HOUR));
    lab.broker.declare([storage()]);
    pass(1).await;
    lab.issuer_fails(transient());
    pass(14 * HOUR).await;
    let gaps = lab.gaps();
    assert_eq!(gaps[1..6], [30, 60, 120, 240, 300]);
    assert!(gaps[6..].iter().all(|gap| *gap == 300), "{gaps:?}");
    assert!(lab.broker.status()[0].last_error.is_some());
    lab.issuer_works();
    pass(300).await;
    assert_ne!(secret(&lab.peek(&storage()).unwrap()), "s3cret-1");
    assert!(lab.broker.status()[0].last_error.is_none());
    assert!(
        lab.broker.last_upstream_error().is_some(),
        "the past stays known"
    );
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_is_no_loop_and_not_for_ever() {
    for (error, pause) in [
        (rejected(), 30),
        (TokenError::new(ErrorCode::GrantEnded, "over"), 300),
        (TokenError::new(ErrorCode::Unavailable, "no endpoint"), 30),
        (rejected().malformed(), 600),
        (TokenError::new(ErrorCode::InvalidRequest, "what"), 600),
        (TokenError::new(ErrorCode::Denied, "no"), 600),
    ] {
        let lab = Lab::new();
        lab.issuer_fails(error.clone());
        // Hundreds of requests in a second.
        for _ in 0..1_000 {
            assert_eq!(lab.get(&storage()).await.unwrap_err().kind(), error.kind());
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(lab.fetches(), 1);
        lab.issuer_works();
        pass(pause - 2).await;
        assert!(lab.get(&storage()).await.is_err());
        pass(1).await;
        assert!(lab.get(&storage()).await.is_ok(), "{error} after {pause} s");
        assert_eq!(lab.broker.counters().refusals_repeated, 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_declared_key_that_is_refused_is_no_loop() {
    let lab = Lab::new();
    lab.issuer_fails(rejected());
    lab.broker.declare([storage()]);
    pass(HOUR).await;
    assert!(lab.gaps().iter().all(|gap| *gap >= 30));
    assert!(lab.fetches() > 60);
}

#[tokio::test(start_paused = true)]
async fn callers_without_a_token_try_once_a_second() {
    let lab = Lab::new();
    lab.issuer_fails(transient());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        let error = lab.get(&storage()).await.unwrap_err();
        assert!(error.is_transient());
        sleep(Duration::from_millis(10)).await;
    }
    assert!((19..=21).contains(&lab.fetches()), "{}", lab.fetches());
}

#[tokio::test(start_paused = true)]
async fn an_issuers_wish_to_be_left_alone_is_kept_within_bounds() {
    for (asked, kept) in [(4, 4), (10, 10), (3_600, 10), (u64::MAX, 10)] {
        let lab = Lab::new();
        lab.issuer_fails(transient().with_retry_after(Duration::from_secs(asked)));
        lab.get(&storage()).await.unwrap_err();
        lab.issuer_works();
        pass(1).await;
        let error = lab.get(&storage()).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(kept - 1)));
        pass(kept - 1).await;
        assert!(lab.get(&storage()).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_background_keeps_to_retry_after_but_not_past_half_of_what_is_left() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(1).await;
    lab.issuer_fails(transient().with_retry_after(Duration::MAX));
    pass(3_590).await;
    // Renewal at 3150 s leaves 450 s, half of which is 225 s; then 112 s; then the most without a token.
    assert_eq!(lab.gaps()[1..3], [225, 112]);
    lab.issuer_works();
    pass(60).await;
    assert!(lab.broker.ready());
}

#[tokio::test(start_paused = true)]
async fn a_callers_fetch_of_an_expired_key_passes_the_back_off() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.life = Duration::from_secs(24 * HOUR));
    lab.get(&storage()).await.unwrap();
    lab.peek(&storage()).unwrap();
    lab.issuer_fails(transient());
    pass(23 * HOUR).await;
    // The background has just failed and waits for minutes; the token ends meanwhile.
    lab.clock.jump(2 * 3_600 * 1_000);
    let fetches = lab.fetches();
    lab.issuer_works();
    assert!(lab.get(&storage()).await.is_ok());
    assert_eq!(lab.fetches(), fetches + 1);
}

#[tokio::test(start_paused = true)]
async fn more_life_is_fetched_when_it_can_be_had() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    pass(600).await;
    assert_eq!(
        secret(&lab.get_with_life(&storage(), 3_000).await.unwrap()),
        "s3cret-1"
    );
    assert_eq!(
        secret(&lab.get_with_life(&storage(), 3_500).await.unwrap()),
        "s3cret-2"
    );
    assert!(
        lab.broker
            .peek(&storage(), Duration::from_secs(HOUR + 1))
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn more_life_than_the_platform_has_is_answered_with_the_best_there_is() {
    for answer in [
        Answer::New,
        Answer::Again,
        Answer::Failure(transient()),
        Answer::Failure(rejected()),
    ] {
        let lab = Lab::new();
        lab.get(&storage()).await.unwrap();
        pass(1_000).await;
        lab.issuer(|manner| manner.answer = answer);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(300) {
            let token = lab.get_with_life(&storage(), u64::MAX).await.unwrap();
            assert!(token.is_valid(lab.clock.now()));
            sleep(Duration::from_millis(500)).await;
        }
        assert!((8..=12).contains(&lab.fetches()), "{}", lab.fetches());
    }
}

#[tokio::test(start_paused = true)]
async fn who_could_do_with_less_life_does_not_wait_long_for_more() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    pass(1_000).await;
    lab.issuer(|manner| manner.answer = Answer::Never);
    let start = Instant::now();
    let token = lab.get_with_life(&storage(), HOUR).await.unwrap();
    assert_eq!(secret(&token), "s3cret-1");
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_ended_when_it_comes_is_an_error_about_the_clock() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.life = Duration::ZERO);
    let error = lab.get(&storage()).await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.hint().unwrap().contains("clock"));
}
