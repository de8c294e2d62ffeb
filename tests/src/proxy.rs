//! Passing a request on to a real server on loopback, and its answer back, both as streams.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::answer::Body;

/// What belongs to one connection and not to the message (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    EXPECT,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Sends `request` to `upstream` and returns what it says; 502 with the reason when it can't be asked.
///
/// Headers keep their order and their repetitions (a registry reads each `Accept` by itself), `Host` stays as it
/// was, and `X-Forwarded-Proto` says `https`, so that links in the answer lead back to the double.
pub(crate) async fn forward(upstream: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    match exchange(upstream, request).await {
        Ok(response) => response,
        Err(error) => {
            let reason = Bytes::from(format!("the server behind the double: {error}\n"));
            let body = Full::new(reason)
                .map_err(|never| match never {})
                .boxed_unsync();
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn exchange(upstream: SocketAddr, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let stream = TcpStream::connect(upstream).await?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Incoming>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(ToString::to_string);
    parts.uri = parts
        .uri
        .path_and_query()
        .map_or_else(Uri::default, |path| Uri::from(path.clone()));
    strip(&mut parts.headers);
    if !parts.headers.contains_key(HOST)
        && let Some(host) = authority.and_then(|name| HeaderValue::try_from(name).ok())
    {
        parts.headers.insert(HOST, host);
    }
    parts
        .headers
        .insert("x-forwarded-proto", HeaderValue::from_static("https"));
    let response = sender
        .send_request(Request::from_parts(parts, body))
        .await
        .map_err(io::Error::other)?;
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    Ok(Response::from_parts(
        parts,
        body.map_err(io::Error::other).boxed_unsync(),
    ))
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}
