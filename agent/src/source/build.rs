//! From the chosen strategy to the source that carries it out.

use std::sync::Arc;
use std::time::Duration;

use jobcred_wire::{ErrorCode, Secret};
use url::Url;

use super::answer::Issuer;
use super::ask::Asker;
use super::{
    AppService, AzureCli, AzureMl, Imds, OnBehalfOf, SandboxSource, ServicePrincipal, Source,
    WorkloadIdentity,
};
use crate::error::TokenError;
use crate::platform::{Clock, Environment, Files};
use crate::strategy::{Choice, FederationError, StartError, Upstream, reason};
use crate::transport::{InvalidSecret, RetryPolicy, Transport};

/// What sources reach the outside with.
#[derive(Clone, Debug)]
pub struct Outside {
    /// The way out.
    pub transport: Arc<Transport>,
    /// The wall time that answers are read against.
    pub clock: Clock,
    /// Where a federated token is read.
    pub files: Files,
    /// What programs that are called are given.
    pub environment: Environment,
    /// How long a sandbox token lives.
    pub sandbox_lifetime: Duration,
}

impl Outside {
    pub(super) fn asker(&self, issuer: Issuer, policy: RetryPolicy, secrets: Vec<Secret>) -> Asker {
        Asker {
            transport: Arc::clone(&self.transport),
            clock: self.clock.clone(),
            issuer,
            policy,
            secrets,
        }
    }

    pub(super) fn unsendable(variable: &str, error: InvalidSecret) -> TokenError {
        TokenError::new(ErrorCode::Denied, format!("{variable}: {error}"))
    }
}

/// Makes the source of `choice`. Nothing is asked yet.
///
/// # Errors
/// A [`StartError`] where the choice cannot be carried out: a secret that is no header, an issuer that is not https.
pub fn build(choice: &Choice, outside: &Outside) -> Result<Arc<dyn Source>, StartError> {
    let client_id = choice.client_id.clone();
    let source: Arc<dyn Source> = match &choice.upstream {
        Upstream::AzureMl { endpoint, secret } => Arc::new(
            AzureMl::new(
                endpoint.clone(),
                secret.clone(),
                client_id,
                choice.strategy,
                outside,
            )
            .map_err(|error| bad_secret("MSI_SECRET", error))?,
        ),
        Upstream::AppService2017 { endpoint, secret } => Arc::new(
            AzureMl::of_app_service(
                endpoint.clone(),
                secret.clone(),
                client_id,
                choice.strategy,
                outside,
            )
            .map_err(|error| bad_secret("MSI_SECRET", error))?,
        ),
        // Named identities are refused by the source itself: no further wrapping.
        Upstream::OnBehalfOf { endpoint, secret } => Arc::new(
            OnBehalfOf::new(endpoint.clone(), secret.clone(), outside)
                .map_err(|error| bad_secret("MSI_SECRET", error))?,
        ),
        Upstream::AppService { endpoint, header } => Arc::new(
            AppService::new(endpoint.clone(), header.clone(), client_id, outside)
                .map_err(|error| bad_secret("IDENTITY_HEADER", error))?,
        ),
        Upstream::Imds { base } => Arc::new(Imds::new(base, client_id, outside)),
        Upstream::WorkloadIdentity {
            authority,
            tenant,
            client_id,
            token_file,
        } => {
            require_https(authority)?;
            Arc::new(WorkloadIdentity::new(
                authority.clone(),
                tenant.clone(),
                client_id.clone(),
                token_file.clone(),
                outside,
            ))
        }
        Upstream::ServicePrincipal {
            authority,
            tenant,
            client_id,
            secret,
        } => {
            require_https(authority)?;
            Arc::new(ServicePrincipal::new(
                authority.clone(),
                tenant.clone(),
                client_id.clone(),
                secret.clone(),
                outside,
            ))
        }
        Upstream::AzureCli {
            program, tenant, ..
        } => Arc::new(AzureCli::new(program.clone(), tenant.clone(), outside)),
        Upstream::Sandbox => Arc::new(
            SandboxSource::new(outside.clock.clone(), outside.sandbox_lifetime).map_err(
                |error| StartError {
                    code: reason::NO_RANDOMNESS,
                    message: format!("the sandbox cannot make a key: {error}"),
                    hint: "see whether the kernel's random number generator can be used".to_owned(),
                },
            )?,
        ),
    };
    Ok(source)
}

fn bad_secret(variable: &str, error: InvalidSecret) -> StartError {
    StartError {
        code: reason::SECRET_NOT_SENDABLE,
        message: format!("{variable}: {error}"),
        hint: format!("pass {variable} on exactly as the platform set it"),
    }
}

fn require_https(authority: &Url) -> Result<(), StartError> {
    if authority.scheme() == "https" && authority.has_host() {
        return Ok(());
    }
    Err(FederationError.into())
}
