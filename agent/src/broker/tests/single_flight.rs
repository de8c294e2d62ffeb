//! One fetch per key in a task of its own; it always ends, and everyone who waits hears of it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jobcred_wire::ErrorCode;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::{Answer, Lab, numbered, pass, rejected, secret, storage};
use crate::broker::Want;

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_are_one_fetch() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.latency = Duration::from_secs(2));
    let key = storage();
    let all = join_all((0..1_000).map(|_| lab.get(&key))).await;
    for token in all {
        assert_eq!(secret(&token.unwrap()), "s3cret-1");
    }
    assert_eq!(lab.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_hear_of_one_failure() {
    let lab = Lab::new();
    lab.issuer(|manner| {
        manner.latency = Duration::from_secs(2);
        manner.answer = Answer::Failure(rejected().with_issuer_code("AADSTS70021"));
    });
    let key = storage();
    for result in join_all((0..1_000).map(|_| lab.get(&key))).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::Rejected);
        assert_eq!(error.issuer_code(), Some("AADSTS70021"));
    }
    assert_eq!(lab.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_caller_that_goes_away_cancels_nothing() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.latency = Duration::from_secs(10));
    let broker = Arc::clone(&lab.broker);
    let first = tokio::spawn(async move { broker.get(&storage(), Want::default()).await });
    pass(1).await;
    assert_eq!(lab.fetches(), 1);
    let key = storage();
    let mut second = Box::pin(lab.get(&key));
    assert!(futures::poll!(&mut second).is_pending());
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(secret(&second.await.unwrap()), "s3cret-1");
    assert_eq!(lab.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_whose_callers_all_go_away_is_still_of_use() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.latency = Duration::from_secs(10));
    let key = storage();
    let mut only = Box::pin(lab.get(&key));
    assert!(futures::poll!(&mut only).is_pending());
    drop(only);
    pass(11).await;
    assert_eq!(secret(&lab.peek(&storage()).unwrap()), "s3cret-1");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_is_an_internal_error_and_the_key_stays_usable() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.answer = Answer::Panic);
    let key = storage();
    for result in join_all((0..10).map(|_| lab.get(&key))).await {
        assert_eq!(result.unwrap_err().kind(), ErrorCode::Internal);
    }
    assert_eq!(lab.fetches(), 1);
    lab.issuer_works();
    pass(1).await;
    assert_eq!(secret(&lab.get(&key).await.unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_end_is_ended_and_the_key_stays_usable() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.answer = Answer::Never);
    let error = lab.get(&storage()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Transient);
    assert!(error.message().contains("120 s"), "{error}");
    lab.issuer_works();
    pass(1).await;
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_hangs_stops_no_other() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.answer = Answer::Never);
    let key = storage();
    let mut stuck = Box::pin(lab.get(&key));
    assert!(futures::poll!(&mut stuck).is_pending());
    yield_now().await;
    lab.issuer_works();
    assert!(lab.get(&numbered(1)).await.is_ok());
    assert!(futures::poll!(&mut stuck).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_token_forgotten_in_a_loop_is_fetched_once_a_second() {
    let lab = Lab::new();
    let start = Instant::now();
    for _ in 0..10 {
        lab.get(&storage()).await.unwrap();
        lab.broker.forget(&storage());
    }
    assert_eq!(start.elapsed().as_secs(), 9);
    assert_eq!(lab.fetches(), 10);
    assert!(lab.peek(&storage()).is_none());
}

#[tokio::test(start_paused = true)]
async fn forgetting_while_fetching_keeps_to_one_fetch() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.latency = Duration::from_secs(5));
    let key = storage();
    let mut first = Box::pin(lab.get(&key));
    assert!(futures::poll!(&mut first).is_pending());
    lab.broker.forget(&key);
    assert_eq!(secret(&lab.get(&key).await.unwrap()), "s3cret-1");
    assert_eq!(secret(&first.await.unwrap()), "s3cret-1");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_waiters_and_tasks_and_drops_secrets() {
    let lab = Lab::new();
    let held = Arc::downgrade(&lab.get(&storage()).await.unwrap());
    lab.issuer(|manner| manner.answer = Answer::Never);
    let other = numbered(1);
    let mut waiter = Box::pin(lab.get(&other));
    assert!(futures::poll!(&mut waiter).is_pending());
    yield_now().await;
    lab.broker.shutdown();
    assert!(waiter.await.unwrap_err().is_transient());
    assert!(lab.get(&storage()).await.unwrap_err().is_transient());
    lab.broker.declare([storage()]);
    assert!(lab.peek(&storage()).is_none());
    assert!(!lab.broker.ready());
    assert!(held.upgrade().is_none(), "a token outlived the shutdown");
    yield_now().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_broker_leaves_no_task() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    pass(100).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
    drop(lab);
    yield_now().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_on_several_threads_share_one_fetch() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.latency = Duration::from_millis(50));
    let callers = (0..200).map(|_| {
        let broker = Arc::clone(&lab.broker);
        tokio::spawn(async move {
            let token = broker.get(&storage(), Want::default()).await.unwrap();
            secret(&token).to_owned()
        })
    });
    for caller in join_all(callers).await {
        assert_eq!(caller.unwrap(), "s3cret-1");
    }
    assert_eq!(lab.fetches(), 1);
}
