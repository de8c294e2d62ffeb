//! The endpoint that acts for a user.

use jobcred_wire::ErrorCode;

use super::endpoints::{client, object, on_behalf_of, pairs, resource_id};
use super::{VAULT, fetch, good, outside, refusal};
use crate::source::OnBehalfOf;
use crate::token::Identity;
use crate::transport::testing::{Server, answer};

#[tokio::test]
async fn on_behalf_of_sends_the_resource_and_nothing_else() {
    let server = Server::start([good()]).await;
    fetch(&on_behalf_of(&server), Identity::Job).await.unwrap();
    assert_eq!(server.queries(), [pairs(&[("resource", VAULT)])]);
    let sent = server.seen().remove(0);
    assert!(sent.contains("\r\nsecret: s3cr3t\r\n"), "{sent}");

    let server = Server::start([good()]).await;
    let source = OnBehalfOf::new(server.url("/OBO/token"), None, &outside()).unwrap();
    fetch(&source, Identity::Job).await.unwrap();
    assert!(!server.seen()[0].contains("secret"));
}

#[tokio::test]
async fn on_behalf_of_tries_the_other_spelling_once() {
    let bad = || answer(400, "", "no such resource");
    let server = Server::start([bad(), good()]).await;
    let token = fetch(&on_behalf_of(&server), Identity::Job).await.unwrap();
    assert_eq!(token.resource, format!("{VAULT}/"));
    assert_eq!(
        server.queries(),
        [
            pairs(&[("resource", VAULT)]),
            pairs(&[("resource", "https://vault.azure.net/")]),
        ]
    );

    let server = Server::start([bad(), answer(403, "", "second")]).await;
    let error = fetch(&on_behalf_of(&server), Identity::Job)
        .await
        .unwrap_err();
    assert!(error.message().contains("no such resource"), "{error}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn the_end_of_a_users_grant_is_told_apart() {
    for (status, code, text) in [
        (
            400,
            "invalid_grant",
            "AADSTS50173: The provided grant has expired",
        ),
        (400, "invalid_grant", "unexplained"),
        (401, "interaction_required", "AADSTS50076: use multi-factor"),
        (400, "x", "AADSTS700082: The refresh token has expired"),
        (401, "x", "SSO failure: unable to retrieve a token"),
    ] {
        let server = Server::start([refusal(status, code, text)]).await;
        let error = fetch(&on_behalf_of(&server), Identity::Job)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorCode::GrantEnded, "{text}");
        assert!(error.hint().unwrap().contains("submit the job again"));
        assert_eq!(server.seen().len(), 1, "{text}");
    }
    let server = Server::start([answer(403, "", "nothing like that")]).await;
    let error = fetch(&on_behalf_of(&server), Identity::Job)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
}

#[tokio::test]
async fn on_behalf_of_has_one_identity() {
    let server = Server::start([good()]).await;
    for identity in [client(), object(), resource_id()] {
        let error = fetch(&on_behalf_of(&server), identity).await.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::Denied);
    }
    assert!(server.seen().is_empty());
}
