//! `POST https://<login server>/oauth2/exchange`: Entra token in, registry token out.

use std::sync::Arc;

use jobcred_wire::{ErrorCode, LoginServer};

use super::EntraTokens;
use crate::config::Config;
use crate::error::TokenError;
use crate::token::{AccessToken, Identity};

/// Gets registry credentials. Holds no credential itself: caching is the broker's.
pub struct Registry {
    tokens: Arc<dyn EntraTokens>,
    config: Config,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// An exchange over `transport` with the settings of `config`.
    #[must_use]
    pub fn new(tokens: Arc<dyn EntraTokens>, config: &Config) -> Self {
        Self {
            tokens,
            config: config.clone(),
        }
    }

    /// Gets a credential of `identity` for `server`: the secret is the registry's refresh token, the resource the server.
    ///
    /// # Errors
    /// The Entra token's, or what the registry said; `issuer_code` has the Azure CLI's name of the failure.
    pub async fn credential(
        &self,
        identity: &Identity,
        server: &LoginServer,
    ) -> Result<AccessToken, TokenError> {
        let settings = self.config.registry(server).cloned().unwrap_or_default();
        let resource = crate::resource::Cloud::container_registry();
        let _entra = self
            .tokens
            .entra_token(identity, &resource, settings.tenant_id.as_deref())
            .await?;
        Err(TokenError::new(
            ErrorCode::Internal,
            "the exchange is not built",
        ))
    }
}
