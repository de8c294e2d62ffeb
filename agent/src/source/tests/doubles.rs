//! Sources against doubles of Azure that were written without a look at them.

use std::path::PathBuf;
use std::sync::Arc;

use jobcred_tests::{
    AppService, AppServiceOptions, AzureMl, AzureMlOptions, Behavior, Entra, EntraOptions,
    ExpiryForm, GrantEnd, Identities, Imds, ImdsOptions, IssuedToken, TestCa, USUAL_NAMES,
    WithoutClientId, WrongForm,
};
use jobcred_wire::{ErrorCode, Secret};
use url::Url;

use super::{Outside, fetch, with};
use crate::platform::Clock;
use crate::source::{Source, build};
use crate::strategy::{Choice, Strategy, Upstream};
use crate::token::{AccessToken, Identity};
use crate::transport::testing::{config, transport};
use crate::transport::{NamedRoots, Transport, TransportConfig};

/// The doubles live in real time.
fn outside() -> Outside {
    Outside {
        clock: Clock::system(),
        ..with(transport())
    }
}

fn source(strategy: Strategy, upstream: Upstream, client_id: Option<&str>) -> Arc<dyn Source> {
    let choice = Choice {
        strategy,
        upstream,
        client_id: client_id.map(str::to_owned),
    };
    build(&choice, &outside()).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn msi(aml: &AzureMl) -> Upstream {
    Upstream::AzureMl {
        endpoint: url(&aml.msi_endpoint()),
        secret: Some(Secret::from(aml.secret())),
    }
}

fn obo(aml: &AzureMl) -> Upstream {
    Upstream::OnBehalfOf {
        endpoint: url(&aml.obo_endpoint()),
        secret: Some(Secret::from(aml.secret())),
    }
}

fn is_the_one(token: &AccessToken, issued: &[IssuedToken]) {
    let issued = issued.last().unwrap();
    assert_eq!(token.secret.expose(), issued.token);
    assert_eq!(token.expires_on.as_secs(), issued.expires_on);
}

#[tokio::test]
async fn azure_ml_in_every_form_of_expiry() {
    for form in [
        ExpiryForm::Integer,
        ExpiryForm::Text,
        ExpiryForm::LinuxDate,
        ExpiryForm::WindowsDate,
        ExpiryForm::Rfc3339,
    ] {
        let options = AzureMlOptions {
            expiry: form,
            obo_expiry: form,
            obo_requires_secret: true,
            ..AzureMlOptions::default()
        };
        let aml = AzureMl::start(options).unwrap();
        let client_id = aml.options().identities.first().unwrap().client_id.clone();
        let compute = source(Strategy::ComputeIdentity, msi(&aml), Some(&client_id));
        let token = fetch(&*compute, Identity::Job).await.unwrap();
        is_the_one(&token, &aml.mint().issued());
        let user = source(Strategy::UserIdentity, obo(&aml), None);
        let token = fetch(&*user, Identity::Job).await.unwrap();
        is_the_one(&token, &aml.user_mint().issued());
    }
}

#[tokio::test]
async fn a_system_identity_of_azure_ml() {
    let aml = AzureMl::start(AzureMlOptions {
        identities: Identities::system(),
        without_client_id: WithoutClientId::RefuseUnlessEmpty,
        ..AzureMlOptions::default()
    })
    .unwrap();
    let system = source(Strategy::SystemIdentity, msi(&aml), None);
    let token = fetch(&*system, Identity::Job).await.unwrap();
    is_the_one(&token, &aml.mint().issued());
    assert_eq!(aml.requests().len(), 2);
}

#[tokio::test]
async fn the_end_of_a_grant() {
    for (form, kind) in [
        (GrantEnd::Json, ErrorCode::GrantEnded),
        (GrantEnd::Text, ErrorCode::GrantEnded),
        (GrantEnd::Failure, ErrorCode::GrantEnded),
        // Nothing says what it is: the hint names both causes.
        (GrantEnd::Empty, ErrorCode::Rejected),
    ] {
        let aml = AzureMl::start(AzureMlOptions {
            grant_end: form,
            ..AzureMlOptions::default()
        })
        .unwrap();
        aml.end_user_grant(true);
        let user = source(Strategy::UserIdentity, obo(&aml), None);
        let error = fetch(&*user, Identity::Job).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{form:?}: {error}");
        assert!(error.hint().unwrap().contains("submit"), "{error:?}");
    }
}

#[tokio::test]
async fn wrong_types_are_read_or_refused_without_a_word_of_the_body() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let client_id = aml.options().identities.first().unwrap().client_id.clone();
    let compute = source(Strategy::ComputeIdentity, msi(&aml), Some(&client_id));
    for (form, read) in [
        (WrongForm::NumbersAsStrings, true),
        (WrongForm::StringsAsNumbers, true),
        (WrongForm::Floats, true),
        (WrongForm::PlainText, true),
        (WrongForm::JsonArray, false),
        (WrongForm::JsonString, false),
        (WrongForm::JsonNull, false),
        (WrongForm::Html, false),
        (WrongForm::Words, false),
        (WrongForm::Empty, false),
        (WrongForm::Bytes, false),
        (WrongForm::DeepNesting, false),
    ] {
        aml.script().push(Behavior::WrongType { form });
        match fetch(&*compute, Identity::Job).await {
            Ok(token) => {
                assert!(read, "{form:?}");
                is_the_one(&token, &aml.mint().issued());
            }
            Err(error) => {
                assert!(!read, "{form:?}: {error}");
                assert_eq!(error.kind(), ErrorCode::Transient, "{form:?}");
                let shown = format!("{error} {error:?}");
                assert!(aml.secrets().leaks(&shown).is_empty(), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn imds_and_app_service() {
    let imds = Imds::start(ImdsOptions::default()).unwrap();
    let upstream = Upstream::Imds {
        base: url(&imds.endpoint().url("/")),
    };
    let token = fetch(
        &*source(Strategy::SystemIdentity, upstream, None),
        Identity::Job,
    )
    .await
    .unwrap();
    is_the_one(&token, &imds.tokens());

    let app_service = AppService::start(AppServiceOptions {
        identities: Identities::user_assigned(2),
        ..AppServiceOptions::default()
    })
    .unwrap();
    let first = app_service.options().identities.first().unwrap().clone();
    let upstream = Upstream::AppService {
        endpoint: url(&app_service.url()),
        header: Secret::from(app_service.header()),
    };
    let compute = source(Strategy::ComputeIdentity, upstream, Some(&first.client_id));
    for identity in [
        Identity::Job,
        Identity::ClientId(first.client_id.clone()),
        Identity::ObjectId(first.object_id.clone()),
        Identity::ResourceId(Identities::resource_id(&first)),
    ] {
        let token = fetch(&*compute, identity).await.unwrap();
        is_the_one(&token, &app_service.tokens());
    }
}

#[tokio::test]
async fn entra_with_an_assertion_and_with_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::new().unwrap();
    let ca_file = ca.write_to(directory.path()).unwrap();
    let leaf = ca.leaf(&USUAL_NAMES).unwrap();
    let entra = Entra::start(EntraOptions::default(), &leaf).unwrap();
    let application = entra.options().application.clone();
    let token_file: PathBuf = directory.path().join("token");
    let outside = Outside {
        clock: Clock::system(),
        ..with(Transport::new(TransportConfig {
            roots: NamedRoots {
                ca_file: Some(ca_file),
                ..NamedRoots::default()
            },
            ..config()
        }))
    };
    let make = |strategy, upstream| {
        let choice = Choice {
            strategy,
            upstream,
            client_id: None,
        };
        build(&choice, &outside).unwrap()
    };
    let pod = make(
        Strategy::Kubernetes,
        Upstream::WorkloadIdentity {
            authority: url(&entra.authority()),
            tenant: application.tenant_id.clone(),
            client_id: application.client_id.clone(),
            token_file: token_file.clone(),
        },
    );
    std::fs::write(&token_file, entra.new_assertion(3600)).unwrap();
    let token = fetch(&*pod, Identity::Job).await.unwrap();
    assert_eq!(token.secret.expose(), entra.tokens().last().unwrap().token);

    // The kubelet is late.
    entra.expire_seen_assertions();
    let error = fetch(&*pod, Identity::Job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Rejected);
    assert_eq!(error.issuer_code(), Some("AADSTS700024"), "{error}");
    std::fs::write(&token_file, format!("{}\n", entra.new_assertion(3600))).unwrap();
    fetch(&*pod, Identity::Job).await.unwrap();
    entra.remove_federated_credential(true);
    let error = fetch(&*pod, Identity::Job).await.unwrap_err();
    assert!(
        error.issuer_code().unwrap().starts_with("AADSTS7002"),
        "{error}"
    );
    let shown = format!("{error} {error:?}");
    assert!(entra.secrets().leaks(&shown).is_empty(), "{shown}");

    let principal = make(
        Strategy::ServicePrincipal,
        Upstream::ServicePrincipal {
            authority: url(&entra.authority()),
            tenant: application.tenant_id.clone(),
            client_id: application.client_id.clone(),
            secret: Secret::from(entra.client_secret()),
        },
    );
    let token = fetch(&*principal, Identity::Job).await.unwrap();
    assert_eq!(token.secret.expose(), entra.tokens().last().unwrap().token);
}
