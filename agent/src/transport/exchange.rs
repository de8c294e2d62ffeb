//! One request on one connection.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::{pending, poll_fn};
use std::sync::Arc;

use http::{HeaderValue, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use rustls::ClientConfig;
use tower_service::Service;
use url::Url;

use super::Transport;
use super::error::TransportError;
use super::proxy::Hop;
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
        let url = request.url();
        let destination: Uri = authority(url)
            .and_then(|authority| format!("{}://{authority}/", url.scheme()).parse().ok())
            .ok_or_else(|| TransportError::bad_url(endpoint))?;
        let hop = self.proxy.for_request(request)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        match (url.scheme(), hop) {
            ("http", _) => {
                let io = connect(tcp, destination, request, None).await?;
                self.send_on(io, request, endpoint).await
            }
            ("https", None) => {
                let connector = with_tls(tcp, &self.tls.config().await?);
                let io = connect(connector, destination, request, None).await?;
                self.send_on(io, request, endpoint).await
            }
            ("https", Some(Hop { uri, authorization })) => {
                let name = uri.to_string();
                let mut tunnel = Tunnel::new(uri, tcp);
                if let Some(value) = authorization {
                    tunnel = tunnel.with_auth(value);
                }
                let connector = with_tls(tunnel, &self.tls.config().await?);
                let io = connect(connector, destination, request, Some(&name)).await?;
                self.send_on(io, request, endpoint).await
            }
            _ => Err(TransportError::bad_url(endpoint)),
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

fn with_tls<C>(connector: C, config: &Arc<ClientConfig>) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new()
        .with_tls_config(ClientConfig::clone(config))
        .https_only()
        .enable_http1()
        .wrap_connector(connector)
}

pub(super) async fn connect<C>(
    mut connector: C,
    destination: Uri,
    request: &Request,
    proxy: Option<&str>,
) -> Result<C::Response, TransportError>
where
    C: Service<Uri>,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let limit = request.limits().connect;
    let connecting = async {
        poll_fn(|context| connector.poll_ready(context)).await?;
        connector.call(destination).await
    };
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => {
            let error: Box<dyn StdError + Send + Sync> = error.into();
            Err(TransportError::connecting(
                &request.endpoint(),
                proxy,
                &*error,
            ))
        }
        Err(_) => Err(TransportError::connect_timeout(&request.endpoint(), limit)),
    }
}

/// Host and, where it is not the scheme's own, port.
pub(super) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
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
