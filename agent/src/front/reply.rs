//! The one place where an error becomes what a caller may see, and where answers get their headers.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::Frame;
use jobcred_wire::{DeclaredResource, ErrorBody, ErrorCode, ErrorDetail, Readiness};
use serde::Serialize;

use super::leases::Lease;
use crate::error::TokenError;

/// An answer on its way out.
pub type Reply = Response<ReplyBody>;

/// Its body: bytes that were made before, in nearly all answers. A lease's goes on as long as the lease.
pub type ReplyBody = Either<Full<Bytes>, BoxBody<Bytes, std::convert::Infallible>>;

/// The header that repeats the request id.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Names one request in answers and in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    run: u32,
    number: u64,
}

/// Hands out request ids: a random part for this run of the agent, and a count.
#[derive(Debug)]
pub struct RequestIds {
    run: u32,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids of a run. Without a source of randomness the random part is zero, which costs nothing but uniqueness between runs.
    #[must_use]
    pub fn new() -> Self {
        Self {
            run: getrandom::u32().unwrap_or_default(),
            next: AtomicU64::new(1),
        }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        RequestId {
            run: self.run,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A body whose JSON was made before, as it is.
#[must_use]
pub fn json_bytes(id: RequestId, body: Bytes) -> Reply {
    reply(StatusCode::OK, id, "application/json", body)
}

/// A value as JSON.
#[must_use]
pub fn json<T: Serialize>(id: RequestId, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => json_bytes(id, body.into()),
        Err(error) => {
            tracing::error!(request.id = %id, %error, "an answer cannot be written as JSON");
            refuse(
                id,
                &TokenError::new(ErrorCode::Internal, "the answer cannot be written"),
            )
        }
    }
}

/// Plain text, for metrics.
#[must_use]
pub fn text(id: RequestId, body: String) -> Reply {
    reply(
        StatusCode::OK,
        id,
        "text/plain; version=0.0.4; charset=utf-8",
        body.into(),
    )
}

/// A lease: lines of JSON for as long as both sides live.
#[must_use]
pub fn lease(id: RequestId, lease: Lease) -> Reply {
    let mut reply = reply(StatusCode::OK, id, "application/x-ndjson", Bytes::new());
    *reply.body_mut() = lease.into_body();
    reply
}

/// An answer that goes on for as long as both sides live: `kept` is dropped with it.
#[must_use]
pub fn until_closed<T: Send + Sync + 'static>(id: RequestId, kept: T) -> Reply {
    let mut reply = reply(StatusCode::OK, id, "application/x-ndjson", Bytes::new());
    let never = stream::once(async move {
        let _kept = kept;
        std::future::pending::<Result<Frame<Bytes>, std::convert::Infallible>>().await
    });
    *reply.body_mut() = Either::Right(StreamBody::new(never).boxed());
    reply
}

/// 204, without a body.
#[must_use]
pub fn no_content(id: RequestId) -> Reply {
    let mut reply = reply(StatusCode::NO_CONTENT, id, "application/json", Bytes::new());
    reply.headers_mut().remove(CONTENT_TYPE);
    reply
}

/// The answer to `error`: its kind, message and hint. The chain of causes stays here, in the log.
#[must_use]
pub fn refuse(id: RequestId, error: &TokenError) -> Reply {
    let status =
        StatusCode::from_u16(error.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    refuse_with(status, id, error)
}

/// The same with a status of its own, for a path or a method that does not exist.
#[must_use]
pub fn refuse_with(status: StatusCode, id: RequestId, error: &TokenError) -> Reply {
    let error = detail(id, error);
    let retry_after = error.retry_after;
    refusal(status, id, retry_after, &ErrorBody { error })
}

/// The answer to `error` of an agent that is not ready, with how each declared resource stands.
#[must_use]
pub fn not_ready(id: RequestId, error: &TokenError, resources: Vec<DeclaredResource>) -> Reply {
    let status =
        StatusCode::from_u16(error.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = detail(id, error);
    let retry_after = error.retry_after;
    let body = Readiness {
        status: None,
        error: Some(error),
        resources,
    };
    refusal(status, id, retry_after, &body)
}

/// An answer whose JSON is made elsewhere.
#[must_use]
pub fn other(status: StatusCode, id: RequestId, body: Bytes, retry_after: Option<u64>) -> Reply {
    let mut reply = reply(status, id, "application/json", body);
    if let Some(seconds) = retry_after {
        reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    reply
}

/// Seconds to wait before another try, rounded up: a client that waits a whole second less comes back too early.
#[must_use]
pub fn retry_after(error: &TokenError) -> u64 {
    error.retry_after().map_or(DEFAULT_RETRY_AFTER, |wait| {
        wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
    })
}

fn detail(id: RequestId, error: &TokenError) -> ErrorDetail {
    ErrorDetail {
        code: error.kind(),
        message: error.message().to_owned(),
        hint: error.hint().map(str::to_owned),
        retry_after: (error.is_transient() || error.retry_after().is_some())
            .then(|| retry_after(error)),
        request_id: id.to_string(),
    }
}

fn refusal<T: Serialize>(
    status: StatusCode,
    id: RequestId,
    retry_after: Option<u64>,
    body: &T,
) -> Reply {
    let body = serde_json::to_vec(body).unwrap_or_default();
    other(status, id, body.into(), retry_after)
}

fn reply(status: StatusCode, id: RequestId, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Eight digits, a hyphen, and rarely more than ten digits: written without growing, and kept without a copy.
    let mut text = String::with_capacity(24);
    let written = write!(text, "{id}");
    if written.is_ok()
        && let Ok(value) = HeaderValue::try_from(text)
    {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    reply
}

/// Seconds to wait after a passing failure when nobody upstream said more.
const DEFAULT_RETRY_AFTER: u64 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use jobcred_wire::{ErrorBody, ErrorCode};

    use super::{RequestIds, refuse};
    use crate::error::TokenError;

    #[tokio::test]
    async fn the_cause_is_logged_and_not_sent() {
        let inner = std::io::Error::other("the inner cause");
        let error = TokenError::new(ErrorCode::Transient, "busy")
            .with_source(inner)
            .with_retry_after(Duration::from_millis(1500));
        let reply = refuse(RequestIds::new().next(), &error);
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.headers()["retry-after"], "2");
        assert_eq!(reply.headers()["cache-control"], "no-store");
        let id = reply.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("inner cause"));
        let body: ErrorBody = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.error.request_id, id);
        assert_eq!(error.causes().unwrap(), "the inner cause");
        assert_eq!(TokenError::new(ErrorCode::Transient, "busy").causes(), None);
    }
}
