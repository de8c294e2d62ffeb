//! An application of another tenant, against a double of the issuer.

use jobcred_tests::{AzureMl, AzureMlOptions, Entra, EntraOptions, TestCa, USUAL_NAMES};
use jobcred_wire::{ErrorCode, Secret};
use url::Url;

use super::{Outside, with};
use crate::config::Application;
use crate::error::TokenError;
use crate::platform::Clock;
use crate::resource::Cloud;
use crate::source::{Federated, Source, SourceRequest, build};
use crate::strategy::{Choice, Strategy, Upstream};
use crate::token::{AccessToken, Identity};
use crate::transport::testing::config;
use crate::transport::{NamedRoots, Transport, TransportConfig};

struct Scene {
    aml: AzureMl,
    entra: Entra,
    outside: Outside,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(change: impl FnOnce(&mut EntraOptions, &AzureMl)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = TestCa::new().unwrap();
        let ca_file = ca.write_to(directory.path()).unwrap();
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let mut options = EntraOptions::default();
        change(&mut options, &aml);
        let entra = Entra::start(options, &ca.leaf(&USUAL_NAMES).unwrap()).unwrap();
        let transport = Transport::new(TransportConfig {
            roots: NamedRoots {
                ca_file: Some(ca_file),
                ..NamedRoots::default()
            },
            ..config()
        });
        Self {
            aml,
            entra,
            outside: Outside {
                clock: Clock::system(),
                ..with(transport)
            },
            _directory: directory,
        }
    }

    async fn assertion(&self) -> AccessToken {
        let identity = self
            .aml
            .options()
            .identities
            .first()
            .unwrap()
            .client_id
            .clone();
        let choice = Choice {
            strategy: Strategy::ComputeIdentity,
            upstream: Upstream::AzureMl {
                endpoint: Url::parse(&self.aml.msi_endpoint()).unwrap(),
                secret: Some(Secret::from(self.aml.secret())),
            },
            client_id: Some(identity),
        };
        let request = SourceRequest {
            identity: Identity::Job,
            resource: Cloud::Public.token_exchange(),
            tenant: None,
            claims: None,
        };
        let source = build(&choice, &self.outside).unwrap();
        Source::fetch(&*source, &request).await.unwrap()
    }

    async fn fetch_as(&self, tenant_id: &str) -> Result<AccessToken, TokenError> {
        let issuer = Url::parse(&self.entra.authority()).unwrap();
        let application = Application {
            client_id: &self.entra.options().application.client_id,
            tenant_id,
        };
        Federated::new(issuer, &self.outside)
            .fetch(
                application,
                &self.assertion().await,
                &Cloud::storage(),
                None,
            )
            .await
    }

    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        self.fetch_as(&self.entra.options().application.tenant_id)
            .await
    }
}

#[tokio::test]
async fn the_jobs_own_token_takes_the_place_of_a_secret() {
    let scene = Scene::new(|options, aml| {
        let own = aml.options().identities.first().unwrap();
        options.assertion_subject = Some(own.object_id.clone());
        options.assertion_issuer = Some(format!(
            "https://login.microsoftonline.com/{}/v2.0",
            own.tenant_id
        ));
        options.home_tenant = Some(own.tenant_id.clone());
    });
    let token = scene.fetch().await.unwrap();
    assert_eq!(token.secret.expose(), scene.entra.tokens()[0].token);
    assert_eq!(
        scene.entra.tokens()[0].principal,
        scene.entra.options().application
    );
    let requests = scene.entra.requests();
    assert_eq!(requests.len(), 1);
    let application = &scene.entra.options().application;
    assert_eq!(
        requests[0].path,
        format!("/{}/oauth2/v2.0/token", application.tenant_id)
    );
    let own = scene.aml.tokens();
    for (field, value) in [
        ("client_id", application.client_id.as_str()),
        ("grant_type", "client_credentials"),
        ("client_assertion", own[0].token.as_str()),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("scope", "https://storage.azure.com/.default"),
    ] {
        assert_eq!(requests[0].field(field).as_deref(), Some(value), "{field}");
    }
    assert_eq!(own[0].audience, "api://AzureADTokenExchange");
}

async fn refused(scene: &Scene, code: &str, hints: &[&str]) {
    let error = scene.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected, "{error}");
    assert_eq!(error.issuer_code(), Some(code), "{error}");
    for hint in hints {
        assert!(error.hint().unwrap().contains(hint), "{hint}: {error:?}");
    }
    let shown = format!("{error} {error:?}");
    assert!(scene.entra.secrets().leaks(&shown).is_empty(), "{shown}");
    assert!(scene.aml.secrets().leaks(&shown).is_empty(), "{shown}");
}

#[tokio::test]
async fn each_refusal_says_what_to_correct_and_where() {
    let scene = Scene::new(|options, _| options.assertion_subject = Some("another".to_owned()));
    let own = scene.aml.options().identities.first().unwrap().clone();
    let application = scene.entra.options().application.client_id.clone();
    refused(
        &scene,
        "AADSTS700213",
        &[
            &own.object_id,
            &own.tenant_id,
            &application,
            "api://AzureADTokenExchange",
        ],
    )
    .await;
    let scene = Scene::new(|options, _| options.assertion_issuer = Some("another".to_owned()));
    refused(&scene, "AADSTS700211", &["/v2.0"]).await;
    let scene = Scene::new(|_, _| {});
    scene.entra.remove_federated_credential(true);
    refused(&scene, "AADSTS70021", &["federated credential"]).await;
    let scene = Scene::new(|options, _| {
        options.home_tenant = Some("eeeeeeee-0000-4000-8000-00000000000e".to_owned());
    });
    refused(
        &scene,
        "AADSTS700236",
        &["registered in the tenant of the job's identity"],
    )
    .await;
    let scene = Scene::new(|_, _| {});
    scene.entra.remove_service_principal(true);
    let application = scene.entra.options().application.client_id.clone();
    refused(
        &scene,
        "AADSTS7000229",
        &["az ad sp create --id", &application],
    )
    .await;

    let nowhere = "ffffffff-0000-4000-8000-00000000000f";
    let error = scene.fetch_as(nowhere).await.unwrap_err();
    assert_eq!(error.issuer_code(), Some("AADSTS90002"), "{error}");
    assert!(error.hint().unwrap().contains(nowhere), "{error:?}");
}
