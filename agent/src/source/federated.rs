//! An application of another tenant: the job's own token in place of a secret.
//!
//! The application is registered in the tenant of the job's managed identity, trusts that identity by a federated
//! credential, and has been added to the other tenant. Source: Entra's documentation of applications that trust a managed
//! identity.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_identity::{ClientAssertionCredential, ClientAssertionCredentialOptions};
use url::Url;

use super::entra::Exchange;
use super::workload_identity::Assertion;
use super::{Outside, SourceRequest};
use crate::config::Application;
use crate::error::TokenError;
use crate::principal::Principal;
use crate::resource::Resource;
use crate::token::{AccessToken, Identity};

/// Asks Entra for an application's tokens.
#[derive(Debug)]
pub struct Federated {
    authority: Url,
    outside: Outside,
}

impl Federated {
    /// `authority` is https.
    #[must_use]
    pub fn new(authority: Url, outside: &Outside) -> Self {
        Self {
            authority,
            outside: outside.clone(),
        }
    }

    /// Gets a token of `application`. `assertion` is the job's own token for [`crate::resource::Cloud::token_exchange`].
    ///
    /// # Errors
    /// What the issuer says, with what to correct.
    pub async fn fetch(
        &self,
        application: Application<'_>,
        assertion: &AccessToken,
        resource: &Resource,
        claims: Option<&str>,
    ) -> Result<AccessToken, TokenError> {
        let secret = assertion.secret.clone();
        let exchange = Exchange::new(
            &self.authority,
            application.tenant_id,
            secret.clone(),
            &self.outside,
        );
        let credential = ClientAssertionCredential::new(
            application.tenant_id.to_owned(),
            application.client_id.to_owned(),
            Assertion(secret),
            Some(ClientAssertionCredentialOptions {
                client_options: exchange.client_options(&self.authority),
            }),
        );
        let credential = credential.map(|credential| credential as Arc<dyn TokenCredential>);
        let request = SourceRequest {
            identity: Identity::Job,
            resource: resource.clone(),
            tenant: None,
            claims: claims.map(str::to_owned),
        };
        exchange.run(credential, &request).await.map_err(|error| {
            match self.hint(application, assertion, &error) {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })
    }

    /// What to correct, with the ids that have to be given where.
    fn hint(
        &self,
        application: Application<'_>,
        assertion: &AccessToken,
        error: &TokenError,
    ) -> Option<String> {
        let Application {
            client_id,
            tenant_id,
        } = application;
        let own = Principal::from_token(assertion.secret.expose()).unwrap_or_default();
        let home = own.tenant_id.as_deref().unwrap_or("of the job's identity");
        let subject = own.object_id.as_deref().unwrap_or("its object id");
        Some(match error.issuer_code()? {
            "AADSTS70021" | "AADSTS700211" | "AADSTS700212" | "AADSTS700213" | "AADSTS7002131"
            | "AADSTS7002138" => format!(
                "the application {client_id} does not trust this job's identity: give it a federated credential with issuer {}{home}/v2.0, subject {subject} and audience {}, to the letter; one just made takes minutes to work",
                with_slash(&self.authority),
                assertion.resource
            ),
            "AADSTS700222" | "AADSTS700226" => {
                "the application trusts a user-assigned managed identity only: run the job with one".to_owned()
            }
            "AADSTS700236" => format!(
                "the application has to be registered in the tenant of the job's identity ({home}), not in the other one: register it there for several tenants, and add it to tenant {tenant_id}"
            ),
            "AADSTS700016" | "AADSTS7000229" => format!(
                "tenant {tenant_id} does not know the application {client_id}: an administrator there has to add it (`az ad sp create --id {client_id}`), or one of the two ids is wrong"
            ),
            "AADSTS90002" => format!("there is no tenant {tenant_id}: correct the tenant id"),
            "AADSTS700024" => {
                "the job's own token is outside its time range: see whether this machine's clock is right".to_owned()
            }
            _ => return None,
        })
    }
}

fn with_slash(url: &Url) -> String {
    let text = url.as_str();
    format!("{}/", text.trim_end_matches('/'))
}
