//! The ways to get a token, one file each, and the tolerant reader of their answers.

mod answer;
mod app_service;
mod ask;
mod azure_cli;
mod azure_ml;
mod build;
mod entra;
mod federated;
#[cfg(fuzzing)]
pub mod fuzz;
mod imds;
mod on_behalf_of;
mod probe;
mod sandbox;
mod service_principal;
#[cfg(test)]
mod tests;
mod workload_identity;

use async_trait::async_trait;

pub use self::app_service::AppService;
pub use self::azure_cli::AzureCli;
pub use self::azure_ml::AzureMl;
pub use self::build::{Outside, build};
pub use self::federated::Federated;
pub use self::imds::Imds;
pub use self::on_behalf_of::OnBehalfOf;
pub use self::probe::probe;
pub use self::sandbox::SandboxSource;
pub use self::service_principal::ServicePrincipal;
pub use self::workload_identity::WorkloadIdentity;

use crate::error::TokenError;
use crate::resource::Resource;
use crate::token::{AccessToken, Identity};

/// What is asked of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceRequest {
    /// As whom.
    pub identity: Identity,
    /// What for, in the spelling to send.
    pub resource: Resource,
    /// The issuing tenant, when it is not the identity's own. Sources that cannot honour it refuse.
    pub tenant: Option<String>,
    /// A claims challenge. Sources that cannot send it ask again without it: the platform may answer with the same token.
    pub claims: Option<String>,
}

/// One way to get a token.
///
/// A source asks upstream each time: caching, single flight and refresh are the broker's. It owns its time-outs and,
/// through the transport, its retries; a fetch that is dropped leaves nothing behind.
#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug {
    /// The source's name in logs and errors, for example `azure-ml`.
    fn name(&self) -> &'static str;

    /// Whether a request may name a tenant other than the identity's own.
    fn honours_tenant(&self) -> bool {
        false
    }

    /// Gets one token.
    ///
    /// # Errors
    /// A [`TokenError`] that names the endpoint and the status, never the secret.
    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError>;
}
