//! Which requests go through a proxy, and through which.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use url::{Host, Position, Url};

use super::error::{FailureKind, TransportError};
use super::exchange::root;
use super::exemptions::Exemptions;
use super::request::{Request, Route};
use crate::platform::Environment;

/// The variables that name a proxy for https, the first one that is not empty counts. As in curl and in Python's requests, the
/// lower-case name comes first and `all_proxy` stands in for `https_proxy`.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// A proxy as a variable names it. Its `Debug` shows no value, which may hold a password.
#[derive(Clone)]
pub struct ProxyVariable {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl ProxyVariable {
    pub(super) fn of(environment: &Environment) -> Option<Self> {
        PROXY_VARIABLES.into_iter().find_map(|name| {
            let value = environment.get(name)?.to_owned();
            Some(Self { name, value })
        })
    }
}

impl fmt::Debug for ProxyVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProxyVariable").field(&self.name).finish()
    }
}

/// The proxy settings, read once.
#[derive(Debug)]
pub(super) struct Proxy {
    /// The proxy, or why the one that is set cannot be used; `None` where none is set.
    hop: Option<Result<Hop, String>>,
    exemptions: Exemptions,
}

/// Where to open a tunnel.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    /// The proxy, without user and password. Its scheme is how the proxy itself is spoken to: `http` or `https`.
    pub(super) uri: Uri,
    /// Its host, for TLS.
    pub(super) host: String,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    pub(super) fn new(proxy: Option<&ProxyVariable>, no_proxy: Option<&str>) -> Self {
        Self {
            hop: proxy
                .filter(|variable| !variable.value.trim().is_empty())
                .map(|variable| {
                    Hop::read(&variable.value).map_err(|why| format!("{} {why}", variable.name))
                }),
            exemptions: Exemptions::read(no_proxy.unwrap_or_default()),
        }
    }

    /// The proxy for `request`, if it takes one. Loopback and link-local hosts never do.
    ///
    /// The exemptions are asked first: a proxy that cannot be used is no fault for a host that does not need it.
    pub(super) fn for_request(&self, request: &Request) -> Result<Option<&Hop>, TransportError> {
        let url = request.url();
        if request.route() == Route::Direct || url.scheme() != "https" || is_local(url) {
            return Ok(None);
        }
        match &self.hop {
            None => Ok(None),
            Some(_) if self.exemptions.has(url) => Ok(None),
            Some(Ok(hop)) => Ok(Some(hop)),
            Some(Err(why)) => Err(TransportError::proxy(
                FailureKind::ProxySetting,
                format!("{} cannot be reached: {why}", request.endpoint()),
            )),
        }
    }
}

impl Hop {
    /// The error is the rest of a sentence that begins with the variable's name. It never holds the value.
    fn read(value: &str) -> Result<Self, String> {
        let value = value.trim();
        if value.starts_with(['"', '\'']) {
            return Err("has quotation marks in its value: remove them".to_owned());
        }
        let with_scheme = if value.contains("://") {
            value.to_owned()
        } else {
            format!("http://{value}")
        };
        let not_a_url = || {
            "is not the URL of a proxy, like http://proxy.example:3128; characters like # and / in a password are written as %23 and %2F"
                .to_owned()
        };
        let url = Url::parse(&with_scheme).map_err(|_| not_a_url())?;
        // The host has ended before an `@` there, within the password: what is taken for the host is a part of it.
        if url[Position::BeforePath..].contains('@') {
            return Err(not_a_url());
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "names a {} proxy, and only http and https proxies can be used",
                url.scheme()
            ));
        }
        Ok(Self {
            uri: root(&url).ok_or_else(not_a_url)?,
            host: url.host_str().ok_or_else(not_a_url)?.to_owned(),
            authorization: authorization(&url),
        })
    }
}

fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = decode(url.username());
    let password = decode(url.password().unwrap_or_default());
    let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => match IpAddr::V6(ip).to_canonical() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
        },
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Proxy, ProxyVariable};
    use crate::platform::Environment;
    use crate::transport::{FailureKind, Request, Route, TransportError};

    fn proxy(value: &str, no_proxy: &str) -> Proxy {
        let variable = ProxyVariable {
            name: "HTTPS_PROXY",
            value: value.to_owned(),
        };
        Proxy::new(Some(&variable), Some(no_proxy))
    }

    fn hop(proxy: &Proxy, url: &str, route: Route) -> Result<Option<String>, TransportError> {
        let request = Request::get(Url::parse(url).unwrap(), route);
        let hop = proxy.for_request(&request)?;
        Ok(hop.map(|hop| hop.uri.to_string()))
    }

    #[test]
    fn the_proxy_is_for_remote_hosts_that_are_not_exempt() {
        let proxy = proxy(
            "http://user:word@proxy.example:3128",
            "exempt.example, 10.0.0.0/8",
        );
        let through = Some("http://proxy.example:3128/".to_owned());
        for (url, expected) in [
            ("https://login.microsoftonline.com/", &through),
            ("https://notexempt.example/", &through),
            ("https://exempt.example/", &None),
            ("https://sub.exempt.example/", &None),
            ("https://10.1.2.3/", &None),
            ("https://127.0.0.1:8443/", &None),
            ("https://localhost/", &None),
            ("https://[::1]/", &None),
            ("https://[::ffff:169.254.169.254]/", &None),
            ("https://169.254.169.254/", &None),
            // Plain http to a remote host is not what an https proxy is for.
            ("http://remote.example/", &None),
        ] {
            assert_eq!(
                &hop(&proxy, url, Route::Proxied).unwrap(),
                expected,
                "{url}"
            );
            assert_eq!(hop(&proxy, url, Route::Direct).unwrap(), None, "{url}");
        }
        assert!(!format!("{proxy:?}").contains("word"));
    }

    #[test]
    fn c1_proxies_as_curl_python_and_go_spell_them() {
        for (value, uri, authorization) in [
            ("proxy.example:3128", "http://proxy.example:3128/", None),
            ("http://proxy.example", "http://proxy.example/", None),
            (
                "http://proxy.example:3128/",
                "http://proxy.example:3128/",
                None,
            ),
            (
                "HTTP://proxy.example:3128",
                "http://proxy.example:3128/",
                None,
            ),
            (
                "https://proxy.example:8443",
                "https://proxy.example:8443/",
                None,
            ),
            ("https://proxy.example", "https://proxy.example/", None),
            (
                " http://proxy.example:3128\n",
                "http://proxy.example:3128/",
                None,
            ),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128/", None),
            (
                "user:word@proxy.example:3128",
                "http://proxy.example:3128/",
                Some("Basic dXNlcjp3b3Jk"),
            ),
            // A blank in the password, as it is and encoded.
            (
                "http://user:two words@proxy.example:3128",
                "http://proxy.example:3128/",
                Some("Basic dXNlcjp0d28gd29yZHM="),
            ),
            (
                "http://user:two%20words@proxy.example:3128",
                "http://proxy.example:3128/",
                Some("Basic dXNlcjp0d28gd29yZHM="),
            ),
            (
                "http://user@proxy.example:3128",
                "http://proxy.example:3128/",
                Some("Basic dXNlcjo="),
            ),
        ] {
            let proxy = proxy(value, "");
            let url = Url::parse("https://login.example/").unwrap();
            let request = Request::get(url, Route::Proxied);
            let hop = proxy.for_request(&request).unwrap().unwrap();
            assert_eq!(hop.uri, uri, "{value:?}");
            let sent = hop.authorization.as_ref().map(|it| it.to_str().unwrap());
            assert_eq!(sent, authorization, "{value:?}");
        }
        for empty in ["", "  "] {
            let found = hop(&proxy(empty, ""), "https://a.example/", Route::Proxied);
            assert_eq!(found.unwrap(), None);
        }
    }

    const UNUSABLE: [&str; 14] = [
        "socks5://user:s3cret@p:1",
        "socks5h://user:s3cret@p:1",
        "http://",
        "::::",
        "\"http://user:s3cret@p:1\"",
        "'http://user:s3cret@p:1'",
        "http://user:s3#cret@p:1",
        "http://p:s3cret",
        "ftp://user:s3cret@p",
        // Read as a URL, the password ends the host.
        "http://alice:1234/s3cret@p:1",
        "http://alice:12#s3cret@p:1",
        "http://alice:12?s3cret@p:1",
        "http://alice:12\\s3cret@p:1",
        "http://s3cret#x@p:1",
    ];

    #[test]
    fn c1_no_proxy_is_asked_before_the_proxy_is_judged() {
        for value in UNUSABLE {
            let proxy = proxy(value, "a.example");
            let found = hop(&proxy, "https://a.example/", Route::Proxied);
            assert_eq!(found.unwrap(), None, "{value}");
            assert!(hop(&proxy, "https://b.example/", Route::Proxied).is_err());
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_and_not_ignored() {
        for value in UNUSABLE {
            let proxy = proxy(value, "");
            let error = hop(&proxy, "https://a.example/", Route::Proxied).unwrap_err();
            // Asking again does not change the environment.
            assert_eq!(error.kind(), FailureKind::ProxySetting, "{value}");
            let said = error.to_string();
            assert!(said.contains("HTTPS_PROXY"), "{value}: {said}");
            for part in ["s3", "alice"] {
                assert!(!said.contains(part), "{value}: {said}");
            }
            assert_eq!(
                hop(&proxy, "https://a.example/", Route::Direct).unwrap(),
                None
            );
        }
    }

    #[test]
    fn the_first_variable_that_is_not_empty_names_the_proxy() {
        for (variables, expected) in [
            (&[][..], None),
            (&[("HTTPS_PROXY", "a")], Some(("HTTPS_PROXY", "a"))),
            (
                &[("HTTPS_PROXY", "a"), ("https_proxy", "b")],
                Some(("https_proxy", "b")),
            ),
            (
                &[("HTTPS_PROXY", "a"), ("https_proxy", "")],
                Some(("HTTPS_PROXY", "a")),
            ),
            (&[("ALL_PROXY", "c")], Some(("ALL_PROXY", "c"))),
            (
                &[("all_proxy", "c"), ("HTTPS_PROXY", "a")],
                Some(("HTTPS_PROXY", "a")),
            ),
            (&[("HTTP_PROXY", "d")], None),
        ] {
            let environment: Environment = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let found = ProxyVariable::of(&environment);
            let found = found.as_ref().map(|it| (it.name, it.value.as_str()));
            assert_eq!(found, expected, "{variables:?}");
        }
    }
}
