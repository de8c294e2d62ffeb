//! A user's grant that has ended: what is held is served to its end, and nobody but a caller asks again, and rarely.

use jobcred_wire::ErrorCode;

use super::{HOUR, Lab, pass, rejected, secret, storage, transient};
use crate::error::TokenError;

fn ended() -> TokenError {
    TokenError::new(ErrorCode::GrantEnded, "over").with_hint("submit again")
}

#[tokio::test(start_paused = true)]
async fn the_background_stops_and_what_is_held_is_served_to_its_end() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(1).await;
    lab.issuer_fails(ended());
    // In use all the time: the renewal that is due is the one try.
    for _ in 0..3_598 {
        assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
        // More life than there is: no reason to ask again either.
        assert_eq!(
            secret(&lab.get_with_life(&storage(), 3_590).await.unwrap()),
            "s3cret-1"
        );
        pass(1).await;
    }
    let tries = lab.fetches();
    assert!((2..=15).contains(&tries), "{tries}");
    // Past the end of the token nobody asks: neither does the background, for hours.
    pass(1).await;
    assert!(lab.peek(&storage()).is_none());
    pass(5 * HOUR).await;
    assert_eq!(lab.fetches(), tries);
    assert!(!lab.broker.ready());
}

#[tokio::test(start_paused = true)]
async fn an_unused_agent_makes_one_try_and_no_more() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(1).await;
    lab.issuer_fails(ended());
    pass(24 * HOUR).await;
    assert_eq!(lab.fetches(), 2, "{:?}", lab.gaps());
    let status = lab.broker.status();
    let last = status[0].last_error.as_ref().unwrap();
    assert_eq!(last.code, ErrorCode::GrantEnded);
}

#[tokio::test(start_paused = true)]
async fn callers_ask_again_once_in_five_minutes() {
    let lab = Lab::new();
    lab.issuer_fails(ended());
    for _ in 0..HOUR {
        let error = lab.get(&storage()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::GrantEnded);
        assert_eq!(error.hint(), Some("submit again"));
        pass(1).await;
    }
    let gaps = lab.gaps();
    assert_eq!(lab.fetches(), 12);
    assert!(gaps.iter().all(|gap| *gap >= 300), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn trouble_on_the_way_says_nothing_of_the_grant() {
    let lab = Lab::new();
    lab.issuer_fails(ended());
    assert!(lab.get(&storage()).await.is_err());
    pass(300).await;
    lab.issuer_fails(transient());
    let error = lab.get(&storage()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Transient);
    for _ in 0..29 {
        pass(1).await;
        let error = lab.get(&storage()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::GrantEnded);
    }
    assert_eq!(lab.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_back_and_another_refusal_end_the_silence() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    lab.issuer_fails(ended());
    pass(HOUR).await;
    assert_eq!(lab.fetches(), 1);
    lab.issuer_works();
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-2");
    pass(2 * HOUR).await;
    assert!(lab.fetches() > 3, "renewed in the background again");

    let lab = Lab::new();
    lab.broker.declare([storage()]);
    lab.issuer_fails(ended());
    pass(HOUR).await;
    lab.issuer_fails(rejected());
    assert!(lab.get(&storage()).await.is_err());
    let before = lab.fetches();
    pass(HOUR).await;
    assert!(lab.fetches() > before, "a role can be assigned");
}

#[tokio::test(start_paused = true)]
async fn one_keys_grant_is_not_anothers() {
    let lab = Lab::new();
    lab.issuer_fails(ended());
    assert!(lab.get(&storage()).await.is_err());
    lab.issuer_works();
    assert!(lab.get(&super::numbered(1)).await.is_ok());
    assert!(lab.get(&storage()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_claims_challenge_can_tell_that_it_has_ended() {
    let lab = Lab::new();
    lab.broker.declare([storage()]);
    pass(1).await;
    lab.issuer_fails(ended());
    let error = lab.challenge(&storage()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::GrantEnded);
    assert_eq!(secret(&lab.get(&storage()).await.unwrap()), "s3cret-1");
    pass(24 * HOUR).await;
    assert_eq!(lab.fetches(), 2);
}
