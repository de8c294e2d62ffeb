//! An agent for tests: a real Unix socket, answers by a closure, every request on record.
//!
//! Written from `docs/protocol.md`, not from the client.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What the double does with one request.
pub enum Act {
    /// Sends these bytes and waits for the next request.
    Send(Vec<u8>),
    /// Sends these bytes and closes.
    SendAndClose(Vec<u8>),
    /// Sends the first bytes, then the others over and over until the client goes away.
    Endless(Vec<u8>, Vec<u8>),
    /// Says nothing until the client goes away.
    Hang,
}

/// A running double. It ends, with all its connections, when it is dropped.
pub struct AgentDouble {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    is_over: AtomicBool,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    streams: Mutex<Vec<UnixStream>>,
}

impl AgentDouble {
    /// Listens at `path`, where a dead socket may lie. `act` gets the request line (`GET /v1/status`) and the number of
    /// requests before it.
    pub fn start(path: &Path, act: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            is_over: AtomicBool::new(false),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let act = Arc::new(act);
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut servers = Vec::new();
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    if shared.is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    shared
                        .streams
                        .lock()
                        .unwrap()
                        .push(stream.try_clone().unwrap());
                    let (shared, act) = (Arc::clone(&shared), Arc::clone(&act));
                    servers.push(thread::spawn(move || serve(&shared, stream, &*act)));
                }
                for server in servers {
                    server.join().unwrap();
                }
            }
        });
        Self {
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The request lines so far, without the version.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for AgentDouble {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(UnixStream::connect(&self.shared.path));
        for stream in self.shared.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let result = self.acceptor.take().unwrap().join();
        if !thread::panicking() {
            result.unwrap();
        }
    }
}

fn serve(shared: &Shared, mut stream: UnixStream, act: &dyn Fn(&str, usize) -> Act) {
    while let Some(line) = read_request(&mut stream) {
        let number = {
            let mut requests = shared.requests.lock().unwrap();
            requests.push(line.clone());
            requests.len() - 1
        };
        match act(&line, number) {
            Act::Send(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::SendAndClose(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Act::Endless(head, piece) => {
                let _ = stream.write_all(&head);
                while stream.write_all(&piece).is_ok() {}
                return;
            }
            Act::Hang => {
                let _ = stream.read(&mut [0; 1]);
                return;
            }
        }
    }
}

/// One request: its line without the version. The client sends no body.
fn read_request(stream: &mut UnixStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next().unwrap().strip_suffix(" HTTP/1.1").unwrap();
    let headers: Vec<String> = lines.map(str::to_ascii_lowercase).collect();
    for header in ["host: jobcred", "jobcred: 1"] {
        assert!(
            headers.iter().any(|line| line == header),
            "{header}: {text}"
        );
    }
    Some(line.to_owned())
}

/// A JSON answer with the given status.
pub fn json(status: u16, body: &str) -> Act {
    Act::Send(json_bytes(status, body))
}

pub fn json_bytes(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Any\r\ncontent-type: application/json\r\nx-request-id: r1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A token answer.
pub fn token(text: &str, refresh_on: i64, expires_on: i64) -> Act {
    json(200, &token_json(text, refresh_on, expires_on))
}

pub fn token_json(text: &str, refresh_on: i64, expires_on: i64) -> String {
    format!(
        r#"{{"access_token":"{text}","token_type":"Bearer","expires_on":{expires_on},"refresh_on":{refresh_on},"resource":"r","new_field":[1]}}"#
    )
}

/// An error answer.
pub fn error(status: u16, code: &str) -> Act {
    json(
        status,
        &format!(
            r#"{{"error":{{"code":"{code}","message":"it is {code}","hint":"look there","retry_after":3,"request_id":"r1"}}}}"#
        ),
    )
}
