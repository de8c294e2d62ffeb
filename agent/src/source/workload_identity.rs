//! Workload identity federation: the pod's Kubernetes token in, an Entra token out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::ClientMethodOptions;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
};
use jobcred_wire::{ErrorCode, Secret};
use url::Url;

use super::entra::Exchange;
use super::service_principal::check_identity;
use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::token::AccessToken;

/// The largest federated token read. Real ones are about 1 KiB.
const MAX_ASSERTION: u64 = 64 * 1024;

/// Asks Entra with the pod's federated token, read anew for each fetch: the kubelet replaces it, and fetches are rare.
#[derive(Debug)]
pub struct WorkloadIdentity {
    authority: Url,
    tenant: String,
    client_id: String,
    token_file: PathBuf,
    outside: Outside,
}

impl WorkloadIdentity {
    /// `authority` is https; `token_file` is `AZURE_FEDERATED_TOKEN_FILE`.
    #[must_use]
    pub fn new(
        authority: Url,
        tenant: String,
        client_id: String,
        token_file: PathBuf,
        outside: &Outside,
    ) -> Self {
        Self {
            authority,
            tenant,
            client_id,
            token_file,
            outside: outside.clone(),
        }
    }

    fn assertion(&self) -> Result<Secret, TokenError> {
        let path = self.token_file.display();
        let text = self
            .outside
            .files
            .read_text(&self.token_file, MAX_ASSERTION)
            .map_err(|error| {
                let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                    "let the container's user read the projected token, for example with fsGroup"
                } else {
                    "see that the pod has the label azure.workload.identity/use=true and that its webhook runs"
                };
                TokenError::new(
                    ErrorCode::Rejected,
                    format!("the federated token {path} cannot be read: {error}"),
                )
                .with_hint(hint)
            })?;
        let text = Secret::from(text);
        let assertion = Secret::from(text.expose().trim());
        if assertion.is_empty() {
            return Err(TokenError::new(
                ErrorCode::Transient,
                format!("the federated token {path} is empty"),
            )
            .with_hint("it may be being replaced right now; if this goes on, see the pod's projected volume"));
        }
        Ok(assertion)
    }
}

#[async_trait]
impl Source for WorkloadIdentity {
    fn name(&self) -> &'static str {
        "workload-identity"
    }

    fn honours_tenant(&self) -> bool {
        true
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        check_identity(request, &self.client_id)?;
        let assertion = self.assertion()?;
        let tenant = request.tenant.as_ref().unwrap_or(&self.tenant);
        let exchange = Exchange::new(&self.authority, tenant, assertion.clone(), &self.outside);
        let credential = ClientAssertionCredential::new(
            tenant.clone(),
            self.client_id.clone(),
            Assertion(assertion),
            Some(ClientAssertionCredentialOptions {
                client_options: exchange.client_options(&self.authority),
            }),
        );
        let credential = credential.map(|credential| credential as Arc<dyn TokenCredential>);
        exchange.run(credential, request).await
    }
}

#[derive(Debug)]
pub(super) struct Assertion(pub(super) Secret);

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose().to_owned())
    }
}
