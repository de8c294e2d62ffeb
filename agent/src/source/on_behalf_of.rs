//! Azure ML's on-behalf-of endpoint (`OBO_ENDPOINT`): tokens of the user who submitted the job.

use async_trait::async_trait;
use http::{HeaderName, StatusCode};
use jobcred_wire::{ErrorCode, Secret};
use url::Url;

use super::answer::Issuer;
use super::ask::{Asker, refuse_identity, refuse_tenant, with_query};
use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::token::{AccessToken, Identity};
use crate::transport::{Endpoint, InvalidSecret, Request, RetryPolicy, Route};

const NAME: &str = "on-behalf-of";
/// Sent when it is set: on compute instances this endpoint is the managed-identity endpoint, which demands it. Source:
/// azureml-dataprep; azure-ai-ml sends none and fails there.
const SECRET_HEADER: HeaderName = HeaderName::from_static("secret");

/// Asks Azure ML's on-behalf-of endpoint.
#[derive(Debug)]
pub struct OnBehalfOf {
    endpoint: Url,
    secret: Option<Secret>,
    asker: Asker,
}

impl OnBehalfOf {
    /// `secret` is `MSI_SECRET`, where it is set.
    pub fn new(
        endpoint: Url,
        secret: Option<Secret>,
        outside: &Outside,
    ) -> Result<Self, InvalidSecret> {
        let source = Self {
            asker: outside.asker(
                Issuer::UserGrant,
                RetryPolicy::LOOPBACK,
                secret.iter().cloned().collect(),
            ),
            endpoint,
            secret,
        };
        source.request("")?;
        Ok(source)
    }

    /// No api-version and no `Metadata` header here.
    fn request(&self, resource: &str) -> Result<Request, InvalidSecret> {
        let url = with_query(&self.endpoint, &[("resource", resource)]);
        let request = Request::get(url, Route::Direct);
        match &self.secret {
            Some(secret) => request.with_secret_header(SECRET_HEADER, secret),
            None => Ok(request),
        }
    }

    /// Whether the endpoint said 400, next to what its answer means.
    async fn ask(&self, resource: &str) -> (bool, Result<AccessToken, TokenError>) {
        let request = match self.request(resource) {
            Ok(request) => request,
            Err(error) => return (false, Err(Outside::unsendable("MSI_SECRET", error))),
        };
        match self.asker.send(&request).await {
            Ok(response) => {
                let endpoint = Endpoint::of(&self.endpoint);
                let result = self.asker.read(&endpoint, resource, &response);
                (response.status() == StatusCode::BAD_REQUEST, result)
            }
            Err(error) => (false, Err(error)),
        }
    }
}

#[async_trait]
impl Source for OnBehalfOf {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        refuse_tenant(request, "the on-behalf-of endpoint")?;
        if request.identity != Identity::Job {
            return Err(refuse_identity(
                request,
                "this job runs as the user who submitted it, and has no other identity",
            )
            .with_hint(
                "ask without naming an identity, or submit the job with a managed identity",
            ));
        }
        let resource = request.resource.as_str();
        let (malformed, first) = self.ask(resource).await;
        let Err(error) = first else { return first };
        if !malformed || error.kind() == ErrorCode::GrantEnded {
            return Err(error);
        }
        // The two SDKs that call this endpoint differ in the slash at the end, and which one it wants is not documented.
        let (_, second) = self.ask(&other_spelling(resource)).await;
        second.map_err(|second| match second.kind() {
            ErrorCode::GrantEnded => second,
            _ => error,
        })
    }
}

fn other_spelling(resource: &str) -> String {
    match resource.strip_suffix('/') {
        Some(bare) => bare.to_owned(),
        None => format!("{resource}/"),
    }
}
