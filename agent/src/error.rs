//! The one error of a token request, from source to front.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use jobcred_wire::ErrorCode;

/// Why there is no token. The kind says what a program can do, message and hint what a person can.
///
/// `message` and `hint` are shown to callers: they name endpoint and status, never a secret, a token or a raw upstream
/// body. The `source` chain goes to the log only, and must not hold secrets either.
#[derive(Debug, Clone)]
pub struct TokenError {
    kind: ErrorCode,
    message: String,
    hint: Option<String>,
    retry_after: Option<Duration>,
    issuer_code: Option<String>,
    /// Whether waiting may heal a refusal: a role or an identity assignment that is being made.
    healable: bool,
    /// Whether the fault is here, and no issuer refused anything.
    blocked: bool,
    source: Option<std::sync::Arc<dyn StdError + Send + Sync>>,
}

impl TokenError {
    /// An error of `kind` with what happened in one sentence.
    #[must_use]
    pub fn new(kind: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            retry_after: None,
            issuer_code: None,
            healable: !matches!(kind, ErrorCode::InvalidRequest | ErrorCode::Denied),
            blocked: false,
            source: None,
        }
    }

    /// Adds the next step for a person.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds how long to wait before another try, as the issuer said.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds the issuer's own code, for example `AADSTS70021` or `invalid_resource`.
    #[must_use]
    pub fn with_issuer_code(mut self, code: impl Into<String>) -> Self {
        self.issuer_code = Some(code.into());
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(std::sync::Arc::new(source));
        self
    }

    /// Marks a refusal that only a changed request can heal, so that it may be remembered longer.
    #[must_use]
    pub fn malformed(mut self) -> Self {
        self.healable = false;
        self
    }

    /// Marks an error that is not an issuer's refusal: a setting of this machine is in the way (proxy, roots, TLS), or jobcred
    /// withholds a token that the issuer gave. It never keeps a command from starting.
    #[must_use]
    pub fn blocked(mut self) -> Self {
        self.blocked = true;
        self
    }

    /// The same as an error of another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorCode) -> Self {
        self.kind = kind;
        self
    }

    /// Puts what was being done in front of what happened.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorCode {
        self.kind
    }

    /// What happened.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The next step, if one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// How long to wait before another try, if the issuer said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The issuer's own code.
    #[must_use]
    pub fn issuer_code(&self) -> Option<&str> {
        self.issuer_code.as_deref()
    }

    /// What is behind it, outermost first, for the log; `None` where there is nothing.
    #[must_use]
    pub fn causes(&self) -> Option<String> {
        let causes: Vec<_> = std::iter::successors(self.source(), |&cause| cause.source())
            .map(ToString::to_string)
            .collect();
        (!causes.is_empty()).then(|| causes.join(": "))
    }

    /// Whether another try without any change can succeed soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorCode::Transient)
    }

    /// Whether the fault is here, and no issuer refused anything: see [`TokenError::blocked`].
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether a role or identity assignment in Azure could heal it, without a change of the request.
    #[must_use]
    pub fn is_healable(&self) -> bool {
        self.healable
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for TokenError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
