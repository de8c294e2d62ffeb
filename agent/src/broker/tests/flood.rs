//! Many distinct keys cost bounded memory and push out nothing that is in use.

use std::time::Duration;

use futures::future::join_all;
use jobcred_wire::ErrorCode;
use tokio::task::yield_now;

use super::{Lab, numbered, pass, rejected, secret, storage};
use crate::broker::BrokerOptions;

fn small() -> BrokerOptions {
    BrokerOptions {
        capacity: 20,
        max_in_flight: 8,
        ..BrokerOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_is_bounded_and_leaves_declared_and_used_ones_alone() {
    let lab = Lab::with(&small());
    lab.broker.declare([storage()]);
    pass(1).await;
    lab.get(&numbered(0)).await.unwrap();
    lab.peek(&numbered(0)).unwrap();
    for number in 1..500 {
        lab.get(&numbered(number)).await.unwrap();
        assert!(lab.broker.status().len() <= 21);
    }
    let fetches = lab.fetches();
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
    assert_eq!(secret(&lab.get(&numbered(0)).await.unwrap()), "s3cret-2");
    assert_eq!(lab.fetches(), fetches);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_keys_pushes_out_no_token() {
    let lab = Lab::with(&small());
    for number in 0..15 {
        lab.get(&numbered(number)).await.unwrap();
    }
    lab.issuer_fails(rejected());
    for number in 100..600 {
        lab.get(&numbered(number)).await.unwrap_err();
        assert!(lab.broker.status().len() <= 20);
    }
    for number in 0..15 {
        assert!(lab.peek(&numbered(number)).is_some(), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_keys_are_forgotten_in_time() {
    let lab = Lab::new();
    lab.issuer_fails(rejected());
    for number in 0..50 {
        lab.get(&numbered(number)).await.unwrap_err();
    }
    assert_eq!(lab.broker.status().len(), 50);
    pass(11 * 60).await;
    assert!(lab.broker.status().is_empty());
}

#[tokio::test(start_paused = true)]
async fn fetches_under_way_are_bounded_and_known_keys_have_their_share() {
    let lab = Lab::with(&small());
    lab.get(&storage()).await.unwrap();
    lab.peek(&storage()).unwrap();
    pass(3_100).await;
    lab.issuer(|manner| manner.latency = Duration::from_secs(100));
    let keys: Vec<_> = (0..1_000).map(numbered).collect();
    let mut flood = Box::pin(join_all(keys.iter().map(|key| lab.get(key))));
    assert!(futures::poll!(&mut flood).is_pending());
    yield_now().await;
    assert_eq!(lab.issuer.most.lock().unwrap().1, 4, "half of the bound");
    // The known key's time to renew comes while the flood holds all that strangers may have.
    pass(60).await;
    assert_eq!(lab.issuer.most.lock().unwrap().1, 5);
    let results = flood.await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorCode::Transient);
        assert!(error.retry_after().is_some());
    }
    assert_eq!(lab.broker.counters().shed, 996);
    assert!(lab.broker.status().len() <= 20);
    pass(100).await;
    assert_ne!(secret(&lab.peek(&storage()).unwrap()), "s3cret-1");
}

#[tokio::test(start_paused = true)]
async fn renewals_shed_in_a_crowd_are_made_up_for() {
    let lab = Lab::with(&small());
    lab.issuer(|manner| manner.latency = Duration::from_secs(10));
    lab.broker.declare((0..40).map(numbered));
    pass(60).await;
    assert!(lab.broker.ready());
    assert_eq!(lab.issuer.most.lock().unwrap().1, 8);
    assert_eq!(lab.fetches(), 40);
}
