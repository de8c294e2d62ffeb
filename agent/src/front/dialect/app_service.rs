//! App Service, api-version 2019-08-01: what `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` lead to.

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use serde::Serialize;

use super::query::{Query, want_version};
use super::reply::{Told, words};
use crate::broker::CachedToken;
use crate::error::TokenError;

/// The path of a token request.
pub const PATH: &str = "/msi/token";
/// The header of the secret.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-identity-header");
const API_VERSION: &str = "2019-08-01";

/// What is said of a token besides itself. Times are text, which all SDKs accept and the Rust ones demand.
#[derive(Serialize)]
struct Answer<'a> {
    expires_on: String,
    resource: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refusal<'a> {
    status_code: u16,
    message: &'a str,
    correlation_id: &'a str,
}

/// Holds the query to what is served.
///
/// # Errors
/// `invalid_request`.
pub(super) fn check(query: &Query) -> Result<(), TokenError> {
    want_version(query, API_VERSION, |version| version == API_VERSION)
}

/// The body of an answer.
pub(super) fn answer(held: &CachedToken, resource: &str) -> Option<Bytes> {
    held.answer_with(&Answer {
        expires_on: held.expires_on().as_secs().to_string(),
        resource,
        token_type: "Bearer",
        client_id: held.token.client_id.as_deref(),
    })
}

/// The body of a refusal.
pub(super) fn refusal(status: StatusCode, told: &Told<'_>) -> Vec<u8> {
    words(&Refusal {
        status_code: status.as_u16(),
        message: &told.message,
        correlation_id: told.id,
    })
}
