//! A claims challenge is one rate-limited fetch past the cache.

use std::time::Duration;

use futures::future::join_all;
use jobcred_wire::ErrorCode;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::{Answer, Lab, pass, rejected, secret, storage, transient};

#[tokio::test(start_paused = true)]
async fn a_challenge_fetches_once_and_its_token_is_everyones() {
    let lab = Lab::new();
    lab.get(&storage()).await.unwrap();
    lab.issuer(|manner| manner.latency = Duration::from_secs(1));
    let key = storage();
    for token in join_all((0..50).map(|_| lab.challenge(&key))).await {
        assert_eq!(secret(&token.unwrap()), "s3cret-2");
    }
    assert_eq!(secret(&lab.get(&key).await.unwrap()), "s3cret-2");
    let claims: Vec<_> = {
        let seen = lab.issuer.seen.lock().unwrap();
        seen.iter().map(|seen| seen.claims.clone()).collect()
    };
    assert_eq!(claims, [None, Some("{}".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn challenges_in_a_loop_are_one_fetch_in_thirty_seconds() {
    for repeats in [false, true] {
        let lab = Lab::new();
        lab.issuer(|manner| manner.answer = if repeats { Answer::Again } else { Answer::New });
        lab.get(&storage()).await.unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(89) {
            assert_eq!(lab.challenge(&storage()).await.is_err(), repeats);
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(lab.fetches(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_token_is_said_and_still_served_to_others() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.answer = Answer::Again);
    lab.get(&storage()).await.unwrap();
    let error = lab.challenge(&storage()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert!(error.message().contains("same token"), "{error}");
    assert!(error.hint().unwrap().contains("24 hours"));
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
}

#[tokio::test(start_paused = true)]
async fn a_challenge_without_a_token_held_is_an_ordinary_first_fetch() {
    let lab = Lab::new();
    lab.issuer(|manner| manner.answer = Answer::Again);
    assert_eq!(
        secret(&lab.challenge(&storage()).await.unwrap()),
        "s3cret-1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_fails_is_its_callers_alone() {
    for error in [transient(), rejected().malformed()] {
        let lab = Lab::new();
        lab.issuer_fails(error.clone());
        assert_eq!(
            lab.challenge(&storage()).await.unwrap_err().kind(),
            error.kind()
        );
        // The key has no token yet: what was refused to the challenge is not refused to others.
        lab.issuer_works();
        pass(1).await;
        assert!(lab.get(&storage()).await.is_ok());
        assert!(
            lab.challenge(&storage()).await.is_err(),
            "repeated within the pause"
        );
        pass(30).await;
        assert!(lab.challenge(&storage()).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_anothers_refused_challenge_gets_a_fetch_of_its_own() {
    let lab = Lab::new();
    lab.issuer(|manner| {
        manner.answer = Answer::Failure(rejected().malformed());
        manner.latency = Duration::from_secs(1);
    });
    let key = storage();
    let mut challenger = Box::pin(lab.challenge(&key));
    assert!(futures::poll!(&mut challenger).is_pending());
    yield_now().await;
    let mut other = Box::pin(lab.get(&key));
    assert!(futures::poll!(&mut other).is_pending());
    lab.issuer_works();
    assert!(challenger.await.is_err());
    assert_eq!(secret(&other.await.unwrap()), "s3cret-2");
}

#[tokio::test(start_paused = true)]
async fn a_challenge_during_a_renewal_takes_its_token_when_it_is_new() {
    for repeats in [false, true] {
        let lab = Lab::new();
        lab.get(&storage()).await.unwrap();
        lab.peek(&storage()).unwrap();
        lab.issuer(|manner| {
            manner.latency = Duration::from_secs(10);
            manner.answer = if repeats { Answer::Again } else { Answer::New };
        });
        pass(3_155).await;
        assert_eq!(lab.fetches(), 2);
        let result = lab.challenge(&storage()).await;
        if repeats {
            // The renewal brought what was refused; only a fetch with the challenge may say so.
            assert_eq!(result.unwrap_err().kind(), ErrorCode::Rejected);
            assert_eq!(lab.fetches(), 3);
        } else {
            assert_eq!(secret(&result.unwrap()), "s3cret-2");
            assert_eq!(lab.fetches(), 2);
        }
    }
}
