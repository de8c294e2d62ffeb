//! From a choice to its source, and the sandbox.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jobcred_wire::{ErrorCode, Secret};
use serde_json::Value;
use url::Url;

use super::{GUID, fetch, outside};
use crate::platform::Clock;
use crate::principal::SANDBOX_CLAIM;
use crate::source::{SandboxSource, build};
use crate::strategy::{Choice, Strategy, Upstream};
use crate::token::Identity;
use crate::transport::testing::NOW;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn choice(strategy: Strategy, upstream: Upstream) -> Choice {
    Choice {
        strategy,
        upstream,
        client_id: None,
    }
}

fn workload(authority: &str) -> Upstream {
    Upstream::WorkloadIdentity {
        authority: url(authority),
        tenant: GUID.to_owned(),
        client_id: GUID.to_owned(),
        token_file: PathBuf::from("/token"),
    }
}

fn azure_ml(secret: &str) -> Upstream {
    Upstream::AzureMl {
        endpoint: url("http://127.0.0.1:46808/MSI/auth"),
        secret: Some(Secret::from(secret)),
    }
}

#[tokio::test]
async fn every_upstream_has_its_source() {
    let obo = |secret: &str| Upstream::OnBehalfOf {
        endpoint: url("http://127.0.0.1:46809/OBO/token"),
        secret: Some(Secret::from(secret)),
    };
    let app_service = |header: &str| Upstream::AppService {
        endpoint: url("http://127.0.0.1:41741/msi/token"),
        header: Secret::from(header),
    };
    let principal = |authority: &str| Upstream::ServicePrincipal {
        authority: url(authority),
        tenant: GUID.to_owned(),
        client_id: GUID.to_owned(),
        secret: Secret::from("s"),
    };
    let imds = Upstream::Imds {
        base: url("http://127.0.0.1:1"),
    };
    let app_service_2017 = |secret: &str| Upstream::AppService2017 {
        endpoint: url("http://127.0.0.1:41741/MSI/token"),
        secret: Secret::from(secret),
    };
    for (strategy, upstream, expected) in [
        (
            Strategy::SystemIdentity,
            app_service_2017("s"),
            Ok("app-service-2017"),
        ),
        (
            Strategy::SystemIdentity,
            app_service_2017("a\nb"),
            Err("secret_not_sendable"),
        ),
        (Strategy::ComputeIdentity, azure_ml("s"), Ok("azure-ml")),
        (
            Strategy::ComputeIdentity,
            azure_ml("a\nb"),
            Err("secret_not_sendable"),
        ),
        (Strategy::UserIdentity, obo("s"), Ok("on-behalf-of")),
        (
            Strategy::UserIdentity,
            obo("a\nb"),
            Err("secret_not_sendable"),
        ),
        (
            Strategy::SystemIdentity,
            app_service("h"),
            Ok("app-service"),
        ),
        (
            Strategy::SystemIdentity,
            app_service("\0"),
            Err("secret_not_sendable"),
        ),
        (Strategy::Kubernetes, imds, Ok("imds")),
        (
            Strategy::Kubernetes,
            workload("https://i.example"),
            Ok("workload-identity"),
        ),
        (
            Strategy::Kubernetes,
            workload("http://i.example"),
            Err("authority_not_https"),
        ),
        (
            Strategy::ServicePrincipal,
            principal("https://i.example"),
            Ok("service-principal"),
        ),
        (
            Strategy::ServicePrincipal,
            principal("http://i.example"),
            Err("authority_not_https"),
        ),
        (
            Strategy::AzureCli,
            Upstream::AzureCli {
                program: PathBuf::from("/usr/bin/az"),
                config_dir: None,
                tenant: None,
            },
            Ok("azure-cli"),
        ),
        (Strategy::Sandbox, Upstream::Sandbox, Ok("sandbox")),
    ] {
        let built = build(&choice(strategy, upstream), &outside());
        assert_eq!(
            built
                .as_ref()
                .map(|source| source.name())
                .map_err(|error| error.code),
            expected
        );
    }
}

#[tokio::test]
async fn an_error_at_start_does_not_show_the_secret() {
    let choice = choice(Strategy::ComputeIdentity, azure_ml("s3cr3t\n"));
    let error = build(&choice, &outside()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn a_sandbox_token_is_what_an_emulator_wants_and_marked() {
    let clock = Clock::with_runtime(NOW);
    let source = SandboxSource::new(clock, Duration::from_secs(90)).unwrap();
    let token = fetch(&source, Identity::Job).await.unwrap();
    let parts: Vec<_> = token.secret.expose().split('.').collect();
    assert_eq!(parts.len(), 3);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let time = |name: &str| claims[name].as_i64().unwrap();
    assert_eq!(claims["aud"], "https://vault.azure.net");
    assert!(time("iat") >= NOW.as_secs());
    assert_eq!(time("exp"), time("iat") + 90);
    assert!(time("nbf") < time("iat"));
    assert_eq!(token.expires_on.as_secs(), time("exp"));
    let issuer = claims["iss"].as_str().unwrap();
    let tenant = claims["tid"].as_str().unwrap();
    assert_eq!(issuer, format!("https://sts.windows.net/{tenant}/"));
    assert_eq!(claims["idtyp"], "app");
    assert_eq!(claims[SANDBOX_CLAIM], true);
    assert_eq!(token.client_id.as_deref(), claims["appid"].as_str());

    let next = fetch(&source, Identity::Job).await.unwrap();
    assert_ne!(next.secret, token.secret);
    let own = Identity::ClientId(token.client_id.unwrap());
    fetch(&source, own).await.unwrap();
    let other = Identity::ClientId(GUID.to_owned());
    let error = fetch(&source, other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorCode::Denied);
}
