//! What is wrong with a request before anything else reads it.

use http::HeaderMap;
use jobcred_wire::{ErrorCode, REQUEST_HEADER};

use crate::error::TokenError;

/// Refuses a request on the socket without the header that every client of the agent sends.
///
/// A Unix socket can be reached by URL: some HTTP clients follow a redirect to one. Such a request carries no header that
/// whoever wrote the URL chose.
///
/// # Errors
/// `invalid_request`, with the header to send.
pub(super) fn require_header(headers: &HeaderMap) -> Result<(), TokenError> {
    if headers.contains_key(REQUEST_HEADER) {
        return Ok(());
    }
    Err(TokenError::new(
        ErrorCode::InvalidRequest,
        format!("send the header {REQUEST_HEADER}: 1 (curl -H '{REQUEST_HEADER}: 1')"),
    ))
}
