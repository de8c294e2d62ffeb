//! The floor: hyper on one runtime thread, one answer, no decision.

use std::convert::Infallible;
use std::process::{Command, Stdio};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::{Server, head_end};

/// Starts one at `place`, a path or an address, that gives this `answer`.
pub fn start(place: &str, answer: &[u8], directory: &std::path::Path) -> Server {
    let file = directory.join(if place.starts_with('/') {
        "kept"
    } else {
        "closed"
    });
    std::fs::write(&file, answer).unwrap();
    let server = Command::new(std::env::current_exe().unwrap())
        .env("JOBCRED_BENCH_BARE", place)
        .env("JOBCRED_BENCH_ANSWER", file)
        .stdin(Stdio::null())
        .spawn();
    Server(server.unwrap())
}

/// Is one. Over TCP it closes after each answer, as the agent does.
pub fn serve(place: &str) {
    let answer = std::fs::read(std::env::var("JOBCRED_BENCH_ANSWER").unwrap()).unwrap();
    let end = head_end(&answer).unwrap();
    // Leaked, so that its values are as static as those of a server that knows them beforehand.
    let head: &'static str = String::from_utf8(answer[..end].to_vec()).unwrap().leak();
    let headers: &'static [_] = own_headers(head).leak();
    let body = Bytes::from(answer).slice(end..);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async move {
            if place.starts_with('/') {
                let listener = tokio::net::UnixListener::bind(place).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(answer_on(stream, headers, body.clone(), true));
                }
            }
            let listener = tokio::net::TcpListener::bind(place).await.unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer_on(stream, headers, body.clone(), false));
            }
        });
}

async fn answer_on(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    headers: &'static [(HeaderName, HeaderValue)],
    body: Bytes,
    is_kept: bool,
) {
    let service = service_fn(move |_| {
        let mut response = Response::new(Full::new(body.clone()));
        for (name, value) in headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let _ = http1::Builder::new()
        .keep_alive(is_kept)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The headers of an answer that hyper does not add by itself.
fn own_headers(head: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !["connection", "content-length", "date"].contains(name))
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}
