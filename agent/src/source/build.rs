//! From the chosen strategy to the source that carries it out.

use std::sync::Arc;
use std::time::Duration;

use jobcred_wire::{ErrorCode, Secret};
use url::{Host, Url};

use super::answer::Issuer;
use super::ask::Asker;
use super::{
    AppService, AzureMl, Imds, OnBehalfOf, SandboxSource, ServicePrincipal, Source,
    WorkloadIdentity,
};
use crate::error::TokenError;
use crate::platform::{Clock, Files};
use crate::strategy::{Choice, StartError, Upstream, reason};
use crate::transport::{Endpoint, InvalidSecret, RetryPolicy, Transport};

/// What sources reach the outside with.
#[derive(Clone, Debug)]
pub struct Outside {
    /// The way out.
    pub transport: Arc<Transport>,
    /// The wall time that answers are read against.
    pub clock: Clock,
    /// Where a federated token is read.
    pub files: Files,
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
    warn_of_the_clear(&choice.upstream);
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
        Upstream::AzureCli => {
            return Err(StartError {
                code: reason::AZURE_CLI_NOT_BUILT,
                message: "this build of jobcred cannot use the Azure CLI's login".to_owned(),
                hint: "choose another strategy, for example service-principal or sandbox"
                    .to_owned(),
            });
        }
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

/// Identity endpoints speak plain http because they are on this machine or its host. One that is not is most likely a
/// mistake, but the platform's to make: it is said, not refused.
fn warn_of_the_clear(upstream: &Upstream) {
    let (Upstream::AzureMl { endpoint, .. }
    | Upstream::OnBehalfOf { endpoint, .. }
    | Upstream::AppService { endpoint, .. }
    | Upstream::Imds { base: endpoint }) = upstream
    else {
        return;
    };
    if endpoint.scheme() == "http" && !is_near(endpoint) {
        tracing::warn!(endpoint = %Endpoint::of(endpoint), "tokens come over plain http from another machine");
    }
}

/// Whether a host is this machine or in its private network. A name other than `localhost` may be anywhere.
fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_private(),
        Some(Host::Ipv6(ip)) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local()
        }
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
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
    Err(StartError {
        code: reason::AUTHORITY_NOT_HTTPS,
        message: "the issuer's address is not https: a credential would be sent in the clear"
            .to_owned(),
        hint: "correct AZURE_AUTHORITY_HOST or `authority_host`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::is_near;

    #[test]
    fn what_is_near() {
        for (url, near) in [
            ("http://127.0.0.1:46808/MSI/auth", true),
            ("http://localhost:46809/OBO/token", true),
            ("http://169.254.169.254/", true),
            ("http://10.0.0.4/", true),
            ("http://[::1]/", true),
            ("http://[fd00::1]/", true),
            ("http://20.1.2.3/", false),
            ("http://identity.example/", false),
        ] {
            assert_eq!(is_near(&Url::parse(url).unwrap()), near, "{url}");
        }
    }
}
