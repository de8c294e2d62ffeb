//! The agents that are measured, and plain requests to them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that ends with this.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an agent with an identity endpoint, and waits until it answers at `socket`.
pub fn agent(socket: &Path, arguments: &[&str], variables: Vec<(String, String)>) -> Server {
    let binary = std::env::var("JOBCRED_BIN").expect("JOBCRED_BIN names the release binary");
    let agent = Command::new(binary)
        .arg("agent")
        .args(arguments)
        .env_clear()
        .envs(variables)
        .env("JOBCRED_SOCKET", socket)
        .env("JOBCRED_ENDPOINT_PORT", free_address().port().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let agent = Server(agent);
    let health = b"GET /healthz HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n";
    exchange(&mut connect(socket), health, &mut Vec::new());
    agent
}

/// An address on loopback that nobody has.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Where an agent's identity endpoint is, and what an SDK sends there.
pub fn app_service(socket: &Path) -> (SocketAddr, Vec<u8>) {
    let text = std::fs::read_to_string(socket.with_file_name("endpoint.env")).unwrap();
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.split_once(&format!("{name}=")));
        line.unwrap().1.trim_matches('\'').to_owned()
    };
    let url = value("IDENTITY_ENDPOINT");
    let (address, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let request = format!(
        "GET /{path}?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com%2F HTTP/1.1\r\n\
         host: {address}\r\nx-identity-header: {}\r\n\r\n",
        value("IDENTITY_HEADER")
    );
    (address.parse().unwrap(), request.into_bytes())
}

/// A connection to whoever listens at `path` soon.
pub fn connect(path: &Path) -> UnixStream {
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

/// Sends a request and reads its answer into `buffer`. The connection stays.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8], buffer: &mut Vec<u8>) {
    stream.write_all(request).unwrap();
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

/// The length of the head that `bytes` begin with.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}
