//! A blocking client on bare sockets: what it sends is what is written here.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use url::Url;

use crate::TestCa;

/// Long enough for any answer that is going to come; a test that waits for it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// GETs `url` with these headers.
pub(super) fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    parse(&send(url, None, "GET", headers, "").unwrap())
}

/// The same over TLS, trusting `ca` alone.
pub(super) fn get_tls(ca: &TestCa, url: &str, headers: &[(&str, &str)]) -> Answer {
    parse(&send(url, Some(ca), "GET", headers, "").unwrap())
}

/// POSTs a form over TLS.
pub(super) fn post_tls(ca: &TestCa, url: &str, form: &[(&str, &str)]) -> Answer {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    parse(&send(url, Some(ca), "POST", &headers, &body).unwrap())
}

/// Everything that comes back until the server closes.
pub(super) fn send(
    url: &str,
    ca: Option<&TestCa>,
    method: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Vec<u8>> {
    let url = Url::parse(url).unwrap();
    let host = url.host_str().unwrap().to_owned();
    let port = url.port().unwrap();
    let path = &url[url::Position::BeforePath..];
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
    let stream = TcpStream::connect((host.as_str(), port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match ca {
        None => converse(stream, &request),
        Some(ca) => converse(tls(stream, ca, &host), &request),
    }
}

fn converse(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // TLS without a goodbye: the double broke off, and what came before it counts.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(bytes),
        done => done.map(|_| bytes),
    }
}

fn tls(stream: TcpStream, ca: &TestCa, host: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = host.to_owned().try_into().unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        stream,
    )
}

pub(super) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    }
}
