//! What is wrong with a request before it is looked at what it asks for. Loopback TCP is open to every process of the machine, to
//! web pages in a browser whose port is forwarded, and to servers that can be talked into fetching a URL; nothing of theirs
//! looks like the request of an SDK.

use http::header::{FORWARDED, HOST, ORIGIN, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use jobcred_wire::{ErrorCode, Secret};
use subtle::ConstantTimeEq as _;

use crate::error::TokenError;

/// Names of this machine under which an endpoint is asked.
const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// The port that clients leave out of `Host`.
const HTTP_PORT: u16 = 80;
/// Headers of requests that came a longer way.
const OF_PROXIES: [HeaderName; 4] = [
    FORWARDED,
    VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
];
/// What browsers put in front of the headers that no script can set.
const OF_BROWSERS: &str = "sec-fetch-";

/// Refuses what no SDK sends to an endpoint on `port`.
///
/// # Errors
/// `denied`, in words that name the header and nothing of its value.
pub fn check(parts: &Parts, port: u16) -> Result<(), TokenError> {
    if parts.uri.authority().is_some() {
        return Err(denied(
            "the request line names a host, as for a proxy; this endpoint forwards nothing",
        )
        .with_hint("Add 127.0.0.1 and localhost to NO_PROXY."));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none());
    if !host.is_some_and(|host| is_own_host(host, port)) {
        return Err(denied("the Host header does not name this endpoint"));
    }
    if let Some(name) = foreign_header(&parts.headers) {
        return Err(denied(format!(
            "the request has the header {name}: it was forwarded, or a browser's"
        )));
    }
    Ok(())
}

/// Whether `given` is the secret, told in a time that does not tell how much of it is right.
#[must_use]
pub fn is_secret(given: &[u8], secret: &Secret) -> bool {
    !secret.is_empty() && bool::from(given.ct_eq(secret.expose().as_bytes()))
}

fn is_own_host(host: &HeaderValue, port: u16) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let host = host.to_ascii_lowercase();
    HOSTS.iter().any(|name| {
        let Some(rest) = host.strip_prefix(name) else {
            return false;
        };
        rest.strip_prefix(':') == Some(port.to_string().as_str())
            || (rest.is_empty() && port == HTTP_PORT)
    })
}

fn foreign_header(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| {
        OF_PROXIES.contains(name) || **name == ORIGIN || name.as_str().starts_with(OF_BROWSERS)
    })
}

fn denied(message: impl Into<String>) -> TokenError {
    TokenError::new(ErrorCode::Denied, message)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use jobcred_wire::Secret;
    use proptest::prelude::*;

    use super::{check, is_secret};

    fn verdict(uri: &str, headers: &[(&str, &str)], port: u16) -> Result<(), String> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts, port).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_endpoints_own_names_with_its_port_are_hosts() {
        for (host, port, good) in [
            ("127.0.0.1:4567", 4567, true),
            ("localhost:4567", 4567, true),
            ("LocalHost:4567", 4567, true),
            ("[::1]:4567", 4567, true),
            ("127.0.0.1", 80, true),
            ("127.0.0.1:80", 80, true),
            ("127.0.0.1", 4567, false),
            ("127.0.0.1:456", 4567, false),
            ("127.0.0.1:45678", 4567, false),
            ("127.0.0.1:4567:4567", 4567, false),
            ("127.0.0.1.attacker.example:4567", 4567, false),
            ("attacker.example:4567", 4567, false),
            ("169.254.169.254", 80, false),
            ("127.0.0.2:4567", 4567, false),
            ("localhost.:4567", 4567, false),
            ("user@localhost:4567", 4567, false),
            ("", 80, false),
        ] {
            let verdict = verdict("/", &[("host", host)], port);
            assert_eq!(verdict.is_ok(), good, "{host} {port}");
        }
        assert!(verdict("/", &[], 80).is_err());
        let twice = [("host", "localhost:80"), ("host", "localhost:80")];
        assert!(verdict("/", &twice, 80).is_err());
    }

    #[test]
    fn what_came_by_a_proxy_or_from_a_browser_is_refused() {
        for name in [
            "X-Forwarded-For",
            "x-forwarded-host",
            "Forwarded",
            "Via",
            "Origin",
            "Sec-Fetch-Mode",
            "sec-fetch-site",
        ] {
            let error = verdict("/", &[("host", "localhost:80"), (name, "private")], 80);
            let error = error.unwrap_err();
            assert!(error.contains(&name.to_ascii_lowercase()), "{error}");
            assert!(!error.contains("private"), "{error}");
        }
        let proxied = verdict("http://localhost:80/", &[("host", "localhost:80")], 80);
        assert!(proxied.unwrap_err().contains("proxy"));
    }

    #[test]
    fn what_sdks_send_passes() {
        let headers = [
            ("host", "127.0.0.1:1"),
            ("user-agent", "azsdk-python-identity/1.27.0"),
            ("x-identity-header", "s"),
            ("metadata", "true"),
            ("x-client-sku", "MSAL.Python"),
            ("x-ms-client-request-id", "1"),
            ("accept-encoding", "gzip, deflate"),
            ("connection", "keep-alive"),
        ];
        assert_eq!(verdict("/msi/token?resource=x", &headers, 1), Ok(()));
    }

    #[test]
    fn secrets_are_compared_whole() {
        let secret = Secret::from("0123456789abcdef");
        assert!(is_secret(b"0123456789abcdef", &secret));
        for given in [
            "",
            "0123456789abcde",
            "0123456789abcdefg",
            "1123456789abcdef",
        ] {
            assert!(!is_secret(given.as_bytes(), &secret), "{given}");
        }
        assert!(!is_secret(b"", &Secret::default()));
    }

    proptest! {
        #[test]
        fn no_host_but_the_own_one_passes(host in "[!-~]{0,40}") {
            let own = ["127.0.0.1:4567", "localhost:4567", "[::1]:4567"];
            let verdict = verdict("/", &[("host", &host)], 4567);
            prop_assert_eq!(verdict.is_ok(), own.contains(&host.to_ascii_lowercase().as_str()));
        }
    }
}
