//! One request on one connection.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::pending;

use http::{HeaderValue, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use url::Url;

use super::Transport;
use super::connect::{Stream, tls};
use super::error::TransportError;
use super::request::{Endpoint, Request};
use super::response::Response;

/// Room for the status line and headers of an answer. Real ones are below 2 KiB; hyper's own limit is 400 KiB.
const MAX_HEAD: usize = 64 * 1024;
const USER_AGENT: &str = concat!("jobcred/", env!("CARGO_PKG_VERSION"));

impl Transport {
    pub(super) async fn exchange(&self, request: &Request) -> Result<Response, TransportError> {
        let endpoint = request.endpoint();
        let limit = request.limits().total;
        // Boxed: the state of a TLS handshake is large, and this future is part of every caller's.
        let exchange = Box::pin(self.connect_and_send(request, &endpoint));
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::timeout(&endpoint, limit)),
        }
    }

    async fn connect_and_send(
        &self,
        request: &Request,
        endpoint: &Endpoint,
    ) -> Result<Response, TransportError> {
        let stream = self.connect(request, endpoint).await?;
        self.send_on(TokioIo::new(stream), request, endpoint).await
    }

    /// A connection that can be written to: with TLS where the URL says so.
    async fn connect(
        &self,
        request: &Request,
        endpoint: &Endpoint,
    ) -> Result<Stream, TransportError> {
        let url = request.url();
        let config = match url.scheme() {
            "http" => None,
            "https" => Some(self.tls.config().await?),
            _ => return Err(TransportError::bad_url(endpoint)),
        };
        let connecting = async {
            let stream = self.open(request).await?;
            let (Some(config), Some(host)) = (config, url.host_str()) else {
                return Ok(stream);
            };
            tls(stream, host, config)
                .await
                .map_err(|error| TransportError::connecting(endpoint, None, &error))
        };
        let limit = request.limits().connect;
        match tokio::time::timeout(limit, connecting).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::connect_timeout(endpoint, limit)),
        }
    }

    async fn send_on<I>(
        &self,
        io: I,
        request: &Request,
        endpoint: &Endpoint,
    ) -> Result<Response, TransportError>
    where
        I: Read + Write + Send + Unpin + 'static,
    {
        let broken = |error: &(dyn StdError + 'static)| TransportError::broken(endpoint, error);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake::<_, Full<bytes::Bytes>>(io)
            .await
            .map_err(|error| broken(&error))?;
        let outgoing = outgoing(request).ok_or_else(|| TransportError::bad_url(endpoint))?;
        let answer = async {
            let answer = sender
                .send_request(outgoing)
                .await
                .map_err(|error| broken(&error))?;
            let (head, body) = answer.into_parts();
            if head.status.is_redirection() {
                return Err(TransportError::redirect(endpoint, head.status));
            }
            let limit = request.limits().max_body;
            let body = Limited::new(body, limit).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    TransportError::too_large(endpoint, limit)
                } else {
                    broken(&*error)
                }
            })?;
            let now = self.clock.now();
            let response = Response::new(head.status, head.headers, body.to_bytes(), now);
            if let Some(date) = response.date() {
                self.clock.hear(date);
            }
            Ok(response)
        };
        // The connection is driven here and not in a task of its own, so that dropping the future closes it. What goes
        // wrong on it reaches the request.
        let drive = async {
            let _ = connection.await;
            pending::<Infallible>().await
        };
        tokio::select! {
            result = answer => result,
            never = drive => match never {},
        }
    }
}

/// Host and, where it is not the scheme's own, port.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// Scheme, host and port of `url`, without the rest.
pub(super) fn root(url: &Url) -> Option<Uri> {
    let authority = authority(url)?;
    format!("{}://{authority}/", url.scheme()).parse().ok()
}

fn outgoing(request: &Request) -> Option<http::Request<Full<bytes::Bytes>>> {
    let url = request.url();
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut outgoing = http::Request::builder()
        .method(request.method())
        .uri(target)
        .body(Full::new(request.body().clone()))
        .ok()?;
    let headers = outgoing.headers_mut();
    headers.insert(
        http::header::USER_AGENT,
        HeaderValue::from_static(USER_AGENT),
    );
    headers.extend(request.headers().clone());
    headers.insert(
        http::header::HOST,
        HeaderValue::from_str(&authority(url)?).ok()?,
    );
    Some(outgoing)
}
