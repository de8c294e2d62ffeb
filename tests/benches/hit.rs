//! What a cached token costs: over a kept connection against a bare hyper server that answers the same bytes, and in process.
//!
//! `tests/bench` pins everything to one CPU. The two servers are measured in turns, so the ratio holds on a noisy machine
//! although the absolute times do not. Prints one line of JSON.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark measures time, prints, and may fail loudly"
)]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jobcred_client::Client;
use jobcred_wire::{Target, TokenRequest};

const ROUNDS: usize = 21;
const REQUESTS: u32 = 2_000;
const REQUEST: &[u8] =
    b"GET /v1/token?resource=https%3A%2F%2Fstorage.azure.com%2F HTTP/1.1\r\nhost: jobcred\r\n\r\n";

fn main() {
    if let Ok(path) = std::env::var("JOBCRED_BENCH_BARE") {
        bare_server(Path::new(&path));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let agent_socket = dir.path().join("a").join("agent.sock");
    let bare_socket = dir.path().join("bare.sock");
    let binary = std::env::var("JOBCRED_BIN").expect("JOBCRED_BIN names the release binary");
    let _agent = Server(
        Command::new(binary)
            .args(["agent", "--sandbox"])
            .env("JOBCRED_SOCKET", &agent_socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut agent = connect(&agent_socket);
    let answer = ask(&mut agent);
    std::fs::write(dir.path().join("answer"), &answer).unwrap();
    let _bare = Server(
        Command::new(std::env::current_exe().unwrap())
            .env("JOBCRED_BENCH_BARE", &bare_socket)
            .env("JOBCRED_BENCH_ANSWER", dir.path().join("answer"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut bare = connect(&bare_socket);
    let bare_answer = ask(&mut bare);
    assert_eq!(
        without_date(&bare_answer),
        without_date(&answer),
        "the two servers must answer the same bytes"
    );

    let mut ratios = Vec::new();
    let mut agent_times = Vec::new();
    let mut bare_times = Vec::new();
    for _ in 0..ROUNDS {
        let agent_time = measure(&mut agent);
        let bare_time = measure(&mut bare);
        ratios.push(agent_time / bare_time);
        agent_times.push(agent_time);
        bare_times.push(bare_time);
    }
    let found = serde_json::json!({
        "agent_us": median(&mut agent_times),
        "bare_us": median(&mut bare_times),
        "ratio": median(&mut ratios),
        "in_process_ns": in_process(&agent_socket),
    });
    println!("{found}");
}

/// Nanoseconds of a hit in the client's own cache.
fn in_process(socket: &Path) -> f64 {
    let client = Client::builder().socket(socket).build();
    let request = TokenRequest::new(Target::Scope(
        "https://storage.azure.com/.default".to_owned(),
    ));
    client.token(&request).unwrap();
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REQUESTS {
                std::hint::black_box(client.token(std::hint::black_box(&request)).unwrap());
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS)
        })
        .collect();
    median(&mut times)
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(path: &PathBuf) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(
                start.elapsed() < Duration::from_secs(10),
                "{}: {error}",
                path.display()
            ),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn measure(stream: &mut UnixStream) -> f64 {
    let mut buffer = Vec::with_capacity(8192);
    for _ in 0..100 {
        exchange(stream, &mut buffer);
    }
    let mut times: Vec<f64> = (0..REQUESTS)
        .map(|_| {
            let start = Instant::now();
            exchange(stream, &mut buffer);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    median(&mut times)
}

fn ask(stream: &mut UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    exchange(stream, &mut answer);
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    answer
}

/// The lines of an answer but for the one that may differ by a second.
fn without_date(answer: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(answer).unwrap();
    text.split("\r\n")
        .filter(|line| !line.starts_with("date: "))
        .collect()
}

fn exchange(stream: &mut UnixStream, buffer: &mut Vec<u8>) {
    stream.write_all(REQUEST).unwrap();
    buffer.clear();
    let mut chunk = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the server closed the connection");
        buffer.extend_from_slice(&chunk[..read]);
        if let Some(end) = head_end(buffer) {
            let head = std::str::from_utf8(&buffer[..end]).unwrap();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap()
                .parse()
                .unwrap();
            if buffer.len() >= end + length {
                return;
            }
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The floor: hyper on one runtime thread, one answer, no decision.
fn bare_server(path: &Path) {
    let answer = std::fs::read(std::env::var("JOBCRED_BENCH_ANSWER").unwrap()).unwrap();
    let end = head_end(&answer).unwrap();
    // Leaked, so that its values are as static as those of a server that knows them beforehand.
    let head: &'static str = String::from_utf8(answer[..end].to_vec()).unwrap().leak();
    let headers: &'static [_] = own_headers(head).leak();
    let body = Bytes::from(answer).slice(end..);
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let body = body.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |_| {
                        let mut response = Response::new(Full::new(body.clone()));
                        for (name, value) in headers {
                            response.headers_mut().insert(name.clone(), value.clone());
                        }
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
}

/// The headers of an answer that hyper does not add by itself.
fn own_headers(head: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !["content-length", "date"].contains(name))
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}
