//! App Service's endpoint (`IDENTITY_ENDPOINT`, api-version 2019-08-01), which other hosts offer too.

use async_trait::async_trait;
use http::HeaderName;
use jobcred_wire::Secret;
use url::Url;

use super::answer::Issuer;
use super::ask::{Asker, about_the_name, refuse_application, refuse_tenant, with_query};
use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::token::{AccessToken, Identity};
use crate::transport::{Endpoint, InvalidSecret, Request, RetryPolicy, Route};

const NAME: &str = "app-service";
const API_VERSION: &str = "2019-08-01";
const SECRET_HEADER: HeaderName = HeaderName::from_static("x-identity-header");

/// Asks App Service's endpoint.
#[derive(Debug)]
pub struct AppService {
    endpoint: Url,
    header: Secret,
    client_id: Option<String>,
    asker: Asker,
}

impl AppService {
    /// `header` is `IDENTITY_HEADER`; `client_id` is sent when a request names no identity.
    pub fn new(
        endpoint: Url,
        header: Secret,
        client_id: Option<String>,
        outside: &Outside,
    ) -> Result<Self, InvalidSecret> {
        Request::get(endpoint.clone(), Route::Direct).with_secret_header(SECRET_HEADER, &header)?;
        Ok(Self {
            asker: outside.asker(
                Issuer::AppService,
                RetryPolicy::LOOPBACK,
                vec![header.clone()],
            ),
            endpoint,
            header,
            client_id,
        })
    }
}

#[async_trait]
impl Source for AppService {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        refuse_tenant(request, "App Service's identity endpoint")?;
        let resource = request.resource.as_str();
        let mut query = vec![("api-version", API_VERSION), ("resource", resource)];
        query.extend(match &request.identity {
            Identity::Job => self.client_id.as_deref().map(|id| ("client_id", id)),
            Identity::ClientId(id) => Some(("client_id", id.as_str())),
            Identity::ObjectId(id) => Some(("object_id", id.as_str())),
            Identity::ResourceId(id) => Some(("mi_res_id", id.as_str())),
            Identity::Application { .. } => return Err(refuse_application(request)),
        });
        let outgoing = Request::get(with_query(&self.endpoint, &query), Route::Direct)
            .with_secret_header(SECRET_HEADER, &self.header)
            .map_err(|error| Outside::unsendable("IDENTITY_HEADER", error))?;
        let response = self.asker.send(&outgoing).await?;
        let endpoint = Endpoint::of(&self.endpoint);
        let result = self.asker.read(&endpoint, resource, &response);
        about_the_name(result, response.status(), request)
    }
}
