//! The endpoints that are asked by `GET`.

use jobcred_wire::{ErrorCode, Secret};

use super::{GUID, VAULT, ask_as, fetch, good, outside, refusal};
use crate::platform::UnixTime;
use crate::source::{AppService, AzureMl, Imds, OnBehalfOf, Source, SourceRequest};
use crate::strategy::Strategy;
use crate::token::Identity;
use crate::transport::testing::{NOW, Reply, Server, answer};

pub(super) type Pairs = &'static [(&'static str, &'static str)];

pub(super) fn pairs(pairs: Pairs) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

pub(super) fn client() -> Identity {
    Identity::ClientId(GUID.to_owned())
}

pub(super) fn object() -> Identity {
    Identity::ObjectId(GUID.to_owned())
}

pub(super) fn resource_id() -> Identity {
    Identity::ResourceId("/subscriptions/s/x y".to_owned())
}

fn azure_ml(server: &Server, client_id: Option<&str>, strategy: Strategy) -> AzureMl {
    AzureMl::new(
        server.url("/MSI/auth"),
        Some(Secret::from("s3cr3t")),
        client_id.map(str::to_owned),
        strategy,
        &outside(),
    )
    .unwrap()
}

pub(super) fn on_behalf_of(server: &Server) -> OnBehalfOf {
    let secret = Some(Secret::from("s3cr3t"));
    OnBehalfOf::new(server.url("/OBO/token"), secret, &outside()).unwrap()
}

#[tokio::test]
async fn azure_ml_sends_what_its_endpoint_wants() {
    let compute = Strategy::ComputeIdentity;
    for (client_id, identity, expected) in [
        (
            Some("default-id"),
            Identity::Job,
            &[
                ("api-version", "2017-09-01"),
                ("resource", VAULT),
                ("clientid", "default-id"),
            ][..],
        ),
        (
            None,
            Identity::Job,
            &[("api-version", "2017-09-01"), ("resource", VAULT)],
        ),
        (
            Some("default-id"),
            client(),
            &[
                ("api-version", "2017-09-01"),
                ("resource", VAULT),
                ("clientid", GUID),
            ],
        ),
    ] {
        let server = Server::start([good()]).await;
        let source = azure_ml(&server, client_id, compute);
        let token = fetch(&source, identity).await.unwrap();
        assert_eq!(token.secret, Secret::from("opaque"));
        assert_eq!(token.resource, VAULT);
        assert_eq!(token.expires_on, UnixTime::from_secs(NOW.as_secs() + 3600));
        assert_eq!(server.queries(), [pairs(expected)]);
        let sent = server.seen().remove(0);
        assert!(sent.starts_with("GET /MSI/auth?"), "{sent}");
        assert!(sent.contains("\r\nsecret: s3cr3t\r\n"), "{sent}");
        assert!(!sent.to_ascii_lowercase().contains("metadata"), "{sent}");
        assert!(!format!("{source:?}").contains("s3cr3t"));
    }
}

#[tokio::test]
async fn azure_ml_knows_no_object_and_resource_ids() {
    let server = Server::start([good()]).await;
    let source = azure_ml(&server, Some(GUID), Strategy::ComputeIdentity);
    for identity in [object(), resource_id()] {
        let error = fetch(&source, identity).await.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::Denied);
        assert!(!error.is_healable());
        assert!(error.message().contains("client id"), "{error}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_system_identity_is_asked_for_a_second_time_with_an_empty_client_id() {
    let bad = || answer(400, "", "Bad Request");
    let plain: Pairs = &[("api-version", "2017-09-01"), ("resource", VAULT)];
    let empty: Pairs = &[
        ("api-version", "2017-09-01"),
        ("resource", VAULT),
        ("clientid", ""),
    ];
    for (strategy, client_id, script, asked, healed) in [
        (
            Strategy::SystemIdentity,
            None,
            vec![bad(), good()],
            vec![plain, empty],
            true,
        ),
        (
            Strategy::SystemIdentity,
            None,
            vec![bad()],
            vec![plain, empty],
            false,
        ),
        (
            Strategy::SystemIdentity,
            None,
            vec![answer(403, "", "")],
            vec![plain],
            false,
        ),
        (
            Strategy::Kubernetes,
            None,
            vec![bad(), good()],
            vec![plain],
            false,
        ),
    ] {
        let server = Server::start(script).await;
        let source = azure_ml(&server, client_id, strategy);
        let result = fetch(&source, Identity::Job).await;
        assert_eq!(result.is_ok(), healed, "{result:?}");
        let asked: Vec<_> = asked.into_iter().map(pairs).collect();
        assert_eq!(server.queries(), asked);
    }
    // What became of the second question is no answer to the first one, and no reason to ask for ever.
    let server = Server::start([bad(), Reply::Flood("HTTP/1.1 200 X\r\n\r\n")]).await;
    let source = azure_ml(&server, None, Strategy::SystemIdentity);
    let error = fetch(&source, Identity::Job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected, "{error}");
    // With a client id there is nothing to try.
    let server = Server::start([bad()]).await;
    let source = azure_ml(&server, Some(GUID), Strategy::ComputeIdentity);
    fetch(&source, Identity::Job).await.unwrap_err();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_endpoint_of_a_compute_instance_answers_for_a_user() {
    let text = "SSO failure: unable to retrieve a token. Error Token service ci. Token not found";
    for (strategy, kind) in [
        (Strategy::ComputeInstanceUser, ErrorCode::Rejected),
        (Strategy::ComputeIdentity, ErrorCode::Rejected),
    ] {
        let server = Server::start([answer(401, "content-type: text/plain\r\n", text)]).await;
        let source = azure_ml(&server, Some(GUID), strategy);
        let error = fetch(&source, Identity::Job).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint().unwrap().contains("sign in"), "{error:?}");
    }
    for (strategy, kind) in [
        (Strategy::ComputeInstanceUser, ErrorCode::GrantEnded),
        (Strategy::ComputeIdentity, ErrorCode::Rejected),
    ] {
        let ended = refusal(400, "invalid_grant", "AADSTS50173: revoked");
        let server = Server::start([ended]).await;
        let source = azure_ml(&server, Some(GUID), strategy);
        let error = fetch(&source, Identity::Job).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn a_secret_that_comes_back_is_not_shown() {
    let text = "Invalid secret token header: s3cr3t.";
    let server = Server::start([answer(401, "content-type: text/plain\r\n", text)]).await;
    let source = azure_ml(&server, Some(GUID), Strategy::ComputeIdentity);
    let error = fetch(&source, Identity::Job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(
        error.message().contains("/MSI/auth answered 401"),
        "{shown}"
    );
    assert!(error.hint().unwrap().contains("MSI_SECRET"), "{shown}");
}

#[tokio::test]
async fn imds_and_app_service_take_all_three_kinds_of_names() {
    for (identity, imds, app_service) in [
        (Identity::Job, None, None),
        (
            client(),
            Some(("client_id", GUID)),
            Some(("client_id", GUID)),
        ),
        (
            object(),
            Some(("object_id", GUID)),
            Some(("object_id", GUID)),
        ),
        (
            resource_id(),
            Some(("msi_res_id", "/subscriptions/s/x y")),
            Some(("mi_res_id", "/subscriptions/s/x y")),
        ),
    ] {
        let server = Server::start([good()]).await;
        let source = Imds::new(&server.url("/"), None, &outside());
        fetch(&source, identity.clone()).await.unwrap();
        let mut expected = vec![("api-version", "2018-02-01"), ("resource", VAULT)];
        expected.extend(imds);
        let sent: Vec<_> = server.queries().remove(0);
        let sent: Vec<_> = sent.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(sent, expected);
        let head = server.seen().remove(0);
        assert!(
            head.starts_with("GET /metadata/identity/oauth2/token?"),
            "{head}"
        );
        assert!(head.contains("\r\nmetadata: true\r\n"), "{head}");

        let server = Server::start([good()]).await;
        let source = AppService::new(
            server.url("/msi/token"),
            Secret::from("h3ader"),
            None,
            &outside(),
        )
        .unwrap();
        fetch(&source, identity).await.unwrap();
        let mut expected = vec![("api-version", "2019-08-01"), ("resource", VAULT)];
        expected.extend(app_service);
        let sent: Vec<_> = server.queries().remove(0);
        let sent: Vec<_> = sent.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(sent, expected);
        let head = server.seen().remove(0);
        assert!(head.contains("\r\nx-identity-header: h3ader\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_default_client_id_is_sent_when_none_is_named() {
    let server = Server::start([good()]).await;
    let default = Some("default-id".to_owned());
    let imds = Imds::new(&server.url(""), default.clone(), &outside());
    let url = server.url("/msi/token");
    let app_service = AppService::new(url, Secret::from("h"), default, &outside()).unwrap();
    for source in [&imds as &dyn Source, &app_service] {
        fetch(source, Identity::Job).await.unwrap();
        fetch(source, client()).await.unwrap();
    }
    let sent: Vec<_> = server
        .queries()
        .into_iter()
        .map(|mut query| query.pop().unwrap().1)
        .collect();
    assert_eq!(sent, ["default-id", GUID, "default-id", GUID]);
}

#[tokio::test]
async fn what_imds_means() {
    for (reply, kind, hint) in [
        (
            refusal(400, "invalid_request", "Identity not found"),
            ErrorCode::Rejected,
            "assigned",
        ),
        (
            refusal(400, "invalid_resource", "AADSTS50001: unknown"),
            ErrorCode::Rejected,
            "spelling",
        ),
        (
            answer(
                403,
                "",
                "connecting to 169.254.169.254:80: network is unreachable.",
            ),
            ErrorCode::Rejected,
            "cannot be reached",
        ),
        (answer(401, "", ""), ErrorCode::Rejected, "address"),
    ] {
        let server = Server::start([reply]).await;
        let source = Imds::new(&server.url("/"), None, &outside());
        let error = fetch(&source, Identity::Job).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn no_endpoint_leaves_its_tenant() {
    let server = Server::start([good()]).await;
    let imds = Imds::new(&server.url("/"), None, &outside());
    let azure_ml = azure_ml(&server, None, Strategy::SystemIdentity);
    let app_service =
        AppService::new(server.url("/"), Secret::from("h"), None, &outside()).unwrap();
    for source in [
        &imds as &dyn Source,
        &azure_ml,
        &app_service,
        &on_behalf_of(&server),
    ] {
        assert!(!source.honours_tenant());
        let request = SourceRequest {
            tenant: Some(GUID.to_owned()),
            ..ask_as(Identity::Job)
        };
        let error = source.fetch(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorCode::Denied);
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn what_cannot_be_asked_is_transient_and_names_the_endpoint() {
    let server = Server::start([Reply::Bytes(Vec::new())]).await;
    let url = server.url("/metadata/identity/oauth2/token");
    let error = outside()
        .transport
        .send(&crate::transport::Request::get(
            url.clone(),
            crate::transport::Route::Direct,
        ))
        .await
        .unwrap_err()
        .to_token_error();
    assert_eq!(error.kind(), ErrorCode::Transient);
    assert!(error.message().contains(url.as_str()), "{error}");
}

#[tokio::test]
async fn a_refused_name_is_told_from_a_refused_job() {
    let not_found = || refusal(400, "invalid_request", "Identity not found");
    for (identity, is_named) in [(client(), true), (Identity::Job, false)] {
        let mut hints = Vec::new();
        let server = Server::start([not_found()]).await;
        let source = azure_ml(&server, Some("default-id"), Strategy::ComputeIdentity);
        hints.push(fetch(&source, identity.clone()).await.unwrap_err());
        let server = Server::start([not_found()]).await;
        let source = Imds::new(&server.url("/"), None, &outside());
        hints.push(fetch(&source, identity.clone()).await.unwrap_err());
        let server = Server::start([not_found()]).await;
        let header = Secret::from("s3cr3t");
        let source = AppService::new(server.url("/msi/token"), header, None, &outside()).unwrap();
        hints.push(fetch(&source, identity.clone()).await.unwrap_err());
        for error in hints {
            let hint = error.hint().unwrap();
            assert_eq!(hint.contains(GUID), is_named, "{identity}: {hint}");
            assert_eq!(hint.contains("AZURE_CLIENT_ID"), is_named, "{hint}");
        }
    }
    // A resource that is not known is not the identity's fault.
    let server = Server::start([refusal(400, "invalid_resource", "AADSTS50001: no")]).await;
    let source = Imds::new(&server.url("/"), None, &outside());
    let error = fetch(&source, client()).await.unwrap_err();
    assert!(!error.hint().unwrap().contains(GUID), "{error:?}");
}

#[tokio::test]
async fn app_service_as_of_2017_speaks_like_azure_ml_and_is_not_called_so() {
    let server = Server::start([good(), refusal(401, "x", "no"), refusal(400, "x", "no")]).await;
    let source = AzureMl::of_app_service(
        server.url("/MSI/token/"),
        Secret::from("s3cr3t"),
        None,
        Strategy::SystemIdentity,
        &outside(),
    )
    .unwrap();
    assert_eq!(source.name(), "app-service-2017");
    fetch(&source, client()).await.unwrap();
    let seen = &server.seen()[0];
    assert!(seen.contains("api-version=2017-09-01"), "{seen}");
    assert!(seen.contains(&format!("clientid={GUID}")), "{seen}");
    assert!(
        seen.to_ascii_lowercase().contains("\r\nsecret: s3cr3t"),
        "{seen}"
    );
    for _ in 0..2 {
        let error = fetch(&source, Identity::Job).await.unwrap_err();
        let shown = format!("{error} {:?}", error.hint());
        assert!(!shown.contains("DEFAULT_IDENTITY_CLIENT_ID"), "{shown}");
    }
}
