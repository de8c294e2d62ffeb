//! The way to a host: TCP, the proxy where there is one, TLS.

use std::error::Error as StdError;
use std::future::{Ready, poll_fn, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::Transport;
use super::error::TransportError;
use super::exchange::root;
use super::request::Request;

/// A connection, whatever it goes through.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The same, as one type.
pub(super) type Stream = Box<dyn Duplex>;

type BoxError = Box<dyn StdError + Send + Sync>;

impl Transport {
    /// Opens a connection to the request's host, or a tunnel to it through the proxy.
    pub(super) async fn open(&self, request: &Request) -> Result<Stream, TransportError> {
        let endpoint = request.endpoint();
        let destination = root(request.url()).ok_or_else(|| TransportError::bad_url(&endpoint))?;
        let Some(hop) = self.proxy.for_request(request)? else {
            return tcp(destination)
                .await
                .map_err(|error| TransportError::connecting(&endpoint, None, &*error));
        };
        let name = hop.uri.to_string();
        let no_tunnel =
            |error: &BoxError| TransportError::connecting(&endpoint, Some(&name), &**error);
        let mut stream = tcp(hop.uri.clone())
            .await
            .map_err(|error| no_tunnel(&error))?;
        if hop.uri.scheme_str() == Some("https") {
            let config = self.tls.config().await?;
            stream = tls(stream, &hop.host, config)
                .await
                .map_err(|error| no_tunnel(&error.into()))?;
        }
        let mut tunnel = Tunnel::new(hop.uri.clone(), Opened(Some(stream)));
        if let Some(value) = &hop.authorization {
            tunnel = tunnel.with_auth(value.clone());
        }
        let stream = tunnel
            .call(destination)
            .await
            .map_err(|error| no_tunnel(&error.into()))?;
        Ok(Box::new(stream.into_inner()))
    }
}

async fn tcp(destination: Uri) -> Result<Stream, BoxError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    poll_fn(|context| connector.poll_ready(context)).await?;
    Ok(Box::new(connector.call(destination).await?.into_inner()))
}

/// TLS with `host`, which may be an IPv6 address in brackets.
pub(super) async fn tls(
    stream: Stream,
    host: &str,
    config: Arc<ClientConfig>,
) -> io::Result<Stream> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// Why the proxy opens no tunnel. hyper-util gives this type no name of its own.
pub(super) type TunnelError = <Tunnel<Opened> as Service<Uri>>::Error;

/// A connector whose connection is open already.
pub(super) struct Opened(Option<Stream>);

impl Service<Uri> for Opened {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        ready(stream.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
