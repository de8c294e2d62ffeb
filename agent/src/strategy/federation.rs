//! Acting as an application that trusts the job's identity: whether it can be done here, and at which issuer.

use jobcred_wire::Notice;
use url::Url;

use super::notice::info;
use super::{Choice, StartError, Strategy, reading, reason};
use crate::config::Config;
use crate::platform::Environment;

/// Why a strategy's own tokens are no proof for an application; `None` where they are.
///
/// Source: Entra's documentation of applications that trust a managed identity. Of Entra's own tokens it takes a managed
/// identity's alone (AADSTS700226), which workload identity's are where the pod's service account stands for one.
#[must_use]
pub fn refuses_federation(strategy: Strategy) -> Option<&'static str> {
    match strategy {
        Strategy::ComputeIdentity | Strategy::Kubernetes | Strategy::SystemIdentity => None,
        Strategy::UserIdentity | Strategy::ComputeInstanceUser => Some(
            "this job's tokens are a user's, and an application trusts a managed identity only",
        ),
        Strategy::ServicePrincipal => Some(
            "this job's tokens are an application's with a secret of its own, and another one trusts a managed identity only",
        ),
        Strategy::AzureCli => Some(
            "this job's tokens are those of a login, and an application trusts a managed identity only",
        ),
        Strategy::Sandbox => Some("a sandbox's tokens prove nothing"),
    }
}

/// The issuer: configured, else in the environment, else the cloud's.
///
/// # Errors
/// When it is no https address.
pub fn federation_issuer(
    environment: &Environment,
    config: &Config,
) -> Result<Url, FederationError> {
    let text = match (
        &config.authority_host,
        environment.get("AZURE_AUTHORITY_HOST"),
    ) {
        (Some(url), _) => url.as_str(),
        (None, Some(text)) => text,
        (None, None) => config.cloud.authority(),
    };
    reading::authority(text).ok_or(FederationError)
}

/// The issuer's address cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AZURE_AUTHORITY_HOST (or authority_host) is not an https address")]
pub struct FederationError;

impl From<FederationError> for StartError {
    fn from(error: FederationError) -> Self {
        Self {
            code: reason::AUTHORITY_NOT_HTTPS,
            message: format!("{error}, and no credential is sent in the clear"),
            hint: "Correct AZURE_AUTHORITY_HOST or `authority_host`.".to_owned(),
        }
    }
}

/// Whether the configured application can be acted as with this choice.
pub(super) fn check(
    environment: &Environment,
    config: &Config,
    choice: &Choice,
) -> Result<(), StartError> {
    if config.federated.application().is_none() || choice.strategy == Strategy::Sandbox {
        return Ok(());
    }
    if let Some(why) = refuses_federation(choice.strategy) {
        return Err(StartError {
            code: reason::FEDERATION_IMPOSSIBLE,
            message: format!(
                "the configuration names an application to act as (`federated`), but {why} (strategy {})",
                choice.strategy
            ),
            hint: "Run the job with a managed identity that the application trusts, or leave `federated` out of the configuration."
                .to_owned(),
        });
    }
    federation_issuer(environment, config)
        .map(|_| ())
        .map_err(|error| StartError {
            code: reason::FEDERATION_INVALID,
            message: format!(
                "the configuration names an application to act as (`federated`), but {error}"
            ),
            hint: "correct AZURE_AUTHORITY_HOST or `authority_host`".to_owned(),
        })
}

/// Who the tokens will be of, where they are not the job's own.
pub(super) fn collect(config: &Config, choice: &Choice) -> Vec<Notice> {
    let mut notices = Vec::new();
    if choice.strategy == Strategy::Sandbox {
        return notices;
    }
    if let Some(application) = config.federated.application() {
        let what = match config.federated.resources.as_deref() {
            None => "All tokens".to_owned(),
            Some([]) => "Tokens that a request asks for by its client id or tenant".to_owned(),
            Some(resources) => format!("Tokens for {}", resources.join(", ")),
        };
        notices.push(info(
            reason::FEDERATED_APPLICATION,
            format!(
                "{what} are those of the application {} in tenant {}; the job's own identity only proves who asks.",
                application.client_id, application.tenant_id
            ),
            None,
        ));
    }
    let can_federate = refuses_federation(choice.strategy);
    for (host, registry) in &config.registries {
        let (true, Some(client_id), Some(tenant_id)) =
            (registry.federated, &registry.client_id, &registry.tenant_id)
        else {
            continue;
        };
        notices.push(match can_federate {
            None => info(
                reason::FEDERATED_REGISTRY,
                format!("{host} is asked as the application {client_id} in tenant {tenant_id}."),
                None,
            ),
            Some(why) => super::notice::warning(
                reason::FEDERATED_REGISTRY,
                format!("{host} is to be asked as the application {client_id}, but {why}."),
                "Run the job with a managed identity, or give the registry another identity.",
            ),
        });
    }
    notices
}
