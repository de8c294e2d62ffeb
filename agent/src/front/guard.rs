//! What is wrong with a request before it is read: it came a way that no client of the agent takes.
//!
//! A Unix socket can be reached by URL, because some HTTP clients follow a redirect to one. Loopback TCP is open to every process of
//! the machine, to web pages in a browser whose port is forwarded, and to servers that fetch a URL for others.

use http::header::{FORWARDED, HOST, ORIGIN, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use jobcred_wire::{ErrorCode, REQUEST_HEADER};

use crate::error::TokenError;
use crate::peer::Admission;

/// Names that clients of the socket give as `Host`: our own clients the first, curl and others the second.
const SOCKET_HOSTS: [&str; 2] = [jobcred_wire::HOST, "localhost"];
/// Names of this machine that clients of an endpoint give as `Host`.
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// The port that clients leave out of `Host`.
const HTTP_PORT: u16 = 80;
/// What proxies put in front of the headers that say where a request came from.
const OF_PROXIES: &str = "x-forwarded-";
/// What browsers put in front of the headers that no script can set.
const OF_BROWSERS: &str = "sec-fetch-";
/// The one of those that Node's `fetch` sends, too. A browser never sends it alone.
const OF_NODE: &str = "sec-fetch-mode";

/// Refuses what no client of the socket sends. Looks for the agent's header first: a URL cannot bring it along.
///
/// # Errors
/// `invalid_request` without the header, else `denied`, in words that name a header and nothing of its value.
pub(super) fn check_socket(parts: &Parts) -> Result<(), TokenError> {
    if !parts.headers.contains_key(REQUEST_HEADER) {
        return Err(TokenError::new(
            ErrorCode::InvalidRequest,
            format!("send the header {REQUEST_HEADER}: 1 (curl -H '{REQUEST_HEADER}: 1')"),
        ));
    }
    check(parts, |host| {
        SOCKET_HOSTS
            .iter()
            .any(|name| host.as_bytes().eq_ignore_ascii_case(name.as_bytes()))
    })
    .map_err(|wrong| match wrong {
        Wrong::Host => wrong
            .denied()
            .with_hint("Over the socket, ask for http://localhost/... or http://jobcred/..."),
        Wrong::Target | Wrong::Header(_) => wrong.denied(),
    })
}

/// Refuses what no SDK sends to an endpoint on `port`.
///
/// # Errors
/// `denied`, in words that name a header and nothing of its value.
pub(super) fn check_endpoint(parts: &Parts, port: u16) -> Result<(), TokenError> {
    check(parts, |host| is_loopback(host, port)).map_err(|wrong| match wrong {
        Wrong::Target => wrong
            .denied()
            .with_hint("Add 127.0.0.1 and localhost to NO_PROXY."),
        Wrong::Host | Wrong::Header(_) => wrong.denied(),
    })
}

/// Lets in a caller of `uid` if the way it came admits it.
///
/// # Errors
/// `denied`, with how to share the agent.
pub(super) fn check_uid(admission: &Admission, uid: u32) -> Result<(), TokenError> {
    if admission.admits(uid) {
        return Ok(());
    }
    Err(TokenError::new(
        ErrorCode::Denied,
        format!("uid {uid} may not ask this agent"),
    )
    .with_hint("Share the socket: `socket_group`, and `allow_uids` where there are several users."))
}

/// What shows that a request came another way.
enum Wrong {
    Target,
    Host,
    Header(HeaderName),
}

impl Wrong {
    fn denied(&self) -> TokenError {
        let message = match self {
            Self::Target => {
                "the request line names a host, as for a proxy; this endpoint forwards nothing"
                    .to_owned()
            }
            Self::Host => "the Host header does not name this endpoint".to_owned(),
            Self::Header(name) => {
                format!("the request has the header {name}: it was forwarded, or a browser's")
            }
        };
        TokenError::new(ErrorCode::Denied, message)
    }
}

fn check(parts: &Parts, is_own: impl Fn(&HeaderValue) -> bool) -> Result<(), Wrong> {
    if parts.uri.authority().is_some() {
        return Err(Wrong::Target);
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none());
    if !host.is_some_and(is_own) {
        return Err(Wrong::Host);
    }
    match foreign_header(&parts.headers) {
        Some(name) => Err(Wrong::Header(name.clone())),
        None => Ok(()),
    }
}

fn is_loopback(host: &HeaderValue, port: u16) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let host = host.to_ascii_lowercase();
    LOOPBACK_HOSTS.iter().any(|name| {
        let Some(rest) = host.strip_prefix(name) else {
            return false;
        };
        rest.strip_prefix(':') == Some(port.to_string().as_str())
            || (rest.is_empty() && port == HTTP_PORT)
    })
}

fn foreign_header(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| {
        let text = name.as_str();
        [FORWARDED, VIA, ORIGIN].contains(name)
            || text.starts_with(OF_PROXIES)
            || (text.starts_with(OF_BROWSERS) && text != OF_NODE)
    })
}

#[cfg(test)]
mod tests;
