//! What a cached token costs: over a kept connection against a bare hyper server that answers the same bytes, and in process.
//!
//! Everything is pinned to one CPU (`taskset -c 0`, see `tests/bench`), and the two servers are measured in turns, so the ratio
//! holds on a noisy machine although the absolute times do not.
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
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jobcred_client::Client;
use jobcred_wire::{Target, TokenRequest};

const ROUNDS: usize = 21;
const REQUESTS: usize = 2_000;
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
    let answer = ask(&mut agent, &mut Vec::new());
    let body = answer.split_off_body();
    std::fs::write(dir.path().join("body"), &body).unwrap();
    let _bare = Server(
        Command::new(std::env::current_exe().unwrap())
            .env("JOBCRED_BENCH_BARE", &bare_socket)
            .env("JOBCRED_BENCH_BODY", dir.path().join("body"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut bare = connect(&bare_socket);
    let mut buffer = Vec::new();
    let bare_body = ask(&mut bare, &mut buffer).split_off_body();
    assert_eq!(
        bare_body, body,
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
    report("bare hyper, kept connection", median(&mut bare_times), "us");
    report(
        "cached token, kept connection",
        median(&mut agent_times),
        "us",
    );
    report("ratio (limit 1.25)", median(&mut ratios), "x");
    in_process(&agent_socket);
}

/// A hit in the client's own cache.
fn in_process(socket: &Path) {
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
            start.elapsed().as_secs_f64() * 1e9 / REQUESTS as f64
        })
        .collect();
    report(
        "in-process hit, Rust (limit 1000)",
        median(&mut times),
        "ns",
    );
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Answer(Vec<u8>);

impl Answer {
    fn split_off_body(&self) -> Vec<u8> {
        let end = head_end(&self.0).unwrap();
        self.0[end..].to_vec()
    }
}

fn connect(path: &PathBuf) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(
                start.elapsed() < Duration::from_secs(10),
                "{path:?}: {error}"
            ),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn measure(stream: &mut UnixStream) -> f64 {
    let mut buffer = Vec::with_capacity(8192);
    for _ in 0..100 {
        ask(stream, &mut buffer);
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

fn ask(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Answer {
    exchange(stream, buffer);
    assert!(
        buffer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(buffer)
    );
    Answer(buffer.clone())
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

fn report(what: &str, value: f64, unit: &str) {
    println!("{what:<46} {value:>10.2} {unit}");
}

/// The floor: hyper on one runtime thread, one body, no decision.
fn bare_server(path: &Path) {
    let body = Bytes::from(std::fs::read(std::env::var("JOBCRED_BENCH_BODY").unwrap()).unwrap());
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
                        let headers = response.headers_mut();
                        headers
                            .insert("content-type", HeaderValue::from_static("application/json"));
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
}
