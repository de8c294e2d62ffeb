//! What is sent, and within which limits.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jobcred_wire::Secret;
use url::Url;

/// How a request leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To an identity endpoint: on loopback or link-local, so never through a proxy, whatever the environment says, and
    /// through the gate that keeps the platform's limits.
    Direct,
    /// To Entra or a registry: through the configured proxy unless the host is exempt.
    Proxied,
}

/// How long and how much one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For name, TCP, proxy and TLS together.
    pub connect: Duration,
    /// From connect to the last byte of the answer.
    pub total: Duration,
    /// The largest answer body, in bytes.
    pub max_body: usize,
}

impl Limits {
    /// For endpoints on this machine or its host. The connect limit is the one of azure-identity for Python (2 s); its read
    /// limit of 300 s lets a hung responder block callers for minutes.
    pub const IDENTITY_ENDPOINT: Self = Self {
        connect: Duration::from_secs(2),
        total: Duration::from_secs(10),
        max_body: 256 * 1024,
    };
    /// For services across the network, with room for a proxy and a TLS handshake.
    pub const REMOTE: Self = Self {
        connect: Duration::from_secs(10),
        total: Duration::from_secs(20),
        max_body: 256 * 1024,
    };
}

/// Where a request goes, fit for logs and errors: scheme, host, port and path; never a query, a user or a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(String);

impl Endpoint {
    /// The presentable part of `url`.
    #[must_use]
    pub fn of(url: &Url) -> Self {
        Self(format!(
            "{}{}",
            url.origin().ascii_serialization(),
            url.path()
        ))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret that cannot be sent as a header, for example because it has a line break in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret holds a character that cannot be sent in an HTTP header")]
pub struct InvalidSecret;

/// One request. Its `Debug` shows neither headers nor body nor query.
#[derive(Clone)]
pub struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    route: Route,
    limits: Limits,
}

impl Request {
    /// A `GET` of `url` with the limits that go with `route`.
    #[must_use]
    pub fn get(url: Url, route: Route) -> Self {
        Self::new(Method::GET, url, route)
    }

    /// A `POST` of a form. `body` is already encoded; it may hold secrets.
    #[must_use]
    pub fn post_form(url: Url, route: Route, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, url, route)
            .with_header(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            )
            .with_body(body)
    }

    /// A request without headers and body, with the limits that go with `route`.
    #[must_use]
    pub fn new(method: Method, url: Url, route: Route) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            limits: match route {
                Route::Direct => Limits::IDENTITY_ENDPOINT,
                Route::Proxied => Limits::REMOTE,
            },
            route,
        }
    }

    /// Adds a header that is no secret.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds a header that is a secret.
    pub fn with_secret_header(
        mut self,
        name: HeaderName,
        secret: &Secret,
    ) -> Result<Self, InvalidSecret> {
        let mut value =
            HeaderValue::from_bytes(secret.expose().as_bytes()).map_err(|_| InvalidSecret)?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The presentable part of the URL.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::of(&self.url)
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn route(&self) -> Route {
        self.route
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("endpoint", &self.endpoint().as_str())
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}
