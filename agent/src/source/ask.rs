//! What all endpoints that are asked by `GET` have in common.

use std::sync::Arc;

use http::StatusCode;
use jobcred_wire::{ErrorCode, Secret};
use url::Url;

use super::SourceRequest;
use super::answer::{Issuer, Question};
use crate::error::TokenError;
use crate::platform::Clock;
use crate::token::{AccessToken, Identity};
use crate::transport::{Endpoint, Request, Response, RetryPolicy, Transport};

/// Asks one endpoint by its retry policy and reads its answers.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) transport: Arc<Transport>,
    pub(super) clock: Clock,
    pub(super) issuer: Issuer,
    pub(super) policy: RetryPolicy,
    /// What must not show up in an error.
    pub(super) secrets: Vec<Secret>,
}

impl Asker {
    /// Sends `request`, as often as the policy says.
    pub(super) async fn send(&self, request: &Request) -> Result<Response, TokenError> {
        self.transport
            .send_with_retries(request, &self.policy)
            .await
            .map_err(|error| error.to_token_error())
    }

    /// Reads the answer to a request for `resource`.
    pub(super) fn read(
        &self,
        endpoint: &Endpoint,
        resource: &str,
        response: &Response,
    ) -> Result<AccessToken, TokenError> {
        let question = Question {
            issuer: self.issuer,
            endpoint,
            resource,
            secrets: &self.secrets,
        };
        question.read(response, self.clock.now())
    }
}

/// Says of a refusal that it is about the identity which the *request* named, where it is: the job's own may be in order.
pub(super) fn about_the_name(
    result: Result<AccessToken, TokenError>,
    status: StatusCode,
    request: &SourceRequest,
) -> Result<AccessToken, TokenError> {
    let is_about = status == StatusCode::BAD_REQUEST && request.identity != Identity::Job;
    result.map_err(|error| {
        if !is_about || error.kind() != ErrorCode::Rejected || !error.is_healable() {
            return error;
        }
        let hint = format!(
            "the request names the identity {}, which is probably not assigned here: correct it (SDKs take it from AZURE_CLIENT_ID), assign that identity, or ask without naming one",
            request.identity
        );
        error.with_hint(hint)
    })
}

/// `endpoint` with `pairs` added to its query.
pub(super) fn with_query(endpoint: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut url = endpoint.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

/// Refuses a tenant, for sources whose identity cannot leave its own.
pub(super) fn refuse_tenant(request: &SourceRequest, source: &str) -> Result<(), TokenError> {
    if request.tenant.is_none() {
        return Ok(());
    }
    Err(TokenError::new(
        ErrorCode::Denied,
        format!("{source} issues tokens of the identity's own tenant only"),
    )
    .with_hint("ask without a tenant")
    .malformed())
}

/// Refuses an application: it is asked for with the job's own token, not at the endpoint that gives that one.
pub(super) fn refuse_application(request: &SourceRequest) -> TokenError {
    refuse_identity(
        request,
        "this endpoint has the compute's own identities only",
    )
}

/// Refuses a named identity for good.
pub(super) fn refuse_identity(request: &SourceRequest, why: &str) -> TokenError {
    TokenError::new(
        ErrorCode::Denied,
        format!("no token as {}: {why}", request.identity),
    )
    .malformed()
}
