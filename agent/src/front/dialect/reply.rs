//! The one place where an error becomes what an SDK may see.
//!
//! The status decides what SDKs do, and they do the same for all dialects: 404, 408, 410, 429 and 5xx are tried again, for more than
//! a minute some of them, and whoever waits for that is a job. So those are kept for what heals by itself.

use http::StatusCode;
use jobcred_wire::ErrorCode;

use super::{app_service, azure_ml, imds};
use crate::config::Dialect;
use crate::error::TokenError;
use crate::front::reply::{self, Reply, RequestId};

/// An error in words, for whichever shape it gets.
#[derive(Debug)]
pub(super) struct Told<'a> {
    /// The request id.
    pub(super) id: &'a str,
    /// The kind.
    pub(super) code: &'static str,
    /// What happened and what to do: SDKs show one text.
    pub(super) message: String,
}

/// The answer to `error`, in the shape of `dialect`.
pub(super) fn refuse(dialect: Dialect, id: RequestId, error: &TokenError) -> Reply {
    refuse_with(status(error.kind()), dialect, id, error)
}

/// The same with a status of its own.
pub(super) fn refuse_with(
    status: StatusCode,
    dialect: Dialect,
    id: RequestId,
    error: &TokenError,
) -> Reply {
    let id_text = id.to_string();
    let mut message = format!("jobcred: {}", error.message());
    if let Some(hint) = error.hint() {
        message = format!("{}. {hint}", message.trim_end_matches('.'));
    }
    let told = Told {
        id: &id_text,
        code: error.kind().as_str(),
        message,
    };
    let body = match dialect {
        Dialect::AppService => app_service::refusal(status, &told),
        Dialect::AzureMl | Dialect::OnBehalfOf => azure_ml::refusal(&told),
        Dialect::Imds => imds::refusal(&told),
    };
    let retry_after = error.is_transient().then(|| reply::retry_after(error));
    reply::other(status, id, body.into(), retry_after)
}

/// The status of a kind of error.
fn status(kind: ErrorCode) -> StatusCode {
    match kind {
        ErrorCode::InvalidRequest | ErrorCode::Unavailable => StatusCode::BAD_REQUEST,
        ErrorCode::Transient => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Denied
        | ErrorCode::Rejected
        | ErrorCode::GrantEnded
        | ErrorCode::Anonymous
        | ErrorCode::Internal
        | ErrorCode::Unknown => StatusCode::FORBIDDEN,
    }
}

/// A value as JSON; plain data, whose writing cannot fail.
pub(super) fn words(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use jobcred_wire::ErrorCode;
    use serde_json::{Value, json};

    use super::refuse;
    use crate::config::Dialect;
    use crate::error::TokenError;
    use crate::front::reply::RequestIds;

    const KINDS: [(ErrorCode, u16); 8] = [
        (ErrorCode::InvalidRequest, 400),
        (ErrorCode::Denied, 403),
        (ErrorCode::Unavailable, 400),
        (ErrorCode::Rejected, 403),
        (ErrorCode::GrantEnded, 403),
        (ErrorCode::Transient, 503),
        (ErrorCode::Internal, 403),
        (ErrorCode::Unknown, 403),
    ];

    #[tokio::test]
    async fn every_kind_has_its_status_and_every_dialect_its_shape() {
        for (kind, status) in KINDS {
            let error = TokenError::new(kind, "no.").with_hint("do it");
            for dialect in Dialect::ALL {
                let reply = refuse(dialect, RequestIds::new().next(), &error);
                assert_eq!(reply.status(), status, "{kind}");
                assert_eq!(reply.headers()["content-type"], "application/json");
                let is_transient = kind == ErrorCode::Transient;
                assert_eq!(reply.headers().contains_key("retry-after"), is_transient);
                let id = reply.headers()["x-request-id"].to_str().unwrap().to_owned();
                let body = reply.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let text = "jobcred: no. do it";
                let expected = match dialect {
                    Dialect::AppService => {
                        json!({"statusCode": status, "message": text, "correlationId": id})
                    }
                    Dialect::AzureMl | Dialect::OnBehalfOf => {
                        json!({"error": {"code": kind.as_str(), "message": text}})
                    }
                    Dialect::Imds => json!({"error": kind.as_str(), "error_description": text}),
                };
                assert_eq!(body, expected);
            }
        }
    }

    #[test]
    fn how_long_to_wait_is_said_in_whole_seconds() {
        let error = TokenError::new(ErrorCode::Transient, "busy");
        let reply = refuse(Dialect::Imds, RequestIds::new().next(), &error);
        assert_eq!(reply.headers()["retry-after"], "1");
        let error = error.with_retry_after(Duration::from_millis(2500));
        let reply = refuse(Dialect::Imds, RequestIds::new().next(), &error);
        assert_eq!(reply.headers()["retry-after"], "3");
    }
}
