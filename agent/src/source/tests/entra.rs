//! Workload identity and service principals against an issuer with TLS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobcred_wire::{ErrorCode, Secret};
use serde_json::json;
use url::{Url, form_urlencoded};

use super::{GUID, ask_as, fetch, jwt, refusal, with};
use crate::source::{Outside, ServicePrincipal, Source, SourceRequest, WorkloadIdentity};
use crate::token::Identity;
use crate::transport::testing::{NOW, Reply, Server, TestAuthority, answer, config, json as reply};
use crate::transport::{NamedRoots, Transport, TransportConfig};

const TENANT: &str = "cccccccc-0000-4000-8000-00000000000c";
const OTHER_TENANT: &str = "dddddddd-0000-4000-8000-00000000000d";

struct Issuer {
    server: Server,
    outside: Outside,
    directory: tempfile::TempDir,
}

impl Issuer {
    async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let authority = TestAuthority::new();
        let server = Server::start_tls(script, &authority).await;
        // The roots are read with the first request, so the file must still be there: it goes with the issuer.
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::copy(&authority.ca_file, &ca_file).unwrap();
        let transport = Transport::new(TransportConfig {
            roots: NamedRoots {
                ca_file: Some(ca_file),
                ..NamedRoots::default()
            },
            ..config()
        });
        Self {
            server,
            outside: with(transport),
            directory,
        }
    }

    fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    fn workload_identity(&self) -> WorkloadIdentity {
        WorkloadIdentity::new(
            self.server.url("/"),
            TENANT.to_owned(),
            GUID.to_owned(),
            self.token_file(),
            &self.outside,
        )
    }

    fn service_principal(&self, secret: &str) -> ServicePrincipal {
        ServicePrincipal::new(
            self.server.url("/"),
            TENANT.to_owned(),
            GUID.to_owned(),
            Secret::from(secret),
            &self.outside,
        )
    }

    /// Path and form of each request.
    fn forms(&self) -> Vec<(String, BTreeMap<String, String>)> {
        let form = |sent: &String| {
            let (head, body) = sent.split_once("\r\n\r\n").unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let form = form_urlencoded::parse(body.as_bytes()).into_owned();
            (path, form.collect())
        };
        self.server.seen().iter().map(form).collect()
    }
}

fn issued() -> Reply {
    reply(
        200,
        &json!({"token_type": "Bearer", "expires_in": 86_399, "ext_expires_in": 86_399, "refresh_in": 43_199, "access_token": "opaque"}),
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn the_federated_token_is_read_for_each_fetch_and_nothing_is_kept() {
    let issuer = Issuer::start([issued()]).await;
    let source = issuer.workload_identity();
    write(&issuer.token_file(), " first\n");
    let token = fetch(&source, Identity::Job).await.unwrap();
    assert_eq!(token.secret, Secret::from("opaque"));
    assert!(token.expires_on >= NOW + Duration::from_secs(86_399));
    // Both count from the same moment.
    assert_eq!(
        token.refresh_on,
        Some(token.expires_on - Duration::from_secs(43_200))
    );
    assert_eq!(token.resource, "https://vault.azure.net");
    write(&issuer.token_file(), "second");
    fetch(&source, Identity::ClientId(GUID.to_owned()))
        .await
        .unwrap();

    let forms = issuer.forms();
    let expected = |assertion: &str| -> BTreeMap<String, String> {
        [
            ("client_assertion", assertion),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_id", GUID),
            ("grant_type", "client_credentials"),
            ("scope", "https://vault.azure.net/.default"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    };
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    assert_eq!(
        forms,
        [
            (path.clone(), expected("first")),
            (path, expected("second"))
        ]
    );
    assert!(issuer.server.seen()[0].starts_with("POST "));
}

#[tokio::test]
async fn another_tenant_is_asked_where_it_is_named() {
    let issuer = Issuer::start([issued()]).await;
    write(&issuer.token_file(), "assertion");
    let request = SourceRequest {
        tenant: Some(OTHER_TENANT.to_owned()),
        ..ask_as(Identity::Job)
    };
    let workload_identity = issuer.workload_identity();
    let service_principal = issuer.service_principal("s3cr3t");
    for source in [&workload_identity as &dyn Source, &service_principal] {
        assert!(source.honours_tenant());
        source.fetch(&request).await.unwrap();
    }
    for (path, _) in issuer.forms() {
        assert_eq!(path, format!("/{OTHER_TENANT}/oauth2/v2.0/token"));
    }
    let request = SourceRequest {
        tenant: Some("a/../b?c".to_owned()),
        ..request
    };
    let error = workload_identity.fetch(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::InvalidRequest);
    assert_eq!(issuer.forms().len(), 2);
}

#[tokio::test]
async fn a_claims_challenge_is_sent_along() {
    let challenge = r#"{"access_token":{"nbf":{"essential":true,"value":"1&2"}}}"#;
    let issuer = Issuer::start([issued(), issued()]).await;
    let source = issuer.service_principal("s");
    for claims in [None, Some(challenge.to_owned())] {
        let request = SourceRequest {
            claims,
            ..ask_as(Identity::Job)
        };
        source.fetch(&request).await.unwrap();
    }
    let forms = issuer.forms();
    assert_eq!(forms[0].1.get("claims"), None);
    assert_eq!(forms[1].1["claims"], challenge);
    assert_eq!(forms[1].1["grant_type"], "client_credentials");
}

#[tokio::test]
async fn a_federated_token_that_cannot_be_used() {
    let issuer = Issuer::start([issued()]).await;
    let source = issuer.workload_identity();
    for (text, kind, part) in [
        (None, ErrorCode::Rejected, "cannot be read"),
        (Some(String::new()), ErrorCode::Transient, "empty"),
        (Some(" \n".to_owned()), ErrorCode::Transient, "empty"),
        (Some("x".repeat(70_000)), ErrorCode::Rejected, "larger than"),
    ] {
        if let Some(text) = &text {
            write(&issuer.token_file(), text);
        }
        let error = fetch(&source, Identity::Job).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(part), "{error}");
        assert!(error.hint().is_some());
    }
    assert!(issuer.forms().is_empty());
}

#[tokio::test]
async fn a_service_principal_sends_its_secret_and_never_shows_it() {
    let issuer = Issuer::start([
        issued(),
        refusal(
            401,
            "invalid_client",
            "AADSTS7000215: Invalid secret s3+cr3t or s3%2Bcr3t.",
        ),
    ])
    .await;
    let source = issuer.service_principal("s3+cr3t");
    fetch(&source, Identity::Job).await.unwrap();
    let (_, form) = issuer.forms().remove(0);
    assert_eq!(form["client_secret"], "s3+cr3t");
    assert_eq!(form["scope"], "https://vault.azure.net/.default");

    let error = fetch(&source, Identity::Job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert_eq!(error.issuer_code(), Some("AADSTS7000215"));
    let shown = format!("{error} {error:?} {source:?}");
    assert!(!shown.contains("cr3t"), "{shown}");
}

#[tokio::test]
async fn status_code_and_wait_survive_the_crate_in_between() {
    let wait = reply(
        429,
        &json!({"error": "temporarily_unavailable", "error_description": "AADSTS90033: slow down", "error_codes": [90033]}),
    );
    let Reply::Bytes(bytes) = wait else { panic!() };
    let text = String::from_utf8(bytes).unwrap();
    let wait = Reply::Bytes(
        text.replacen("content-type", "retry-after: 3600\r\ncontent-type", 1)
            .into_bytes(),
    );
    for (script, kind, code, retry_after) in [
        (
            vec![refusal(
                401,
                "invalid_client",
                "AADSTS70021: No matching federated identity record found",
            )],
            ErrorCode::Rejected,
            Some("AADSTS70021"),
            None,
        ),
        (
            vec![wait],
            ErrorCode::Transient,
            Some("AADSTS90033"),
            Some(Duration::from_secs(3600)),
        ),
        (
            vec![answer(400, "", "<html>a portal</html>")],
            ErrorCode::Rejected,
            None,
            None,
        ),
        (
            vec![answer(302, "location: https://elsewhere/\r\n", "")],
            ErrorCode::Rejected,
            None,
            None,
        ),
        (
            vec![answer(200, "", "not json")],
            ErrorCode::Transient,
            None,
            None,
        ),
    ] {
        let issuer = Issuer::start(script).await;
        let assertion = jwt(&json!({"sub": "system:serviceaccount:a:b"}));
        write(&issuer.token_file(), &assertion);
        let error = fetch(&issuer.workload_identity(), Identity::Job)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.issuer_code(), code);
        assert_eq!(error.retry_after(), retry_after);
        assert_eq!(issuer.forms().len(), 1, "asked once: {error}");
        let endpoint = format!("{}{TENANT}/oauth2/v2.0/token", issuer.server.url("/"));
        assert!(error.message().contains(&endpoint), "{error}");
        assert!(!format!("{error:?}").contains(&assertion));
    }
}

#[tokio::test]
async fn only_the_applications_own_name_may_be_given() {
    let issuer = Issuer::start([issued()]).await;
    write(&issuer.token_file(), "assertion");
    for identity in [
        Identity::ClientId(TENANT.to_owned()),
        Identity::ObjectId(GUID.to_owned()),
        Identity::ResourceId("/x".to_owned()),
    ] {
        let error = fetch(&issuer.workload_identity(), identity)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorCode::Denied);
    }
    assert!(issuer.forms().is_empty());
}

#[tokio::test]
async fn an_issuer_that_is_not_trusted() {
    let issuer = Issuer::start([issued()]).await;
    write(&issuer.token_file(), "assertion");
    let other = Issuer::start([issued()]).await;
    let source = WorkloadIdentity::new(
        Url::parse(issuer.server.url("/").as_str()).unwrap(),
        TENANT.to_owned(),
        GUID.to_owned(),
        issuer.token_file(),
        &other.outside,
    );
    let error = fetch(&source, Identity::Job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert!(error.hint().unwrap().contains("ca_file"), "{error:?}");
    assert!(issuer.forms().is_empty());
}
