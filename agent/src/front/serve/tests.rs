//! The limits of a connection, on in-memory streams and a paused clock; the number of connections, on a real socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::handed::Handed;
use super::super::reply::Reply;
use super::{
    ConnectionLimits, DRAIN_TIMEOUT, ForeignCount, HEADER_TIMEOUT, Handle, MAX_HEADERS, serve,
    serve_connection,
};
use crate::peer::Peer;

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: jobcred\r\n\r\n";

/// Says who asks, after the time the path names in seconds.
struct Echo;

impl Handle for Echo {
    async fn handle(&self, peer: Peer, request: Request<Incoming>) -> Reply {
        if let Ok(seconds) = request.uri().path()[1..].parse() {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        Response::new(Either::Left(Full::new(Bytes::from(peer.uid.to_string()))))
    }
}

struct Connection {
    stream: DuplexStream,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

fn connect() -> Connection {
    let (stream, far) = duplex(256 * 1024);
    let (stop, stopped) = watch::channel(false);
    let peer = Peer {
        uid: 77,
        gid: 77,
        pid: None,
    };
    Connection {
        stream,
        stop,
        server: tokio::spawn(serve_connection(
            far,
            peer,
            Handed::default(),
            Arc::new(Echo),
            stopped,
        )),
    }
}

async fn all(stream: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_and_slow_headers_end_after_the_same_time() {
    for sent in [
        &b""[..],
        b"GET / HT",
        b"GET / HTTP/1.1\r\nhost: jobcred\r\n",
    ] {
        let mut connection = connect();
        let start = Instant::now();
        connection.stream.write_all(sent).await.unwrap();
        all(&mut connection.stream).await;
        assert_eq!(
            start.elapsed().as_secs(),
            HEADER_TIMEOUT.as_secs(),
            "{sent:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_ends_when_it_stays_idle() {
    let mut connection = connect();
    for _ in 0..3 {
        connection.stream.write_all(ASK).await.unwrap();
        let mut answer = [0; 1024];
        let read = connection.stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        tokio::time::sleep(HEADER_TIMEOUT / 2).await;
    }
    let start = Instant::now();
    assert_eq!(all(&mut connection.stream).await, "");
    assert!(start.elapsed() <= HEADER_TIMEOUT);
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    let many = format!(
        "GET / HTTP/1.1\r\n{}\r\n",
        "x: y\r\n".repeat(MAX_HEADERS + 1)
    );
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(70_000));
    for (sent, status) in [
        (
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
            "400",
        ),
        (b"hello\r\n\r\n", "400"),
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (many.as_bytes(), "431"),
        (long.as_bytes(), "431"),
        (target.as_bytes(), "414"),
    ] {
        let mut connection = connect();
        connection.stream.write_all(sent).await.unwrap();
        let answer = all(&mut connection.stream).await;
        let line = answer.lines().next().unwrap_or_default();
        let shown = String::from_utf8_lossy(&sent[..sent.len().min(20)]).into_owned();
        // A request line beyond the buffer is refused before its end is seen, as too long a head.
        assert!(
            line.contains(status) || (status == "414" && line.contains("431")),
            "{shown:?}: {line}"
        );
        connection.server.await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_waited_for() {
    let mut connection = connect();
    connection
        .stream
        .write_all(b"GET / HTTP/1.1\r\nhost: jobcred\r\ncontent-length: 1000000\r\n\r\nabc")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    let read = connection.stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    // The rest of it cannot be told from a request, so the connection is not kept.
    assert_eq!(all(&mut connection.stream).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_answered_when_the_agent_ends() {
    let mut connection = connect();
    connection
        .stream
        .write_all(b"GET /3 HTTP/1.1\r\nhost: jobcred\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    connection.stop.send(true).unwrap();
    let answer = all(&mut connection.stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("77"),
        "{answer}"
    );
    connection.server.await.unwrap();
}

#[tokio::test]
async fn a_full_house_leaves_callers_in_the_queue_and_a_place_that_is_left_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (stop, stopped) = watch::channel(false);
    let limits = ConnectionLimits {
        total: 2,
        per_foreign_uid: 1,
        ..ConnectionLimits::default()
    };
    let own_uid = nix::unistd::geteuid().as_raw();
    let server = tokio::spawn(async move {
        serve(&listener, own_uid, limits, Arc::new(Echo), stopped).await;
    });
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        ask(&mut stream).await;
        kept.push(stream);
    }
    let mut third = UnixStream::connect(&path).await.unwrap();
    third.write_all(ASK).await.unwrap();
    let mut answer = [0; 1024];
    // Nothing can come while the house is full; the bound only says that we have looked.
    let early = tokio::time::timeout(Duration::from_millis(50), third.read(&mut answer)).await;
    assert!(early.is_err());
    drop(kept.pop());
    let read = third.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    stop.send(true).unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn too_many_connections_of_a_foreign_uid_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let limits = ConnectionLimits {
        total: 10,
        per_foreign_uid: 1,
        ..ConnectionLimits::default()
    };
    // Seen from an agent of another uid, this process is the foreign one.
    let own_uid = nix::unistd::geteuid().as_raw() + 1;
    tokio::spawn(async move {
        serve(&listener, own_uid, limits, Arc::new(Echo), stopped).await;
    });
    let mut first = UnixStream::connect(&path).await.unwrap();
    ask(&mut first).await;
    let mut second = UnixStream::connect(&path).await.unwrap();
    let mut answer = [0; 16];
    assert!(matches!(second.read(&mut answer).await, Ok(0) | Err(_)));
    ask(&mut first).await;
}

#[test]
fn a_place_is_given_back() {
    let count = Arc::new(ForeignCount::default());
    let guard = count.enter(5, 1);
    assert!(guard.is_some() && count.enter(5, 1).is_none() && count.enter(6, 1).is_some());
    drop(guard);
    assert!(count.enter(5, 1).is_some());
}

#[test]
fn draining_is_shorter_than_any_grace() {
    assert!(DRAIN_TIMEOUT < crate::config::Config::default().grace);
}

async fn ask(stream: &mut UnixStream) {
    stream.write_all(ASK).await.unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
}
