//! The error answer: a kind a program can act on, a sentence a person can act on.

use serde::{Deserialize, Serialize};

/// What went wrong, as one of a few kinds that each have a different next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong; correct it. HTTP 400 (also 404, 405, 414, 431).
    InvalidRequest,
    /// Policy says no; ask whoever configured the agent. HTTP 403.
    Denied,
    /// This agent has no way to get such a token; a credential chain may go on. HTTP 503.
    Unavailable,
    /// The issuer refused; a role, an assignment or a setting in Azure has to change. HTTP 502.
    Rejected,
    /// The submitting user's session has ended; the job has to be submitted again. HTTP 502.
    GrantEnded,
    /// This registry is to be read without credentials. HTTP 404.
    Anonymous,
    /// Try again after `retry_after` seconds. HTTP 503.
    Transient,
    /// A fault of the agent; report it with the request id. HTTP 500.
    Internal,
    /// A kind this version does not know; treat it as [`ErrorCode::Internal`].
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The spelling on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::GrantEnded => "grant_ended",
            Self::Anonymous => "anonymous",
            Self::Transient => "transient",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }

    /// Whether waiting does not heal it: the request, a setting, a role or the user has to change first.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::InvalidRequest
                | Self::Denied
                | Self::Unavailable
                | Self::Rejected
                | Self::GrantEnded
        )
    }

    /// The HTTP status this kind is sent with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Denied => 403,
            Self::Unavailable | Self::Transient => 503,
            Self::Rejected | Self::GrantEnded => 502,
            Self::Anonymous => 404,
            Self::Internal | Self::Unknown => 500,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every error answer: `{"error":{...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error itself.
    pub error: ErrorDetail,
}

/// What a caller may see of an error. Never holds a token, a secret or a raw upstream body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// The kind.
    pub code: ErrorCode,
    /// One sentence: what happened, naming the endpoint and the status where there was one.
    pub message: String,
    /// One sentence: what a person can do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Seconds after which another try makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The agent's id of this request; its log has the whole chain under it.
    #[serde(default)]
    pub request_id: String,
}

#[cfg(test)]
mod tests {
    use super::{ErrorBody, ErrorCode, ErrorDetail};

    #[test]
    fn exact_json_of_an_error() {
        let body = ErrorBody {
            error: ErrorDetail {
                code: ErrorCode::Transient,
                message: "busy".to_owned(),
                hint: None,
                retry_after: Some(3),
                request_id: "r1".to_owned(),
            },
        };
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"error":{"code":"transient","message":"busy","retry_after":3,"request_id":"r1"}}"#
        );
    }

    #[test]
    fn unknown_kinds_and_extra_fields_are_accepted() {
        let text = r#"{"error":{"code":"brand_new","message":"m","request_id":"r","more":1}}"#;
        let body: ErrorBody = serde_json::from_str(text).unwrap();
        assert_eq!(body.error.code, ErrorCode::Unknown);
    }

    #[test]
    fn spelling_and_serde_agree() {
        for code in [
            ErrorCode::InvalidRequest,
            ErrorCode::Denied,
            ErrorCode::Unavailable,
            ErrorCode::Rejected,
            ErrorCode::GrantEnded,
            ErrorCode::Anonymous,
            ErrorCode::Transient,
            ErrorCode::Internal,
        ] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
