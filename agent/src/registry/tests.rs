//! The exchange against a registry double: real sockets, real TLS.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jobcred_tests::{Acr, AcrOptions, Behavior, TestCa};
use jobcred_wire::{ErrorCode, LoginServer};
use serde_json::json;

use super::{EntraTokens, Registry};
use crate::config::{Config, RegistryConfig};
use crate::error::TokenError;
use crate::platform::{Clock, UnixTime};
use crate::resource::{Cloud, Resource};
use crate::token::{AccessToken, Identity};
use crate::transport::{NamedRoots, Transport, TransportConfig};

const ACR: &str = "https://containerregistry.azure.net";
const ARM: &str = "https://management.azure.com/";
const TENANT: &str = "6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10";

/// Issues tokens for every audience but those it was told to refuse, and remembers what it was asked.
#[derive(Default)]
struct Issuer {
    refused: Mutex<Vec<(&'static str, TokenError)>>,
    /// A managed identity: no request may name a tenant.
    own_tenant_only: bool,
    asked: Mutex<Vec<(Identity, String, Option<String>)>>,
}

#[async_trait]
impl EntraTokens for Issuer {
    async fn entra_token(
        &self,
        identity: &Identity,
        resource: &Resource,
        tenant: Option<&str>,
    ) -> Result<AccessToken, TokenError> {
        self.asked.lock().unwrap().push((
            identity.clone(),
            resource.to_string(),
            tenant.map(str::to_owned),
        ));
        if self.own_tenant_only && tenant.is_some() {
            return Err(TokenError::new(ErrorCode::Denied, "own tenant only"));
        }
        let refused = self.refused.lock().unwrap();
        if let Some((_, error)) = refused.iter().find(|(name, _)| *name == resource.as_str()) {
            return Err(error.clone());
        }
        Ok(AccessToken {
            secret: entra_token(resource.as_str()).into(),
            expires_on: UnixTime::MAX,
            refresh_on: None,
            resource: resource.to_string(),
            client_id: None,
        })
    }
}

fn entra_token(audience: &str) -> String {
    jwt(&json!({"aud": audience, "oid": "o", "tid": TENANT, "exp": 99_999_999_999_i64}))
}

fn jwt(claims: &serde_json::Value) -> String {
    use base64::Engine as _;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("e30.{payload}.c2ln")
}

struct Scene {
    acr: Acr,
    issuer: Arc<Issuer>,
    config: Config,
    server: String,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = TestCa::new().unwrap();
        let acr = Acr::start(AcrOptions::default(), &ca.usual_leaf().unwrap()).unwrap();
        let server = format!("localhost:{}", acr.endpoint().address().port());
        acr.update(|options| options.login_server.clone_from(&server));
        let mut config = Config {
            ca_file: Some(ca.write_to(dir.path()).unwrap()),
            ..Config::default()
        };
        config
            .registries
            .insert(server.clone(), RegistryConfig::default());
        Self {
            acr,
            issuer: Arc::default(),
            config,
            server,
            _dir: dir,
        }
    }

    fn settings(&mut self) -> &mut RegistryConfig {
        self.config.registries.get_mut(&self.server).unwrap()
    }

    fn refuse(&self, audience: &'static str, kind: ErrorCode) {
        self.issuer
            .refused
            .lock()
            .unwrap()
            .push((audience, TokenError::new(kind, format!("no {audience}"))));
    }

    async fn credential(&self) -> Result<AccessToken, TokenError> {
        let clock = Clock::system();
        let transport = Transport::new(TransportConfig {
            roots: NamedRoots {
                ca_file: self.config.ca_file.clone(),
                ..NamedRoots::default()
            },
            https_proxy: None,
            no_proxy: None,
            clock: clock.clone(),
        });
        let tokens: Arc<dyn EntraTokens> = Arc::clone(&self.issuer) as _;
        let registry = Registry::new(tokens, Arc::new(transport), clock, &self.config);
        let server = self.config.login_server(&self.server).unwrap();
        registry.credential(&Identity::Job, &server).await
    }

    fn asked(&self) -> Vec<String> {
        let asked = self.issuer.asked.lock().unwrap();
        asked
            .iter()
            .map(|(_, audience, _)| audience.clone())
            .collect()
    }
}

#[tokio::test]
async fn an_exchange_sends_the_form_and_reads_the_end_from_the_token() {
    let scene = Scene::new();
    let credential = scene.credential().await.unwrap();
    assert_eq!(credential.resource, scene.server);
    assert_eq!(
        scene.acr.refresh_tokens(),
        [credential.secret.expose().to_owned()]
    );
    let life = credential.expires_on.since(Clock::system().now()).as_secs();
    assert!((3 * 3600 - 60..=3 * 3600).contains(&life), "{life}");
    let requests = scene.acr.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/oauth2/exchange")
    );
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.field("grant_type").as_deref(), Some("access_token"));
    assert_eq!(request.field("service"), Some(scene.server.clone()));
    assert_eq!(request.field("tenant"), None);
    assert_eq!(request.field("access_token"), Some(entra_token(ACR)));
    assert_eq!(scene.asked(), [ACR]);
}

#[tokio::test]
async fn a_configured_tenant_goes_to_the_issuer_and_into_the_form() {
    let mut scene = Scene::new();
    scene.settings().tenant_id = Some(TENANT.to_owned());
    scene.credential().await.unwrap();
    assert_eq!(
        *scene.issuer.asked.lock().unwrap(),
        [(Identity::Job, ACR.to_owned(), Some(TENANT.to_owned()))]
    );
    assert_eq!(
        scene.acr.requests()[0].field("tenant").as_deref(),
        Some(TENANT)
    );
}

#[tokio::test]
async fn a_managed_identity_serves_its_own_tenant_and_no_other() {
    for (tenant, is_served) in [
        (TENANT.to_uppercase(), true),
        ("11111111-2222-3333-4444-555555555555".to_owned(), false),
        ("contoso.example".to_owned(), false),
    ] {
        let mut scene = Scene::new();
        scene.settings().tenant_id = Some(tenant.clone());
        scene.issuer = Arc::new(Issuer {
            own_tenant_only: true,
            ..Issuer::default()
        });
        let result = scene.credential().await;
        assert_eq!(result.is_ok(), is_served, "{tenant}");
        assert_eq!(scene.acr.requests().len(), usize::from(is_served));
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorCode::Denied);
            assert!(error.hint().unwrap().contains("tenant_id"));
        }
    }
}

#[tokio::test]
async fn resource_manager_stands_in_only_when_the_registrys_audience_is_refused() {
    for (kind, expected) in [
        (ErrorCode::Rejected, &[ACR, ARM][..]),
        (ErrorCode::InvalidRequest, &[ACR, ARM]),
        (ErrorCode::Transient, &[ACR]),
        (ErrorCode::GrantEnded, &[ACR, ARM]),
        (ErrorCode::Denied, &[ACR]),
        (ErrorCode::Unavailable, &[ACR]),
        (ErrorCode::Internal, &[ACR]),
    ] {
        let scene = Scene::new();
        scene.refuse(ACR, kind);
        let result = scene.credential().await;
        assert_eq!(scene.asked(), expected, "{kind}");
        match result {
            Ok(_) => assert_eq!(expected.len(), 2, "{kind}"),
            Err(error) => assert_eq!((error.kind(), expected.len()), (kind, 1)),
        }
    }
}

#[tokio::test]
async fn the_fallback_can_be_forbidden() {
    let mut scene = Scene::new();
    scene.config.registry_arm_fallback = false;
    scene.refuse(ACR, ErrorCode::Rejected);
    let error = scene.credential().await.unwrap_err();
    assert_eq!(scene.asked(), [ACR]);
    assert!(error.hint().unwrap().contains("registry_arm_fallback"));
    assert!(scene.acr.requests().is_empty());
}

#[tokio::test]
async fn when_both_audiences_are_refused_the_first_refusal_is_told() {
    let scene = Scene::new();
    scene.refuse(ACR, ErrorCode::Rejected);
    scene.refuse(ARM, ErrorCode::InvalidRequest);
    let error = scene.credential().await.unwrap_err();
    assert_eq!(error.message(), format!("no {ACR}"));
    let scene = Scene::new();
    scene.refuse(ACR, ErrorCode::Rejected);
    scene.refuse(ARM, ErrorCode::Transient);
    assert!(scene.credential().await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_pinned_audience_is_the_only_one() {
    let mut scene = Scene::new();
    scene.settings().audience = Some("https://management.azure.com".to_owned());
    scene.credential().await.unwrap();
    assert_eq!(scene.asked(), [ARM]);

    let mut scene = Scene::new();
    scene.settings().audience = Some(ACR.to_owned());
    scene.refuse(ACR, ErrorCode::Rejected);
    scene.credential().await.unwrap_err();
    assert_eq!(scene.asked(), [ACR]);
}

#[tokio::test]
async fn a_registry_that_wants_its_own_audience_is_explained() {
    let scene = Scene::new();
    scene.acr.update(|options| options.arm_allowed = false);
    scene.refuse(ACR, ErrorCode::Rejected);
    let error = scene.credential().await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert_eq!(
        error.issuer_code(),
        Some("CONNECTIVITY_REFRESH_TOKEN_ERROR")
    );
    assert!(
        error.message().contains("answered 401 (UNAUTHORIZED)"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("authentication-as-arm"));
}

#[tokio::test]
async fn refusals_name_the_status_and_the_next_step() {
    for (behavior, kind, code, words) in [
        (
            Behavior::status(401),
            ErrorCode::Rejected,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "AcrPull",
        ),
        (
            Behavior::status(403),
            ErrorCode::Rejected,
            "CONNECTIVITY_FORBIDDEN_ERROR",
            "firewall",
        ),
        (
            Behavior::status(404),
            ErrorCode::Rejected,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "login server",
        ),
        (
            Behavior::status(400),
            ErrorCode::Rejected,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "login server",
        ),
        (
            Behavior::text(200, "<html>"),
            ErrorCode::Transient,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "proxy",
        ),
        (
            Behavior::json(200, &json!({})),
            ErrorCode::Transient,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "proxy",
        ),
        (
            Behavior::json(200, &json!({"refresh_token": ""})),
            ErrorCode::Transient,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "proxy",
        ),
        (
            Behavior::json(200, &json!({"refresh_token": "a b"})),
            ErrorCode::Transient,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "proxy",
        ),
        (
            Behavior::json(200, &json!({"refresh_token": jwt(&json!({"exp": 5}))})),
            ErrorCode::Transient,
            "CONNECTIVITY_REFRESH_TOKEN_ERROR",
            "clock",
        ),
    ] {
        let scene = Scene::new();
        scene.acr.script().push(behavior.clone());
        let error = scene.credential().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{behavior:?}");
        assert_eq!(error.issuer_code(), Some(code), "{behavior:?}");
        assert!(
            error.hint().unwrap().contains(words),
            "{behavior:?}: {error:?}"
        );
        assert!(error.message().contains(&scene.server));
        assert!(!format!("{error:?}").contains(&entra_token(ACR)));
        assert_eq!(scene.acr.requests().len(), 1, "{behavior:?}");
    }
}

#[tokio::test]
async fn a_throttled_exchange_is_repeated() {
    let scene = Scene::new();
    scene.acr.script().push(Behavior::status(503));
    scene.credential().await.unwrap();
    assert_eq!(scene.acr.requests().len(), 2);
    // One token serves both tries.
    assert_eq!(scene.asked(), [ACR]);
}

#[tokio::test]
async fn an_unreadable_token_is_kept_for_ten_minutes() {
    let scene = Scene::new();
    scene
        .acr
        .script()
        .push(Behavior::json(200, &json!({"refresh_token": "opaque"})));
    let credential = scene.credential().await.unwrap();
    let life = credential.expires_on.since(Clock::system().now()).as_secs();
    assert!((500..=600).contains(&life), "{life}");
}

#[tokio::test]
async fn a_denial_can_mean_no_credential() {
    let mut scene = Scene::new();
    scene.settings().anonymous_when_denied = true;
    scene.acr.update(|options| options.denied = true);
    let error = scene.credential().await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Anonymous);
    assert!(error.message().contains("anonymous_when_denied"));
}

#[tokio::test]
async fn an_untrusted_certificate_gets_no_token() {
    let mut scene = Scene::new();
    let other = TestCa::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    scene.config.ca_file = Some(other.write_to(dir.path()).unwrap());
    let error = scene.credential().await.unwrap_err();
    assert_eq!(error.issuer_code(), Some("CONNECTIVITY_SSL_ERROR"));
    assert!(scene.acr.requests().is_empty());
}

#[tokio::test]
async fn a_host_that_nobody_listed_gets_no_token() {
    let mut scene = Scene::new();
    let server = LoginServer::parse(&scene.server, &[scene.server.parse().unwrap()]).unwrap();
    scene.config.registries.clear();
    let clock = Clock::system();
    let transport = Transport::new(TransportConfig {
        roots: NamedRoots {
            ca_file: scene.config.ca_file.clone(),
            ..NamedRoots::default()
        },
        https_proxy: None,
        no_proxy: None,
        clock: clock.clone(),
    });
    let tokens: Arc<dyn EntraTokens> = Arc::clone(&scene.issuer) as _;
    let registry = Registry::new(tokens, Arc::new(transport), clock, &scene.config);
    let error = registry
        .credential(&Identity::Job, &server)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Denied);
    assert!(scene.asked().is_empty());
}

#[test]
fn the_audiences_are_the_resources_of_the_cloud() {
    assert_eq!(Cloud::container_registry().as_str(), ACR);
    assert_eq!(Cloud::Public.resource_manager().as_str(), ARM);
}
