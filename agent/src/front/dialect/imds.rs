//! The instance metadata service's token path, for SDKs that are led here by `AZURE_POD_IDENTITY_AUTHORITY_HOST`.

use bytes::Bytes;
use http::HeaderMap;
use jobcred_wire::ErrorCode;
use serde::Serialize;

use super::query::{Query, want_version};
use super::reply::{Told, words};
use crate::broker::CachedToken;
use crate::error::TokenError;
use crate::platform::UnixTime;

/// Where the service's paths begin, below the prefix: SDKs append the rest.
pub const BASE: &str = "";
/// The path of a token request, in any case and with or without a slash at its end.
pub const PATH: &str = "/metadata/identity/oauth2/token";
/// The oldest api-version; later ones ask and answer the same.
const OLDEST: &str = "2018-02-01";

/// What is said of a token besides itself. Everything is text.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    expires_in: String,
    expires_on: String,
    ext_expires_in: String,
    not_before: String,
    resource: &'a str,
    token_type: &'static str,
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    error_description: &'a str,
}

/// Demands the header that no URL loader sends. SDKs find out by its refusal whether the service is there.
///
/// # Errors
/// `invalid_request`.
pub(super) fn want_header(headers: &HeaderMap) -> Result<(), TokenError> {
    let value = headers.get("metadata").map(http::HeaderValue::as_bytes);
    if value.is_some_and(|value| value.eq_ignore_ascii_case(b"true")) {
        return Ok(());
    }
    Err(TokenError::new(
        ErrorCode::InvalidRequest,
        "the required header is missing: Metadata: true",
    ))
}

/// Holds the query to what is served.
///
/// # Errors
/// `invalid_request`.
pub(super) fn check(query: &Query) -> Result<(), TokenError> {
    want_version(query, "2018-02-01 or later", |version| {
        is_date(version) && version >= OLDEST
    })
}

/// Whether `text` has the form of an api-version, so that later ones are greater as text too.
fn is_date(text: &str) -> bool {
    text.len() == OLDEST.len()
        && text.bytes().zip(OLDEST.bytes()).all(|(byte, like)| {
            if like == b'-' {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        })
}

/// The body of an answer.
pub(super) fn answer(held: &CachedToken, resource: &str, now: UnixTime) -> Option<Bytes> {
    let left = held.life_left(now).as_secs().to_string();
    held.answer_with(&Answer {
        client_id: held.token.client_id.as_deref(),
        expires_in: left.clone(),
        expires_on: held.expires_on().as_secs().to_string(),
        ext_expires_in: left,
        not_before: held.obtained_on.as_secs().to_string(),
        resource,
        token_type: "Bearer",
    })
}

/// The body of a refusal.
pub(super) fn refusal(told: &Told<'_>) -> Vec<u8> {
    words(&Refusal {
        error: told.code,
        error_description: &told.message,
    })
}
