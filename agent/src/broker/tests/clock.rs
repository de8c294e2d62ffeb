//! Expiry is wall time, waiting is the runtime's; the wall clock may jump at any moment.

use std::time::Duration;

use super::{HOUR, Lab, pass, secret, storage};

const HOUR_MILLIS: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn after_a_suspend_nothing_expired_is_served_and_keys_in_use_come_back_within_a_minute() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    lab.peek(&storage()).unwrap();
    pass(100).await;
    lab.clock.jump(8 * HOUR_MILLIS);
    assert!(lab.peek(&storage()).is_none());
    pass(60).await;
    assert_eq!(
        secret(&lab.peek(&storage()).expect("renewed unasked")),
        "s3cret-2"
    );
    assert_eq!(lab.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_a_caller_need_not_wait_for_the_schedule() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    lab.clock.jump(8 * HOUR_MILLIS);
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_keys_that_were_not_in_use_are_let_go() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    lab.clock.jump(8 * HOUR_MILLIS);
    pass(61).await;
    assert!(lab.broker.status().is_empty());
    assert_eq!(lab.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspend_into_the_time_to_renew_is_noticed_within_a_minute() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(100).await;
    lab.clock.jump(HOUR_MILLIS * 9 / 10);
    pass(60).await;
    assert_eq!(secret(&lab.peek(&storage()).unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn a_suspend_ends_a_long_back_off() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.life = Duration::from_secs(24 * HOUR));
    lab.broker.declare([storage()]);
    pass(1).await;
    lab.issuer_fails(super::transient());
    pass(14 * HOUR).await;
    lab.issuer_works();
    lab.clock.jump(24 * HOUR_MILLIS);
    pass(60).await;
    assert!(lab.broker.ready());
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_postpones_no_renewal() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(100).await;
    lab.clock.jump(-5 * HOUR_MILLIS);
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
    // By the wall clock there would be six hours to go.
    pass(3_100).await;
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-2");
    pass(24 * HOUR).await;
    assert!((28..=30).contains(&lab.fetches()), "{}", lab.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_to_and_fro_serves_nothing_expired_and_does_not_flood_the_issuer() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(1).await;
    for step in 0..200 {
        lab.clock
            .jump(if step % 2 == 0 { 1 } else { -1 } * 3 * HOUR_MILLIS);
        lab.get(&storage()).await.unwrap();
        pass(30).await;
    }
    assert!(lab.fetches() <= 205, "{}", lab.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_lets_no_token_outlive_what_it_was_given() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(100).await;
    lab.issuer_fails(super::transient());
    lab.clock.jump(-5 * HOUR_MILLIS);
    pass(3_400).await;
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
    // By the wall clock it has five more hours to live.
    pass(200).await;
    assert!(lab.peek(&storage()).is_none());
    assert!(lab.get(&storage()).await.is_err());
    assert!(!lab.broker.ready());
    assert_eq!(lab.broker.runway(), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_1970_does_not_outlive_the_setting_of_the_clock() {
    let lab = Lab::new();
    let to_now = lab.clock.now().as_millis() - 10_000;
    lab.clock.jump(-to_now);
    lab.broker.declare([storage()]);
    pass(1).await;
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
    lab.clock.jump(to_now);
    assert!(lab.peek(&storage()).is_none());
    pass(60).await;
    assert_eq!(secret(&lab.peek(&storage()).unwrap()), "s3cret-2");
    pass(3_600).await;
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-3");
}
