//! Which requests go through a proxy.

use std::net::IpAddr;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

use super::error::{FailureKind, TransportError};
use super::request::{Endpoint, Request, Route};

/// The proxy settings, read once.
#[derive(Debug)]
pub(super) enum Proxy {
    /// None is set.
    None,
    /// One is set that cannot be used. Requests that need it fail with this; all others work.
    Unusable(String),
    /// One for every host that is not exempt.
    Http(Box<Matcher>),
}

/// Where to open a tunnel.
#[derive(Debug)]
pub(super) struct Hop {
    /// The proxy, without user and password.
    pub(super) uri: Uri,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    pub(super) fn new(https_proxy: Option<&str>, no_proxy: Option<&str>) -> Self {
        let Some(proxy) = https_proxy.map(str::trim).filter(|proxy| !proxy.is_empty()) else {
            return Self::None;
        };
        let probe = Uri::from_static("https://host.invalid/");
        let hop = Matcher::builder().https(proxy).build().intercept(&probe);
        match hop.as_ref().map(|hop| hop.uri().scheme_str()) {
            Some(Some("http")) => Self::Http(Box::new(
                Matcher::builder()
                    .https(proxy)
                    .no(no_proxy.unwrap_or_default())
                    .build(),
            )),
            Some(Some(scheme)) => Self::Unusable(format!(
                "the proxy that is set speaks {scheme}, and only http proxies can be used"
            )),
            Some(None) | None => Self::Unusable("the proxy that is set is no URL".to_owned()),
        }
    }

    /// The proxy for `request`, if it takes one. Loopback and link-local hosts never do.
    pub(super) fn for_request(&self, request: &Request) -> Result<Option<Hop>, TransportError> {
        if request.route() == Route::Direct || is_local(request.url()) {
            return Ok(None);
        }
        match self {
            Self::None => Ok(None),
            Self::Unusable(reason) => Err(TransportError::proxy(
                FailureKind::ProxySetting,
                format!(
                    "{} cannot be reached: {reason}",
                    Endpoint::of(request.url())
                ),
            )),
            Self::Http(matcher) => {
                let uri = request
                    .url()
                    .as_str()
                    .parse()
                    .map_err(|_| TransportError::bad_url(&request.endpoint()))?;
                Ok(matcher.intercept(&uri).map(|hop| Hop {
                    authorization: hop.basic_auth().cloned(),
                    uri: hop.uri().clone(),
                }))
            }
        }
    }
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
    use jobcred_wire::ErrorCode;
    use url::Url;

    use super::Proxy;
    use crate::transport::{FailureKind, Request, Route};

    fn hop(proxy: &Proxy, url: &str, route: Route) -> Option<String> {
        let request = Request::get(Url::parse(url).unwrap(), route);
        let hop = proxy.for_request(&request).unwrap();
        hop.map(|hop| hop.uri.to_string())
    }

    #[test]
    fn the_proxy_is_for_remote_hosts_that_are_not_exempt() {
        let proxy = Proxy::new(
            Some("http://user:word@proxy.example:3128"),
            Some("exempt.example, 10.0.0.0/8"),
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
            assert_eq!(&hop(&proxy, url, Route::Proxied), expected, "{url}");
            assert_eq!(hop(&proxy, url, Route::Direct), None, "{url}");
        }
        assert!(!format!("{proxy:?}").contains("word"));
    }

    #[test]
    fn everything_can_be_exempt() {
        let proxy = Proxy::new(Some("proxy.example:3128"), Some("*"));
        assert_eq!(hop(&proxy, "https://a.example/", Route::Proxied), None);
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_and_not_ignored() {
        for text in ["socks5://p:1", "https://p:1", "http://", "::::"] {
            let proxy = Proxy::new(Some(text), None);
            let url = Url::parse("https://a.example/").unwrap();
            let request = Request::get(url.clone(), Route::Proxied);
            let error = proxy.for_request(&request).unwrap_err();
            // Asking again does not change the environment.
            assert_eq!(error.kind(), FailureKind::ProxySetting, "{text}");
            assert_eq!(error.to_token_error().kind(), ErrorCode::Rejected, "{text}");
            let direct = Request::get(url, Route::Direct);
            assert!(proxy.for_request(&direct).unwrap().is_none(), "{text}");
        }
    }
}
