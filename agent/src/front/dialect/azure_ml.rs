//! Azure ML, api-version 2017-09-01: what `MSI_ENDPOINT` and `MSI_SECRET` lead to.

use bytes::Bytes;
use http::HeaderName;
use serde::Serialize;

use super::query::{Query, want_version};
use super::reply::{Told, words};
use crate::broker::CachedToken;
use crate::error::TokenError;
use crate::platform::UnixTime;

/// The path of a token request, with and without a slash at its end.
pub const PATH: &str = "/MSI/auth";
/// The header of the secret.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("secret");
const API_VERSION: &str = "2017-09-01";

/// What is said of a token besides itself. Times are numbers, as Azure ML's own endpoint writes them.
#[derive(Serialize)]
struct Answer<'a> {
    expires_in: u64,
    expires_on: i64,
    resource: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

/// The form of errors that Azure's own client libraries take apart.
#[derive(Serialize)]
struct Refusal<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    code: &'a str,
    message: &'a str,
}

/// Holds the query to what is served.
///
/// # Errors
/// `invalid_request`.
pub(super) fn check(query: &Query) -> Result<(), TokenError> {
    want_version(query, API_VERSION, |version| version == API_VERSION)
}

/// The body of an answer.
pub(super) fn answer(held: &CachedToken, resource: &str, now: UnixTime) -> Option<Bytes> {
    held.answer_with(&Answer {
        expires_in: held.life_left(now).as_secs(),
        expires_on: held.expires_on().as_secs(),
        resource,
        token_type: "Bearer",
        client_id: held.token.client_id.as_deref(),
    })
}

/// The body of a refusal. The real endpoint's is plain text, which makes SDKs stumble.
pub(super) fn refusal(told: &Told<'_>) -> Vec<u8> {
    words(&Refusal {
        error: Detail {
            code: told.code,
            message: &told.message,
        },
    })
}
