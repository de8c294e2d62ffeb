//! An application with a secret; only when configured.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use jobcred_wire::Secret;
use url::Url;

use super::ask::refuse_identity;
use super::entra::Exchange;
use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::token::{AccessToken, Identity};

/// Asks Entra with an application's secret.
#[derive(Debug)]
pub struct ServicePrincipal {
    authority: Url,
    tenant: String,
    client_id: String,
    secret: Secret,
    outside: Outside,
}

impl ServicePrincipal {
    /// `authority` is https.
    #[must_use]
    pub fn new(
        authority: Url,
        tenant: String,
        client_id: String,
        secret: Secret,
        outside: &Outside,
    ) -> Self {
        Self {
            authority,
            tenant,
            client_id,
            secret,
            outside: outside.clone(),
        }
    }
}

#[async_trait]
impl Source for ServicePrincipal {
    fn name(&self) -> &'static str {
        "service-principal"
    }

    fn honours_tenant(&self) -> bool {
        true
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        check_identity(request, &self.client_id)?;
        let tenant = request.tenant.as_deref().unwrap_or(&self.tenant);
        let exchange = Exchange::new(&self.authority, tenant, self.secret.clone(), &self.outside);
        let credential = ClientSecretCredential::new(
            tenant,
            self.client_id.clone(),
            self.secret.expose().to_owned().into(),
            Some(ClientSecretCredentialOptions {
                client_options: exchange.client_options(&self.authority),
            }),
        );
        let credential = credential.map(|credential| credential as Arc<dyn TokenCredential>);
        exchange.run(credential, request).await
    }
}

/// The one name that may be given is the application's own.
pub(super) fn check_identity(request: &SourceRequest, client_id: &str) -> Result<(), TokenError> {
    match &request.identity {
        Identity::Job => Ok(()),
        Identity::ClientId(id) if id.eq_ignore_ascii_case(client_id) => Ok(()),
        _ => Err(refuse_identity(
            request,
            "the one identity here is the application with the configured client id",
        )
        .with_hint("ask without naming an identity")),
    }
}
