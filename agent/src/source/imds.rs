//! The instance metadata service of a virtual machine.

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use url::Url;

use super::answer::Issuer;
use super::ask::{Asker, about_the_name, refuse_application, refuse_tenant, with_query};
use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::token::{AccessToken, Identity};
use crate::transport::{Endpoint, Request, RetryPolicy, Route};

const NAME: &str = "imds";
const PATH: &str = "/metadata/identity/oauth2/token";
const API_VERSION: &str = "2018-02-01";
const METADATA: HeaderName = HeaderName::from_static("metadata");

/// Asks the instance metadata service.
#[derive(Debug)]
pub struct Imds {
    endpoint: Url,
    client_id: Option<String>,
    asker: Asker,
}

impl Imds {
    /// `base` is the address without the path; `client_id` is sent when a request names no identity.
    #[must_use]
    pub fn new(base: &Url, client_id: Option<String>, outside: &Outside) -> Self {
        let mut endpoint = base.clone();
        // As the SDKs do with AZURE_POD_IDENTITY_AUTHORITY_HOST: a slash at its end is dropped, a path is kept.
        endpoint.set_path(&format!("{}{PATH}", base.path().trim_end_matches('/')));
        Self {
            endpoint,
            client_id,
            asker: outside.asker(Issuer::Imds, RetryPolicy::IMDS, Vec::new()),
        }
    }
}

#[async_trait]
impl Source for Imds {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        refuse_tenant(request, "the metadata service")?;
        let resource = request.resource.as_str();
        let mut query = vec![("api-version", API_VERSION), ("resource", resource)];
        query.extend(match &request.identity {
            Identity::Job => self.client_id.as_deref().map(|id| ("client_id", id)),
            Identity::ClientId(id) => Some(("client_id", id.as_str())),
            Identity::ObjectId(id) => Some(("object_id", id.as_str())),
            // The spelling the service itself prefers; App Service has another.
            Identity::ResourceId(id) => Some(("msi_res_id", id.as_str())),
            Identity::Application { .. } => return Err(refuse_application(request)),
        });
        let outgoing = Request::get(with_query(&self.endpoint, &query), Route::Direct)
            .with_header(METADATA, HeaderValue::from_static("true"));
        let response = self.asker.send(&outgoing).await?;
        let endpoint = Endpoint::of(&self.endpoint);
        let result = self.asker.read(&endpoint, resource, &response);
        about_the_name(result, response.status(), request)
    }
}
