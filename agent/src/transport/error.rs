//! Why there is no answer.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::StatusCode;
use jobcred_wire::ErrorCode;

use super::connect::TunnelError;
use super::reach::{TlsProblem, tls_problem};
use super::request::Endpoint;
use crate::error::TokenError;

/// What kept a request from being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: refused, unreachable, unknown name.
    Connect,
    /// No connection, or no whole answer, in time.
    Timeout,
    /// The connection ended, or what came is no HTTP.
    Broken,
    /// The body is larger than the limit.
    TooLarge,
    /// The endpoint answered with a redirect, which is never followed.
    Redirect,
    /// TLS failed: the certificate is not trusted or is for another name.
    Tls,
    /// TLS failed: by this machine's clock the certificate has ended, or has not begun.
    OutOfDate,
    /// The roots to trust cannot be loaded.
    Roots,
    /// The proxy cannot be reached, or refuses.
    Proxy,
    /// The proxy is set wrongly, or is of a kind that cannot be used.
    ProxySetting,
    /// The URL has no host, or a scheme other than http and https.
    BadUrl,
}

impl FailureKind {
    /// Whether the same request may succeed soon.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Timeout | Self::Broken | Self::Proxy
        )
    }

    /// Whether a setting of this machine is at fault. No issuer has refused anything then, and waiting alone does not help.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(
            self,
            Self::Redirect | Self::Tls | Self::Roots | Self::ProxySetting | Self::BadUrl
        )
    }
}

/// A request without an answer. Names the endpoint; never holds a query, a header or a body.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    kind: FailureKind,
    message: String,
    hint: &'static str,
}

impl TransportError {
    /// What kind of failure.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The next step for a person.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.hint
    }

    /// The same as the error of a token request.
    #[must_use]
    pub fn to_token_error(&self) -> TokenError {
        let error = |code| TokenError::new(code, &self.message).with_hint(self.hint);
        if self.kind.is_local() {
            // Not `unavailable`: the way was chosen and announced, so no credential chain may go on to another one. Not
            // `transient`: SDKs would try again for minutes.
            error(ErrorCode::Rejected).blocked()
        } else {
            // With a certificate out of its time it is the clock, because Azure renews in time: it may be set at any moment.
            error(ErrorCode::Transient)
        }
    }

    pub(super) fn timeout(endpoint: &Endpoint, limit: Duration) -> Self {
        Self {
            kind: FailureKind::Timeout,
            message: format!(
                "{endpoint} did not answer within {:.1} s",
                limit.as_secs_f64()
            ),
            hint: "the endpoint accepts connections but hangs, or drops them: see whether it is healthy",
        }
    }

    pub(super) fn connect_timeout(endpoint: &Endpoint, limit: Duration) -> Self {
        Self {
            kind: FailureKind::Timeout,
            message: format!(
                "no connection to {endpoint} within {:.1} s",
                limit.as_secs_f64()
            ),
            hint: "see whether a network policy or a firewall drops the connection",
        }
    }

    pub(super) fn redirect(endpoint: &Endpoint, status: StatusCode) -> Self {
        Self {
            kind: FailureKind::Redirect,
            message: format!(
                "{endpoint} answered with a redirect ({}), which is not followed: a token request goes where it was configured to go",
                status.as_u16()
            ),
            hint: "see whether the endpoint's address is right and no portal or proxy sits in between",
        }
    }

    pub(super) fn too_large(endpoint: &Endpoint, limit: usize) -> Self {
        Self {
            kind: FailureKind::TooLarge,
            message: format!("{endpoint} answered with more than {limit} bytes"),
            hint: "this is no token answer: see whether the endpoint's address is right",
        }
    }

    pub(super) fn bad_url(endpoint: &Endpoint) -> Self {
        Self {
            kind: FailureKind::BadUrl,
            message: format!("{endpoint} is no http or https address with a host"),
            hint: "correct the endpoint's address",
        }
    }

    pub(super) fn roots(message: String) -> Self {
        Self {
            kind: FailureKind::Roots,
            message,
            hint: "install the distribution's ca-certificates, or name a PEM file with `ca_file` or SSL_CERT_FILE",
        }
    }

    pub(super) fn proxy(kind: FailureKind, message: String) -> Self {
        Self {
            kind,
            message,
            hint: "correct the proxy's variable, or list the host in NO_PROXY",
        }
    }

    /// Tells why a connection could not be made from what the connector said. `proxy` is where the way goes through.
    pub(super) fn connecting(
        endpoint: &Endpoint,
        proxy: Option<&str>,
        error: &(dyn StdError + 'static),
    ) -> Self {
        if let Some(reason) = find::<rustls::Error>(error) {
            let whom = match proxy {
                Some(proxy) => format!("the proxy {proxy}"),
                None => endpoint.to_string(),
            };
            let message = format!("TLS with {whom} failed: {reason}");
            if tls_problem(reason) == TlsProblem::OutOfDate {
                return Self {
                    kind: FailureKind::OutOfDate,
                    message,
                    hint: "compare `date -u` with the real time: this machine's clock is more likely to be wrong than the certificate",
                };
            }
            return Self {
                kind: FailureKind::Tls,
                message,
                hint: match (reason, proxy) {
                    (rustls::Error::InvalidCertificate(_), _) => {
                        "if a proxy or a private issuer is in between, name its root with `ca_file` or SSL_CERT_FILE"
                    }
                    (_, Some(_)) => {
                        "if the proxy speaks plain HTTP, write http:// in the proxy's variable"
                    }
                    (_, None) => {
                        "see whether the address and the port are right, and whether a firewall answers in the host's place"
                    }
                },
            };
        }
        if let (Some(proxy), Some(TunnelError::ProxyAuthRequired)) = (proxy, find(error)) {
            return Self {
                kind: FailureKind::ProxySetting,
                message: format!(
                    "no connection to {endpoint} through the proxy {proxy}: it answered 407, so the user and password are missing or wrong"
                ),
                hint: "correct the user and the password in the proxy's variable, as in http://USER:PASSWORD@HOST:PORT",
            };
        }
        let reason = root_cause(error);
        match proxy {
            Some(proxy) => Self::proxy(
                FailureKind::Proxy,
                format!("no connection to {endpoint} through the proxy {proxy}: {reason}"),
            ),
            None => Self {
                kind: FailureKind::Connect,
                message: format!("no connection to {endpoint}: {reason}"),
                hint: "see whether the endpoint runs and can be reached from this container",
            },
        }
    }

    pub(super) fn broken(endpoint: &Endpoint, error: &(dyn StdError + 'static)) -> Self {
        Self {
            kind: FailureKind::Broken,
            message: format!(
                "{endpoint} did not send a whole HTTP answer: {}",
                root_cause(error)
            ),
            hint: "if this goes on, see whether the address is that of an HTTP endpoint and whether it is healthy",
        }
    }
}

/// The first error of type `E` in a chain, also where an [`io::Error`] wraps it.
pub(super) fn find<'a, E: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}

/// The innermost message, which is the one that tells (`Connection refused`, not `client error (Connect)`).
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(inner) = cause(last) {
        last = inner;
    }
    last.to_string()
}

fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(inner) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return Some(inner);
    }
    error.source()
}

#[cfg(test)]
mod tests {
    use std::io;

    use jobcred_wire::ErrorCode;
    use rustls::CertificateError;
    use url::Url;

    use super::{FailureKind, TransportError};
    use crate::transport::Endpoint;

    #[test]
    fn a_certificate_out_of_its_time_is_no_refusal() {
        let endpoint = Endpoint::of(&Url::parse("https://login.example/").unwrap());
        let failed = |bad| {
            let error = io::Error::other(rustls::Error::InvalidCertificate(bad));
            TransportError::connecting(&endpoint, None, &error)
        };
        for bad in [CertificateError::NotValidYet, CertificateError::Expired] {
            let error = failed(bad);
            assert_eq!(error.kind(), FailureKind::OutOfDate);
            // The clock may be set at any moment: no job is kept from starting for it.
            assert_eq!(error.to_token_error().kind(), ErrorCode::Transient);
            assert!(error.hint().contains("clock"), "{}", error.hint());
        }
        let error = failed(CertificateError::UnknownIssuer);
        assert_eq!(error.kind(), FailureKind::Tls);
        assert_eq!(error.to_token_error().kind(), ErrorCode::Rejected);
        assert!(error.to_token_error().is_blocked());
    }
}
