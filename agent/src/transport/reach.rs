//! The way to a host, step by step: name, connection, TLS. For a person who asks where it ends; requests take the same way by
//! themselves.

use std::net::IpAddr;
use std::time::Duration;

use super::Transport;
use super::connect::{Stream, tls};
use super::error::{TransportError, find};
use super::request::Request;

/// Why a host has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// The name is not known.
    NotFound,
    /// Nobody could be asked, or nobody answered in time.
    Failed(String),
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// Its issuer is not trusted here.
    UnknownIssuer,
    /// It is for another name.
    WrongName,
    /// It has ended, or has not begun, by this machine's clock.
    OutOfDate,
    /// Anything else, or no certificate at all.
    Other,
}

/// An open connection to a host, through the proxy where there is one.
pub struct Reached {
    stream: Stream,
}

impl std::fmt::Debug for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reached").finish_non_exhaustive()
    }
}

/// The addresses of a name, each once, as this machine's resolver gives them; none that was not given within `limit`.
pub async fn addresses(host: &str, limit: Duration) -> Result<Vec<IpAddr>, NoAddress> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let looked_up = tokio::time::timeout(limit, tokio::net::lookup_host((host, 443))).await;
    let found = match looked_up {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            let text = error.to_string();
            // The resolver's answer has no kind of its own: glibc's and musl's words for a name that does not exist.
            let unknown = [
                "Name or service not known",
                "Name does not resolve",
                "No address associated",
            ]
            .iter()
            .any(|words| text.contains(words));
            return Err(if unknown {
                NoAddress::NotFound
            } else {
                NoAddress::Failed(text)
            });
        }
        Err(_) => {
            return Err(NoAddress::Failed(format!(
                "no answer within {:.0} s",
                limit.as_secs_f64()
            )));
        }
    };
    let mut unique = Vec::new();
    for address in found {
        if !unique.contains(&address.ip()) {
            unique.push(address.ip());
        }
    }
    if unique.is_empty() {
        return Err(NoAddress::NotFound);
    }
    Ok(unique)
}

impl Transport {
    /// The proxy that requests like this one go through, without user and password.
    ///
    /// # Errors
    /// When one is set that cannot be used.
    pub fn proxy_for(&self, request: &Request) -> Result<Option<String>, TransportError> {
        let hop = self.proxy.for_request(request)?;
        Ok(hop.map(|hop| hop.uri.to_string().trim_end_matches('/').to_owned()))
    }

    /// Opens a connection and sends nothing on it. Through a proxy that is a tunnel, which the proxy has agreed to.
    pub async fn reach(&self, request: &Request) -> Result<Reached, TransportError> {
        let limit = request.limits().connect;
        match tokio::time::timeout(limit, self.open(request)).await {
            Ok(opened) => opened.map(|stream| Reached { stream }),
            Err(_) => Err(TransportError::connect_timeout(&request.endpoint(), limit)),
        }
    }

    /// Greets the host by TLS, and hangs up.
    ///
    /// # Errors
    /// With what is wrong with the certificate, where that is it.
    pub async fn greet(
        &self,
        request: &Request,
        reached: Reached,
    ) -> Result<(), (TransportError, TlsProblem)> {
        let endpoint = request.endpoint();
        let other = |error| (error, TlsProblem::Other);
        let config = self.tls.config().await.map_err(other)?;
        let host = request.url().host_str();
        let host = host.ok_or_else(|| other(TransportError::bad_url(&endpoint)))?;
        let limit = request.limits().connect;
        match tokio::time::timeout(limit, tls(reached.stream, host, config)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let problem = find(&error).map_or(TlsProblem::Other, tls_problem);
                Err((TransportError::connecting(&endpoint, None, &error), problem))
            }
            Err(_) => Err(other(TransportError::connect_timeout(&endpoint, limit))),
        }
    }
}

/// What is wrong with the certificate, where that is it.
pub(super) fn tls_problem(error: &rustls::Error) -> TlsProblem {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            // A signature that does not fit is by an issuer that has the name of a trusted one, and another key.
            Bad::UnknownIssuer | Bad::BadSignature => TlsProblem::UnknownIssuer,
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => TlsProblem::WrongName,
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. } => TlsProblem::OutOfDate,
            _ => TlsProblem::Other,
        },
        _ => TlsProblem::Other,
    }
}
