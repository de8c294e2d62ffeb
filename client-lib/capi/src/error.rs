//! Errors: a kind for the program, a sentence for a person.

use std::ffi::{CString, c_char};
use std::fmt;

use jobcred_client::ErrorCode;

use crate::text;

/// What went wrong, as one of a few kinds that each have a different next step.
///
/// Later versions may add kinds: treat one that you do not know as `JOBCRED_KIND_INTERNAL`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No error: the kind of NULL.
    None = 0,
    /// The request itself is wrong; correct it.
    InvalidRequest = 1,
    /// Policy says no; ask whoever configured the agent.
    Denied = 2,
    /// No agent, or one that has no way to get such a token; another credential may have one.
    Unavailable = 3,
    /// The issuer refused; a role, an assignment or a setting in Azure has to change.
    Rejected = 4,
    /// The submitting user's session has ended; the job has to be submitted again.
    GrantEnded = 5,
    /// This registry is to be read without credentials.
    Anonymous = 6,
    /// Try again, after `jobcred_error_retry_after` seconds.
    Transient = 7,
    /// A fault of the agent or of this library; report it with the request id.
    Internal = 8,
}

/// Why there is no answer. Holds no token and no secret.
pub struct Error {
    kind: Kind,
    message: CString,
    hint: Option<CString>,
    retry_after: Option<u64>,
    request_id: Option<CString>,
}

/// What kind of error this is; `JOBCRED_KIND_NONE` for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_error_kind(error: Option<&Error>) -> Kind {
    error.map_or(Kind::None, |error| error.kind)
}

/// The kind in the words of the agent's protocol, for example `grant_ended`, fit for a log. NULL for NULL. Never freed.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_error_code(error: Option<&Error>) -> *const c_char {
    match jobcred_error_kind(error) {
        Kind::None => std::ptr::null(),
        Kind::InvalidRequest => c"invalid_request".as_ptr(),
        Kind::Denied => c"denied".as_ptr(),
        Kind::Unavailable => c"unavailable".as_ptr(),
        Kind::Rejected => c"rejected".as_ptr(),
        Kind::GrantEnded => c"grant_ended".as_ptr(),
        Kind::Anonymous => c"anonymous".as_ptr(),
        Kind::Transient => c"transient".as_ptr(),
        Kind::Internal => c"internal".as_ptr(),
    }
}

/// What happened, as one line. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_error_message(error: Option<&Error>) -> *const c_char {
    text::pointer(error.map(|error| &error.message))
}

/// What a person can do next, as one line; NULL when nothing is known.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_error_hint(error: Option<&Error>) -> *const c_char {
    text::pointer(error.and_then(|error| error.hint.as_ref()))
}

/// Seconds after which another try makes sense; -1 when nothing is known.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_error_retry_after(error: Option<&Error>) -> i64 {
    error
        .and_then(|error| error.retry_after)
        .map_or(-1, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The agent's id of the request, under which its log has the whole story; NULL when the agent was not reached.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_error_request_id(error: Option<&Error>) -> *const c_char {
    text::pointer(error.and_then(|error| error.request_id.as_ref()))
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_error_free(error: Option<Box<Error>>) {
    drop(error);
}

impl Error {
    /// The caller's mistake.
    pub(crate) fn invalid(message: &str) -> Self {
        Self::new(Kind::InvalidRequest, message)
    }

    /// A fault of this side.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(Kind::Internal, message)
    }

    fn new(kind: Kind, message: &str) -> Self {
        Self {
            kind,
            message: text::owned(message),
            hint: None,
            retry_after: None,
            request_id: None,
        }
    }

    /// The message alone.
    pub(crate) fn into_text(self) -> String {
        self.message.into_string().unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        self.message.to_str().unwrap()
    }
}

impl From<jobcred_client::Error> for Error {
    fn from(error: jobcred_client::Error) -> Self {
        Self {
            kind: error.code().into(),
            message: text::owned(error.message()),
            hint: error.hint().map(text::owned),
            retry_after: error.retry_after(),
            request_id: error.request_id().map(text::owned),
        }
    }
}

impl From<ErrorCode> for Kind {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidRequest => Self::InvalidRequest,
            ErrorCode::Denied => Self::Denied,
            ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::Rejected => Self::Rejected,
            ErrorCode::GrantEnded => Self::GrantEnded,
            ErrorCode::Anonymous => Self::Anonymous,
            ErrorCode::Transient => Self::Transient,
            ErrorCode::Internal | ErrorCode::Unknown => Self::Internal,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}
