//! How the job gets tokens: decided once at start, from facts, by a pure function, and never switched.

mod application;
mod bypass;
mod candidate;
mod conflict;
mod endpoint;
mod evidence;
mod facts;
mod federation;
mod kubernetes;
mod notice;
mod platform;
mod promise;
mod reading;
pub mod reason;
mod select;
mod stand_in;

use std::fmt;
use std::path::PathBuf;

use jobcred_wire::{Explanation, Secret};
use url::Url;

pub use self::facts::{Facts, OWN_ENDPOINTS_VARIABLE, ProbeResult};
pub use self::federation::{FederationError, federation_issuer, refuses_federation};
pub use self::platform::{keep_platform, platform_environment};
pub use self::promise::{clock_wrong, promise_broken, roots_not_found, token_of_earlier};
pub use self::select::{select, wants_probe};
pub use self::stand_in::{StandIn, stand_in};

/// A strategy's name, as configuration, logs and `explain` spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// On behalf of the submitting user.
    UserIdentity,
    /// A compute cluster's managed identity, by client id.
    ComputeIdentity,
    /// The one identity of Kubernetes compute, without a client id.
    Kubernetes,
    /// A managed identity without client id.
    SystemIdentity,
    /// A compute instance whose endpoint answers with the *user's* token.
    ComputeInstanceUser,
    /// An application with a secret; only when configured.
    ServicePrincipal,
    /// The Azure CLI's login; only when configured.
    AzureCli,
    /// Self-signed, clearly marked tokens; only when asked for.
    Sandbox,
}

/// What is asked for tokens, with all that is needed to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Azure ML's managed-identity endpoint (2017-09-01).
    AzureMl {
        /// `MSI_ENDPOINT`.
        endpoint: Url,
        /// `MSI_SECRET`; sent as the header `secret`.
        secret: Option<Secret>,
    },
    /// App Service as it was in 2017 (2017-09-01), and other hosts that still speak so.
    AppService2017 {
        /// `MSI_ENDPOINT`.
        endpoint: Url,
        /// `MSI_SECRET`; sent as the header `secret`.
        secret: Secret,
    },
    /// Azure ML's on-behalf-of endpoint.
    OnBehalfOf {
        /// `OBO_ENDPOINT`.
        endpoint: Url,
        /// `MSI_SECRET`, when set.
        secret: Option<Secret>,
    },
    /// App Service (2019-08-01).
    AppService {
        /// `IDENTITY_ENDPOINT`.
        endpoint: Url,
        /// `IDENTITY_HEADER`.
        header: Secret,
    },
    /// The instance metadata service.
    Imds {
        /// `http://169.254.169.254`, or `AZURE_POD_IDENTITY_AUTHORITY_HOST`; without the path.
        base: Url,
    },
    /// Workload identity federation.
    WorkloadIdentity {
        /// `AZURE_AUTHORITY_HOST`, https.
        authority: Url,
        /// `AZURE_TENANT_ID`.
        tenant: String,
        /// `AZURE_CLIENT_ID`.
        client_id: String,
        /// `AZURE_FEDERATED_TOKEN_FILE`.
        token_file: PathBuf,
    },
    /// An application with a secret.
    ServicePrincipal {
        /// The issuer, https.
        authority: Url,
        /// The tenant.
        tenant: String,
        /// The application.
        client_id: String,
        /// Its secret.
        secret: Secret,
    },
    /// The Azure CLI.
    AzureCli {
        /// The program, an absolute path.
        program: PathBuf,
        /// Where it keeps its login: `AZURE_CONFIG_DIR`, else below `HOME`; `None` where neither is set.
        config_dir: Option<PathBuf>,
        /// The tenant to name; `None` is that of its login's default subscription.
        tenant: Option<String>,
    },
    /// The sandbox's own issuer.
    Sandbox,
}

/// The chosen strategy and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub strategy: Strategy,
    /// What is asked.
    pub upstream: Upstream,
    /// The client id sent when a request names no identity (`compute-identity` only).
    pub client_id: Option<String>,
}

/// The outcome of the selection, with all of its reasons.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The choice, or the start-up error that every request is answered with.
    pub outcome: Result<Choice, StartError>,
    /// Everything considered, for people.
    pub explanation: Explanation,
}

/// Why no token can be served. Its text is for the person who submitted the job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The stable reason code, as in the explanation.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do, possibly several lines.
    pub hint: String,
}

impl StartError {
    /// Whether no issuer has refused anything. Either jobcred itself cannot go on, or a setting of this machine keeps it from the
    /// issuer: an address that may not be asked, a secret that cannot be sent. COMMAND starts in spite of such an error.
    #[must_use]
    pub fn is_own_fault(&self) -> bool {
        [
            reason::AGENT_KEEPS_ENDING,
            reason::DECISION_CHANGED,
            reason::DECISION_LOST,
            reason::NO_RANDOMNESS,
            reason::AUTHORITY_NOT_HTTPS,
            reason::ENDPOINT_INVALID,
            reason::FEDERATION_INVALID,
            reason::OBO_ENDPOINT_INVALID,
            reason::SECRET_NOT_SENDABLE,
        ]
        .contains(&self.code)
    }
}

impl Choice {
    /// What is asked, in words and without secrets.
    #[must_use]
    pub fn upstream_in_words(&self) -> String {
        let asked = match &self.upstream {
            Upstream::AzureMl { endpoint, .. } => {
                format!("Azure ML endpoint {}", evidence::url_in_words(endpoint))
            }
            Upstream::OnBehalfOf { endpoint, .. } => format!(
                "Azure ML on-behalf-of endpoint {}",
                evidence::url_in_words(endpoint)
            ),
            Upstream::AppService { endpoint, .. } => {
                format!("App Service endpoint {}", evidence::url_in_words(endpoint))
            }
            Upstream::AppService2017 { endpoint, .. } => format!(
                "App Service endpoint {}, as of 2017",
                evidence::url_in_words(endpoint)
            ),
            Upstream::Imds { base } => format!("IMDS at {}", evidence::url_in_words(base)),
            Upstream::WorkloadIdentity {
                authority,
                tenant,
                client_id,
                ..
            } => format!(
                "workload identity at {}, tenant {tenant}, client id {client_id}",
                evidence::url_in_words(authority)
            ),
            Upstream::ServicePrincipal {
                authority,
                tenant,
                client_id,
                ..
            } => format!(
                "{}, tenant {tenant}, client id {client_id}",
                evidence::url_in_words(authority)
            ),
            Upstream::AzureCli {
                program, tenant, ..
            } => {
                let program = program.display().to_string();
                let program = evidence::printable(&program);
                return match tenant {
                    Some(tenant) => format!("the Azure CLI, {program}, tenant {tenant}"),
                    None => format!("the Azure CLI, {program}"),
                };
            }
            Upstream::Sandbox => return "nobody: tokens are made up here".to_owned(),
        };
        match (&self.upstream, &self.client_id) {
            // The first two name theirs above; the on-behalf-of endpoint knows none.
            (
                Upstream::WorkloadIdentity { .. }
                | Upstream::ServicePrincipal { .. }
                | Upstream::OnBehalfOf { .. },
                _,
            ) => asked,
            (_, Some(client_id)) => format!("{asked}, client id {client_id}"),
            (_, None) => format!("{asked}, without client id"),
        }
    }
}

impl Strategy {
    /// The name in configuration, logs and `explain`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserIdentity => "user-identity",
            Self::ComputeIdentity => "compute-identity",
            Self::Kubernetes => "kubernetes",
            Self::SystemIdentity => "system-identity",
            Self::ComputeInstanceUser => "compute-instance-user",
            Self::ServicePrincipal => "service-principal",
            Self::AzureCli => "azure-cli",
            Self::Sandbox => "sandbox",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
