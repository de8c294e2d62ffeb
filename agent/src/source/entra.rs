//! Entra by way of the `azure_identity` crate: its protocol, our transport, our retries, our reading of the answer.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, HttpClient, Request as SdkRequest, RetryOptions,
    StatusCode as SdkStatus, Transport as SdkTransport,
};
use http::{HeaderName, HeaderValue, Method};
use jobcred_wire::{ErrorCode, Secret};
use url::Url;

use super::answer::{Issuer, Question};
use super::{Outside, SourceRequest};
use crate::error::TokenError;
use crate::token::AccessToken;
use crate::transport::{
    Endpoint, Request, Response, RetryPolicy, Route, Transport, TransportError,
};

/// One exchange with Entra. A credential is made for each fetch, because the crate's own cache, which never hands out a
/// newer token while the old one lives, would stand between the broker and the issuer.
pub(super) struct Exchange {
    wire: Arc<Wire>,
    outside: Outside,
    endpoint: Endpoint,
    secrets: Vec<Secret>,
}

impl Exchange {
    pub(super) fn new(authority: &Url, tenant: &str, secret: Secret, outside: &Outside) -> Self {
        let mut url = authority.clone();
        url.set_path(&format!("/{tenant}/oauth2/v2.0/token"));
        Self {
            wire: Arc::new(Wire {
                transport: Arc::clone(&outside.transport),
                claims: Mutex::new(None),
                seen: Mutex::new(None),
            }),
            outside: outside.clone(),
            endpoint: Endpoint::of(&url),
            secrets: vec![secret],
        }
    }

    /// Options for the credential. The cloud is always given: without it the crate would read the environment.
    pub(super) fn client_options(&self, authority: &Url) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        authority.as_str().clone_into(&mut cloud.authority_host);
        let wire: Arc<dyn HttpClient> = Arc::clone(&self.wire) as _;
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(SdkTransport::new(wire)),
            cloud: Some(Arc::new(CloudConfiguration::from(cloud))),
            ..ClientOptions::default()
        }
    }

    /// Runs the exchange and reads what came over the wire: the crate's own error has no status, code or wait.
    pub(super) async fn run(
        self,
        credential: azure_core::Result<Arc<dyn TokenCredential>>,
        request: &SourceRequest,
    ) -> Result<AccessToken, TokenError> {
        let credential = credential.map_err(|_| {
            TokenError::new(
                ErrorCode::InvalidRequest,
                "the tenant or the client id is empty or has characters that ids never have",
            )
        })?;
        let scope = request.resource.to_scope();
        self.wire
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&request.claims);
        let result = credential.get_token(&[&scope], None).await;
        let seen = self
            .wire
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match seen {
            Some(Ok(response)) => {
                let question = Question {
                    issuer: Issuer::Entra,
                    endpoint: &self.endpoint,
                    resource: request.resource.as_str(),
                    secrets: &self.secrets,
                };
                question.read(&response, self.outside.clock.now())
            }
            Some(Err(error)) => Err(error.to_token_error()),
            None => {
                // Nothing was sent. The cause is not kept: what the crate says might hold what it was given.
                let kind = result.err().map(|error| error.kind().to_string());
                Err(TokenError::new(
                    ErrorCode::Internal,
                    format!(
                        "no request to {} could be made ({})",
                        self.endpoint,
                        kind.unwrap_or_default()
                    ),
                ))
            }
        }
    }
}

/// Carries the crate's requests over our transport and keeps the last answer.
#[derive(Debug)]
struct Wire {
    transport: Arc<Transport>,
    /// A claims challenge to send along: the crate has no way to say it.
    claims: Mutex<Option<String>>,
    seen: Mutex<Option<Result<Response, TransportError>>>,
}

#[async_trait]
impl HttpClient for Wire {
    async fn execute_request(&self, request: &SdkRequest) -> azure_core::Result<AsyncRawResponse> {
        let claims = self
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let outgoing = translate(request, claims.as_deref())?;
        let result = self
            .transport
            .send_with_retries(&outgoing, &RetryPolicy::REMOTE)
            .await;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.clone());
        match result {
            Ok(response) => Ok(AsyncRawResponse::from_bytes(
                SdkStatus::from(response.status().as_u16()),
                Headers::default(),
                response.body().clone(),
            )),
            Err(error) => Err(azure_core::Error::with_message(
                ErrorKind::Io,
                error.to_string(),
            )),
        }
    }
}

/// The crate's request as ours; `claims` becomes one more field of the form, as the token endpoint documents it.
fn translate(request: &SdkRequest, claims: Option<&str>) -> azure_core::Result<Request> {
    let unusable = || {
        azure_core::Error::with_message(
            ErrorKind::DataConversion,
            "a request that HTTP cannot carry",
        )
    };
    let method =
        Method::from_bytes(request.method().as_ref().as_bytes()).map_err(|_| unusable())?;
    let Body::Bytes(body) = request.body() else {
        return Err(unusable());
    };
    let mut body = body.to_vec();
    if let Some(claims) = claims {
        let field = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("claims", claims)
            .finish();
        body.push(b'&');
        body.extend_from_slice(field.as_bytes());
    }
    let mut outgoing = Request::new(method, request.url().clone(), Route::Proxied).with_body(body);
    for (name, value) in request.headers().iter() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| unusable())?;
        let value = HeaderValue::from_str(value.as_str()).map_err(|_| unusable())?;
        outgoing = outgoing.with_header(name, value);
    }
    Ok(outgoing)
}
