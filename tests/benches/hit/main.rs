//! What a cached token costs: over a kept connection and over a new one each time, as SDKs ask, against a bare hyper server that answers
//! the same bytes; and in process.
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

mod bare;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use jobcred_client::Client;
use jobcred_wire::{Target, TokenRequest};

use crate::support::{agent, app_service, connect, exchange, free_address};

const ROUNDS: usize = 21;
const REQUESTS: u32 = 2_000;
/// Of those with a connection each: all rounds together leave fewer closed ones behind than there are ports.
const NEW_CONNECTIONS: u32 = 500;
const WARM_UP: u32 = 100;
const REQUEST: &[u8] = b"GET /v1/token?resource=https%3A%2F%2Fstorage.azure.com%2F HTTP/1.1\r\n\
    host: jobcred\r\njobcred: 1\r\n\r\n";

fn main() {
    if let Ok(place) = std::env::var("JOBCRED_BENCH_BARE") {
        bare::serve(&place);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a").join("agent.sock");
    let _agent = agent(&socket, &["--sandbox"], Vec::new());
    let kept = kept(&socket, directory.path());
    let new = new(&socket, directory.path());
    let found = serde_json::json!({
        "agent_us": kept.agent,
        "bare_us": kept.bare,
        "ratio": kept.ratio,
        "dialect_agent_us": new.agent,
        "dialect_bare_us": new.bare,
        "dialect_ratio": new.ratio,
        "in_process_ns": in_process(&socket),
    });
    println!("{found}");
}

/// Medians, in microseconds.
struct Found {
    agent: f64,
    bare: f64,
    ratio: f64,
}

/// Over one connection to the agent's socket.
fn kept(socket: &Path, directory: &Path) -> Found {
    let mut agent = connect(socket);
    let mut answer = Vec::new();
    exchange(&mut agent, REQUEST, &mut answer);
    let place = directory.join("bare.sock");
    let _server = bare::start(place.to_str().unwrap(), &answer, directory);
    let mut bare = connect(&place);
    let mut same = Vec::new();
    exchange(&mut bare, REQUEST, &mut same);
    assert_same(&same, &answer);
    let mut buffer = Vec::with_capacity(8192);
    in_turns(
        REQUESTS,
        |buffer| exchange(&mut agent, REQUEST, buffer),
        |buffer| exchange(&mut bare, REQUEST, buffer),
        &mut buffer,
    )
}

/// Over a connection each to the agent's identity endpoint.
fn new(socket: &Path, directory: &Path) -> Found {
    let (address, request) = app_service(socket);
    let mut answer = Vec::new();
    ask_once(address, &request, &mut answer);
    let bare = free_address();
    let _server = bare::start(&bare.to_string(), &answer, directory);
    let start = Instant::now();
    while TcpStream::connect(bare).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "no bare server");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut same = Vec::new();
    ask_once(bare, &request, &mut same);
    assert_same(&same, &answer);
    let mut buffer = Vec::with_capacity(8192);
    in_turns(
        NEW_CONNECTIONS,
        |buffer| ask_once(address, &request, buffer),
        |buffer| ask_once(bare, &request, buffer),
        &mut buffer,
    )
}

fn in_turns(
    requests: u32,
    mut agent: impl FnMut(&mut Vec<u8>),
    mut bare: impl FnMut(&mut Vec<u8>),
    buffer: &mut Vec<u8>,
) -> Found {
    let (mut agent_times, mut bare_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let agent = measure(requests, &mut agent, buffer);
        let bare = measure(requests, &mut bare, buffer);
        ratios.push(agent / bare);
        agent_times.push(agent);
        bare_times.push(bare);
    }
    Found {
        agent: median(&mut agent_times),
        bare: median(&mut bare_times),
        ratio: median(&mut ratios),
    }
}

fn measure(requests: u32, ask: &mut impl FnMut(&mut Vec<u8>), buffer: &mut Vec<u8>) -> f64 {
    for _ in 0..WARM_UP {
        ask(buffer);
    }
    let mut times: Vec<f64> = (0..requests)
        .map(|_| {
            let start = Instant::now();
            ask(buffer);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    median(&mut times)
}

/// One request on a connection of its own, up to its end.
fn ask_once(address: SocketAddr, request: &[u8], buffer: &mut Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    buffer.clear();
    stream.read_to_end(buffer).unwrap();
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

/// Fails unless both are the same good answer, but for its time and its number.
fn assert_same(one: &[u8], other: &[u8]) {
    let lines = |answer: &[u8]| -> Vec<String> {
        let text = std::str::from_utf8(answer).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let mut lines: Vec<_> = text
            .split("\r\n")
            .filter(|line| !line.starts_with("date: "))
            .map(str::to_owned)
            .collect();
        // hyper's own headers come in another order.
        lines.sort();
        lines
    };
    assert_eq!(lines(one), lines(other));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
