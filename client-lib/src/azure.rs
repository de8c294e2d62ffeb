//! The Azure SDK's credential trait, so that its crates take their tokens from the agent unmodified.

use std::sync::Arc;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::time::OffsetDateTime;
use jobcred_wire::{NamedIdentity, Target, TokenRequest};

use crate::AsyncClient;

/// The job's identity as an Azure SDK credential.
///
/// Give it to any client of the Azure SDK for Rust. It wants a tokio runtime, like [`AsyncClient`].
#[derive(Clone, Debug)]
pub struct JobCredential {
    client: AsyncClient,
    identity: Option<NamedIdentity>,
    tenant_id: Option<String>,
}

impl JobCredential {
    /// A credential of the job's own identity, from the agent that this process's environment points to.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::from_client(AsyncClient::new())
    }

    /// A credential on a client made with other settings.
    #[must_use]
    pub fn from_client(client: AsyncClient) -> Arc<Self> {
        Arc::new(Self {
            client,
            identity: None,
            tenant_id: None,
        })
    }

    /// The same credential for a named identity instead of the job's own.
    #[must_use]
    pub fn with_identity(&self, identity: NamedIdentity) -> Arc<Self> {
        Arc::new(Self {
            identity: Some(identity),
            ..self.clone()
        })
    }

    /// The same credential for tokens that another tenant issues.
    #[must_use]
    pub fn with_tenant(&self, tenant_id: &str) -> Arc<Self> {
        Arc::new(Self {
            tenant_id: Some(tenant_id.to_owned()),
            ..self.clone()
        })
    }
}

#[async_trait::async_trait]
impl TokenCredential for JobCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let [scope] = scopes else {
            return Err(azure_core::Error::with_message(
                ErrorKind::Credential,
                format!(
                    "a token is for exactly one scope, and {} were given",
                    scopes.len()
                ),
            ));
        };
        let mut request = TokenRequest::new(Target::Scope((*scope).to_owned()));
        request.identity.clone_from(&self.identity);
        request.tenant_id.clone_from(&self.tenant_id);
        let token = self
            .client
            .token(&request)
            .await
            .map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))?;
        let expires_on =
            OffsetDateTime::from_unix_timestamp(token.expires_on).map_err(|error| {
                azure_core::Error::with_error(
                    ErrorKind::Credential,
                    error,
                    "the agent's token ends beyond the calendar",
                )
            })?;
        Ok(AccessToken::new(
            token.access_token.expose().to_owned(),
            expires_on,
        ))
    }
}
