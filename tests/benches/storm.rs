//! A job's first moment: 10,000 requests for one token over 256 connections at once, of an agent that has none, with the double of Azure
//! ML's endpoint behind it. Over the agent's socket, and as SDKs ask, with a connection for each request.
//!
//! Run by `tests/bench`, in a namespace without a way out. Prints one line of JSON.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark measures time, prints, and may fail loudly"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jobcred_tests::{AzureMl, AzureMlOptions, require_isolation};

use crate::support::{agent, app_service, exchange};

const REQUESTS: usize = 10_000;
const CONNECTIONS: usize = 256;
const REQUEST: &[u8] = b"GET /v1/token?resource=https%3A%2F%2Fstorage.azure.com%2F HTTP/1.1\r\n\
    host: jobcred\r\njobcred: 1\r\n\r\n";

fn main() {
    require_isolation();
    let socket = storm(|socket, requests| {
        let mut stream = UnixStream::connect(socket).unwrap();
        let mut buffer = Vec::new();
        let asked = requests.map(|()| {
            exchange(&mut stream, REQUEST, &mut buffer);
            is_good(&buffer)
        });
        asked.filter(|is_good| *is_good).count()
    });
    let endpoint = storm(|socket, requests| {
        let (address, request) = app_service(socket);
        let mut buffer = Vec::new();
        let asked = requests.map(|()| {
            buffer.clear();
            let asked = TcpStream::connect(address).and_then(|mut stream| {
                stream.write_all(&request)?;
                stream.read_to_end(&mut buffer)
            });
            asked.is_ok() && is_good(&buffer)
        });
        asked.filter(|is_good| *is_good).count()
    });
    println!(
        "{}",
        serde_json::json!({"socket": socket, "endpoint": endpoint})
    );
}

fn is_good(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200")
}

/// Lets every connection's `asking` take requests until there are none left; it says how many were answered with a token.
fn storm(
    asking: impl Fn(&Path, &mut dyn Iterator<Item = ()>) -> usize + Sync,
) -> serde_json::Value {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a").join("agent.sock");
    let _agent = agent(&socket, &[], aml.environment());
    let (next, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Barrier::new(CONNECTIONS + 1);
    let seconds = std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                begin.wait();
                let mut requests = std::iter::from_fn(|| {
                    (next.fetch_add(1, Ordering::Relaxed) < REQUESTS).then_some(())
                });
                good.fetch_add(asking(&socket, &mut requests), Ordering::Relaxed);
            });
        }
        begin.wait();
        Instant::now()
    })
    .elapsed()
    .as_secs_f64();
    serde_json::json!({
        "seconds": seconds,
        "failed": REQUESTS - good.into_inner(),
        "upstream": aml.requests().len(),
    })
}
