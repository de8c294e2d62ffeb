//! What can go wrong between a caller and its token.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jobcred_wire::{ErrorBody, ErrorCode};

use crate::socket::CLOSED;

/// What went wrong, by what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request cannot be sent as it is; correct it.
    Invalid,
    /// Nobody answers at any of the places where an agent could be.
    AgentNotFound,
    /// Nobody answers at the one place that was named, so there has been an agent, or will be; or there may be one that could
    /// not be asked. A chain of credentials must not go on to another identity because of it.
    AgentGone,
    /// Somebody listens, but as a user whose tokens this process must not trust.
    Untrusted,
    /// No answer within the time the caller allows.
    Timeout,
    /// The connection broke.
    Connection,
    /// What came back is no answer of an agent.
    Protocol,
    /// The agent answered with an error of this kind.
    Agent(ErrorCode),
}

/// Why there is no answer. Cheap to clone, since callers that waited for one request share its error.
///
/// Holds no token and no secret.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    retry_after: Option<u64>,
    request_id: Option<String>,
    source: Option<io::Error>,
}

/// One place that was looked at, and what was found there instead of an agent.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) path: PathBuf,
    pub(crate) found: String,
    /// Whether that leaves open that there is an agent.
    pub(crate) is_open: bool,
}

impl Error {
    /// What went wrong, by what to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The wire's word for it: what the agent said, or the nearest one when the agent could not be asked.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self.0.kind {
            ErrorKind::Invalid => ErrorCode::InvalidRequest,
            ErrorKind::AgentNotFound => ErrorCode::Unavailable,
            ErrorKind::Untrusted => ErrorCode::Denied,
            ErrorKind::AgentGone | ErrorKind::Timeout | ErrorKind::Connection => {
                ErrorCode::Transient
            }
            ErrorKind::Protocol => ErrorCode::Internal,
            ErrorKind::Agent(code) => code,
        }
    }

    /// What happened, as one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What a person can do next, as one line.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Seconds after which another try makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        self.0.retry_after
    }

    /// The agent's id of the request; its log has the whole story under it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    fn new(kind: ErrorKind, message: String) -> Self {
        Self::with(kind, message, None, None)
    }

    fn with(
        kind: ErrorKind,
        message: String,
        hint: Option<&str>,
        source: Option<io::Error>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message,
            hint: hint.map(str::to_owned),
            retry_after: None,
            request_id: None,
            source,
        }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message.into())
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message.into())
    }

    pub(crate) fn timeout() -> Self {
        Self::with(
            ErrorKind::Timeout,
            "the jobcred agent did not answer in time".to_owned(),
            Some("look at the agent's log, or ask it: jobcred status"),
            None,
        )
    }

    /// The thread or task that asked for all is gone without an outcome.
    pub(crate) fn abandoned() -> Self {
        Self::new(
            ErrorKind::Connection,
            "the request was given up before its answer came".to_owned(),
        )
    }

    pub(crate) fn connection(error: io::Error) -> Self {
        if matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ) {
            return Self::timeout();
        }
        Self::with(
            ErrorKind::Connection,
            "the connection to the jobcred agent broke".to_owned(),
            None,
            Some(error),
        )
    }

    /// No place had an agent. When one had somebody else's listener, that is the more useful thing to say.
    /// `is_given`: whether the program itself named the one place.
    pub(crate) fn no_agent(attempts: &[Attempt], foreign: Option<u32>, is_given: bool) -> Self {
        let list: Vec<String> = attempts
            .iter()
            .map(|attempt| format!("{} ({})", attempt.path.display(), attempt.found))
            .collect();
        let list = one_line(&list.join(", "));
        match foreign {
            Some(uid) => Self::with(
                ErrorKind::Untrusted,
                format!(
                    "the agent found belongs to uid {uid}, which this process does not trust: {list}"
                ),
                Some("when that is the sidecar's user, set JOBCRED_AGENT_UID to it"),
                None,
            ),
            // Transient all the same: whoever shares the socket may be about to.
            None if attempts.len() == 1 && attempts[0].found == CLOSED => Self::with(
                ErrorKind::AgentGone,
                format!("the jobcred agent's socket is closed to this user: {list}"),
                Some(
                    "share it with a group this user is in: JOBCRED_SOCKET_GROUP where the agent runs",
                ),
                None,
            ),
            None if attempts.len() == 1 => Self::with(
                ErrorKind::AgentGone,
                format!("no jobcred agent answers at {list}"),
                Some(if is_given {
                    "that is the path that was asked for: see whether it is the right one, and whether the agent still runs, or is starting"
                } else {
                    "JOBCRED_SOCKET names that place: see whether the agent still runs, or is starting"
                }),
                None,
            ),
            // One that is busy is one, and what this process has run out of says nothing of any.
            None if attempts.iter().any(|attempt| attempt.is_open) => Self::with(
                ErrorKind::AgentGone,
                format!("no jobcred agent could be asked; looked at {list}"),
                Some("try again; if it lasts, see whether the agent hangs: jobcred status"),
                None,
            ),
            None => Self::with(
                ErrorKind::AgentNotFound,
                format!("no jobcred agent answers; looked at {list}"),
                Some("start one around the command: jobcred run -- COMMAND"),
                None,
            ),
        }
    }

    /// An answer that is not a success: the agent's own words, or the status where there are none.
    pub(crate) fn from_answer(status: u16, body: &[u8], retry_after: Option<u64>) -> Self {
        if let Ok(ErrorBody { error }) = serde_json::from_slice::<ErrorBody>(body) {
            let request_id = one_line(&error.request_id);
            return Self(Arc::new(Inner {
                kind: ErrorKind::Agent(error.code),
                message: one_line(&error.message),
                hint: error.hint.as_deref().map(one_line),
                retry_after: error.retry_after.or(retry_after),
                request_id: Some(request_id).filter(|id| !id.is_empty()),
                source: None,
            }));
        }
        match status {
            // What an HTTP server says before it has understood the request.
            400 | 414 | 431 => Self::new(
                ErrorKind::Agent(ErrorCode::InvalidRequest),
                format!(
                    "the jobcred agent refused the request as malformed or too long (HTTP {status})"
                ),
            ),
            _ => Self::protocol(format!(
                "what listens there is not a jobcred agent: HTTP {status} without an error"
            )),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        if let Some(id) = &self.0.request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("hint", &self.0.hint)
            .field("retry_after", &self.0.retry_after)
            .field("request_id", &self.0.request_id)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|error| error as &(dyn std::error::Error + 'static))
    }
}

/// Text from outside, fit for a terminal and a log line: no control characters, and not long.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(MAX_TEXT_CHARS)
        .collect()
}

/// Longer than any sentence the agent writes.
const MAX_TEXT_CHARS: usize = 2000;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use jobcred_wire::ErrorCode;

    use super::{Attempt, Error, ErrorKind};

    #[test]
    fn the_agents_words_are_kept() {
        let body = br#"{"error":{"code":"rejected","message":"no role\n\u001b[2J","hint":"assign one","retry_after":7,"request_id":"r1"}}"#;
        let error = Error::from_answer(502, body, None);
        assert_eq!(error.kind(), ErrorKind::Agent(ErrorCode::Rejected));
        assert_eq!(error.retry_after(), Some(7));
        assert_eq!(error.request_id(), Some("r1"));
        assert_eq!(error.to_string(), "no role  [2J; assign one (request r1)");
    }

    #[test]
    fn an_answer_without_an_error_body_still_says_what_to_do() {
        for (status, body, kind) in [
            (431, &b""[..], ErrorKind::Agent(ErrorCode::InvalidRequest)),
            (400, b"bad", ErrorKind::Agent(ErrorCode::InvalidRequest)),
            (200, b"{}", ErrorKind::Protocol),
            (502, b"<html>", ErrorKind::Protocol),
            (503, br#"{"error":"x"}"#, ErrorKind::Protocol),
        ] {
            assert_eq!(
                Error::from_answer(status, body, None).kind(),
                kind,
                "{status}"
            );
        }
    }

    #[test]
    fn a_missing_agent_is_told_with_every_place_and_the_way_out() {
        let attempts = ["/run/a", "/tmp/b"].map(|path| Attempt {
            path: PathBuf::from(path),
            found: "nothing there".to_owned(),
            is_open: false,
        });
        let error = Error::no_agent(&attempts, None, false);
        let text = error.to_string();
        for part in ["/run/a (nothing there)", "/tmp/b", "jobcred run -- COMMAND"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(error.code(), ErrorCode::Unavailable);
        let given = Error::no_agent(&attempts[..1], None, true).to_string();
        assert!(!given.contains("JOBCRED_SOCKET"), "{given}");
        let error = Error::no_agent(&attempts[..1], None, false);
        assert!(error.to_string().contains("JOBCRED_SOCKET"), "{error}");
        assert_eq!(error.kind(), ErrorKind::AgentGone);
        assert_eq!(error.code(), ErrorCode::Transient);
        let error = Error::no_agent(&attempts, Some(7), false);
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains("uid 7"));
    }
}
