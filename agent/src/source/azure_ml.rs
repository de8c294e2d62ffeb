//! Azure ML's managed-identity endpoint (`MSI_ENDPOINT`, api-version 2017-09-01).

use http::{HeaderName, StatusCode};
use jobcred_wire::Secret;
use url::Url;

use async_trait::async_trait;

use super::answer::Issuer;
use super::ask::{
    Asker, about_the_name, refuse_application, refuse_identity, refuse_tenant, with_query,
};
use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::strategy::Strategy;
use crate::token::{AccessToken, Identity};
use crate::transport::{InvalidSecret, Request, Response, RetryPolicy, Route};

const NAME: &str = "azure-ml";
/// The header is `secret` and the query name `clientid`, without an underscore. Source: every SDK that supports it.
const SECRET_HEADER: HeaderName = HeaderName::from_static("secret");
const API_VERSION: &str = "2017-09-01";

/// Asks Azure ML's managed-identity endpoint.
#[derive(Debug)]
pub struct AzureMl {
    name: &'static str,
    endpoint: Url,
    secret: Option<Secret>,
    client_id: Option<String>,
    empty_client_id_helps: bool,
    asker: Asker,
}

impl AzureMl {
    /// `client_id` is sent when a request names no identity.
    ///
    /// # Errors
    /// For a secret that no header can hold.
    pub fn new(
        endpoint: Url,
        secret: Option<Secret>,
        client_id: Option<String>,
        strategy: Strategy,
        outside: &Outside,
    ) -> Result<Self, InvalidSecret> {
        let source = Self {
            name: NAME,
            asker: outside.asker(
                // There the endpoint answers with the signed-in user's token.
                if strategy == Strategy::ComputeInstanceUser {
                    Issuer::SignedInUser
                } else {
                    Issuer::AzureMl
                },
                RetryPolicy::LOOPBACK,
                secret.iter().cloned().collect(),
            ),
            endpoint,
            secret,
            client_id,
            empty_client_id_helps: strategy != Strategy::Kubernetes,
        };
        source.request("", None)?;
        Ok(source)
    }

    /// The same protocol as App Service spoke it in 2017, in refusals named for what it is there.
    ///
    /// # Errors
    /// For a secret that no header can hold.
    pub fn of_app_service(
        endpoint: Url,
        secret: Secret,
        client_id: Option<String>,
        strategy: Strategy,
        outside: &Outside,
    ) -> Result<Self, InvalidSecret> {
        let mut source = Self::new(endpoint, Some(secret), client_id, strategy, outside)?;
        source.name = "app-service-2017";
        source.asker.issuer = Issuer::AppService;
        Ok(source)
    }

    fn request(&self, resource: &str, client_id: Option<&str>) -> Result<Request, InvalidSecret> {
        let mut query = vec![("api-version", API_VERSION), ("resource", resource)];
        query.extend(client_id.map(|id| ("clientid", id)));
        let request = Request::get(with_query(&self.endpoint, &query), Route::Direct);
        match &self.secret {
            Some(secret) => request.with_secret_header(SECRET_HEADER, secret),
            None => Ok(request),
        }
    }

    async fn ask(&self, resource: &str, client_id: Option<&str>) -> Result<Response, TokenError> {
        let request = self
            .request(resource, client_id)
            .map_err(|error| Outside::unsendable("MSI_SECRET", error))?;
        self.asker.send(&request).await
    }
}

#[async_trait]
impl Source for AzureMl {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        refuse_tenant(request, "the platform's identity endpoint")?;
        let client_id = match &request.identity {
            Identity::Job => self.client_id.as_deref(),
            Identity::ClientId(id) => Some(id.as_str()),
            Identity::Application { .. } => return Err(refuse_application(request)),
            Identity::ObjectId(_) | Identity::ResourceId(_) => {
                return Err(refuse_identity(
                    request,
                    "the platform's identity endpoint knows identities by client id only",
                )
                .with_hint("name the identity by its client id"));
            }
        };
        let resource = request.resource.as_str();
        let mut response = self.ask(resource, client_id).await?;
        // Go and .NET send an empty `clientid` for a system-assigned identity, Python none; some responders want it.
        if response.status() == StatusCode::BAD_REQUEST
            && client_id.is_none()
            && self.empty_client_id_helps
        {
            // Where it brings nothing, the first answer stands.
            let second = self.ask(resource, Some("")).await;
            if let Ok(second) = second
                && second.status().is_success()
            {
                response = second;
            }
        }
        let endpoint = crate::transport::Endpoint::of(&self.endpoint);
        let result = self.asker.read(&endpoint, resource, &response);
        about_the_name(result, response.status(), request)
    }
}
