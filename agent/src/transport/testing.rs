//! Small real servers for the tests of this crate: scripted bytes over TCP or TLS, and a proxy that records.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::{NamedRoots, ProxyVariable, Transport, TransportConfig};
use crate::platform::{Clock, UnixTime};

/// The wall time of tests: 2023-11-14 22:13:20 UTC.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

/// What one connection is answered with. The last one of a script is used again and again.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// Nothing, for as long as the client waits.
    Hang,
    /// These bytes, then one more every millisecond.
    Drip(&'static str),
    /// These bytes, then more and more without an end.
    Flood(&'static str),
}

/// An answer with a length.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Reply {
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    Reply::Bytes([head.as_bytes(), body.as_bytes()].concat())
}

/// A JSON answer.
pub(crate) fn json(status: u16, body: &serde_json::Value) -> Reply {
    answer(
        status,
        "content-type: application/json\r\n",
        &body.to_string(),
    )
}

/// A server that ends with its value.
#[derive(Debug)]
pub(crate) struct Server {
    scheme: &'static str,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    _accepting: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        Self::serve(script, None).await
    }

    pub(crate) async fn start_tls(
        script: impl IntoIterator<Item = Reply>,
        authority: &TestAuthority,
    ) -> Self {
        Self::serve(script, Some(authority.acceptor.clone())).await
    }

    async fn serve(script: impl IntoIterator<Item = Reply>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Vec<Reply> = script.into_iter().collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut accepting = JoinSet::new();
        let record = Arc::clone(&seen);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            let mut next = 0;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let reply = script.get(next.min(script.len() - 1)).unwrap().clone();
                next += 1;
                let (record, tls) = (Arc::clone(&record), tls.clone());
                connections.spawn(async move {
                    match tls {
                        Some(tls) => {
                            // A client that does not trust us ends the handshake.
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, reply, &record).await;
                            }
                        }
                        None => converse(stream, reply, &record).await,
                    }
                });
            }
        });
        Self {
            scheme,
            address,
            seen,
            _accepting: accepting,
        }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("{}://{}{path}", self.scheme, self.address)).unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, heads and bodies, as they came.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// The parameters in the query of each request, decoded.
    pub(crate) fn queries(&self) -> Vec<Vec<(String, String)>> {
        let query = |head: &String| {
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let url = Url::parse(&format!("http://x{target}")).unwrap();
            url.query_pairs().into_owned().collect()
        };
        self.seen().iter().map(query).collect()
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    reply: Reply,
    seen: &Mutex<Vec<String>>,
) {
    let Some(request) = read_request(&mut stream).await else {
        return;
    };
    seen.lock().unwrap().push(request);
    // Clients hang up on what they refuse to read: errors of ours say nothing.
    match reply {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Hang => {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        Reply::Drip(head) => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Reply::Flood(head) => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
    }
}

/// Reads a request's head and as much of a body as it promises.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0_usize);
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A proxy that opens every tunnel to one address and records what it was asked.
#[derive(Debug)]
pub(crate) struct ProxyServer {
    scheme: &'static str,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    _accepting: JoinSet<()>,
}

impl ProxyServer {
    /// `target` is `None` for a proxy that refuses.
    pub(crate) async fn start(target: Option<SocketAddr>) -> Self {
        Self::serve(target, None).await
    }

    /// One that is itself spoken to by TLS.
    pub(crate) async fn start_tls(target: Option<SocketAddr>, authority: &TestAuthority) -> Self {
        Self::serve(target, Some(authority.acceptor.clone())).await
    }

    async fn serve(target: Option<SocketAddr>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut accepting = JoinSet::new();
        let record = Arc::clone(&seen);
        accepting.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match &tls {
                    None => forward(stream, target, &record).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            forward(stream, target, &record).await;
                        }
                    }
                }
            }
        });
        Self {
            scheme,
            address,
            seen,
            _accepting: accepting,
        }
    }

    pub(crate) fn variable(&self) -> ProxyVariable {
        ProxyVariable {
            name: "HTTPS_PROXY",
            value: format!("{}://user:word@{}", self.scheme, self.address),
        }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    target: Option<SocketAddr>,
    seen: &Mutex<Vec<String>>,
) {
    let Some(request) = read_request(&mut stream).await else {
        return;
    };
    seen.lock().unwrap().push(request);
    let Some(target) = target else {
        let _ = stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").await;
        let _ = stream.shutdown().await;
        return;
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut onward = TcpStream::connect(target).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
}

/// An authority with one certificate, for `127.0.0.1`, `localhost` and `login.example`.
pub(crate) struct TestAuthority {
    /// Where its root lies.
    pub(crate) ca_file: PathBuf,
    acceptor: TlsAcceptor,
    _directory: tempfile::TempDir,
}

impl TestAuthority {
    /// Its root, as the configuration names it.
    pub(crate) fn roots(&self) -> NamedRoots {
        NamedRoots {
            ca_file: Some(self.ca_file.clone()),
            ..NamedRoots::default()
        }
    }

    pub(crate) fn new() -> Self {
        let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_key = rcgen::KeyPair::generate().unwrap();
        let root_certificate = root.self_signed(&root_key).unwrap();
        let names = ["127.0.0.1", "localhost", "login.example"].map(str::to_owned);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::new(root, root_key))
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, root_certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self {
            ca_file,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            _directory: directory,
        }
    }
}

/// A transport without proxy and with the system's roots.
pub(crate) fn transport() -> Transport {
    Transport::new(config())
}

pub(crate) fn config() -> TransportConfig {
    TransportConfig {
        roots: NamedRoots::default(),
        https_proxy: None,
        no_proxy: None,
        clock: Clock::with_runtime(NOW),
    }
}
