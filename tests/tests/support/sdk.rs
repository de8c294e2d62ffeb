//! What SDKs send to an identity endpoint, in plain bytes.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;

use url::Url;

use super::HUNG;
use super::http::Answer;
use super::world::World;

/// A request that is being put together.
#[derive(Clone)]
pub struct SdkRequest {
    pub method: &'static str,
    pub url: Url,
    pub headers: Vec<(String, String)>,
}

impl SdkRequest {
    /// A `GET` with the `Host` that belongs to it.
    #[track_caller]
    pub fn get(url: &str) -> Self {
        let url = Url::parse(url).unwrap_or_else(|error| panic!("{error}: {url:?}"));
        let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        Self {
            method: "GET",
            url,
            headers: vec![("host".to_owned(), host)],
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// Takes the place of the query, as it is.
    pub fn query(mut self, query: &str) -> Self {
        self.url.set_query(Some(query));
        self
    }

    pub fn path(mut self, path: &str) -> Self {
        self.url.set_path(path);
        self
    }

    /// Sends it on a connection of its own, and reads until that is closed.
    #[track_caller]
    pub fn send(&self) -> Answer {
        self.try_send().unwrap()
    }

    pub fn try_send(&self) -> io::Result<Answer> {
        let (_, read) = exchange(&self.url, self.text().as_bytes(), false)?;
        read_answer(read)
    }

    /// What goes over the connection.
    pub fn text(&self) -> String {
        let query = self.url.query().map(|query| format!("?{query}"));
        let target = format!("{}{}", self.url.path(), query.unwrap_or_default());
        let mut text = format!("{} {target} HTTP/1.1\r\n", self.method);
        for (name, value) in &self.headers {
            text.extend([name.as_str(), ": ", value.as_str(), "\r\n"]);
        }
        text.push_str("\r\n");
        text
    }
}

/// The status that a user gets who has these variables alone, and what is said beside a refusal. Needs root.
#[track_caller]
pub fn ask_as(world: &World, uid: &str, variables: &[(String, String)]) -> String {
    let script = r#"import http.client, os, urllib.parse
url = urllib.parse.urlsplit(os.environ["IDENTITY_ENDPOINT"])
connection = http.client.HTTPConnection(url.hostname, url.port)
query = "?api-version=2019-08-01&resource=https://storage.azure.com"
connection.request("GET", url.path + query, headers={"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]})
answer = connection.getresponse()
print(answer.status, answer.read().decode() if answer.status != 200 else "")"#;
    let user = ["--reuid", uid, "--regid", uid, "--clear-groups"];
    let program = ["python3", "-c", script];
    let mut call = world.call(
        Path::new("/usr/bin/setpriv"),
        &[&user[..], &program].concat(),
    );
    for (name, value) in variables {
        if name.starts_with("IDENTITY_") {
            call = call.env(name, value);
        }
    }
    call.run().succeeded().stdout
}

/// Sends these bytes, and nothing more with `is_all`, and reads until the connection is closed: where it came from, and what was read.
pub fn exchange(url: &Url, bytes: &[u8], is_all: bool) -> io::Result<(SocketAddr, Vec<u8>)> {
    let mut stream = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap()))?;
    stream.set_read_timeout(Some(HUNG))?;
    let own = stream.local_addr()?;
    // An agent that has read enough may close before all of it is sent.
    let is_closed = |error: &io::Error| {
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        kinds.contains(&error.kind())
    };
    match stream.write_all(bytes) {
        Err(error) if !is_closed(&error) => return Err(error),
        _ => {}
    }
    if is_all {
        stream.shutdown(Shutdown::Write)?;
    }
    let mut read = Vec::new();
    match stream.read_to_end(&mut read) {
        Err(error) if !is_closed(&error) => Err(error),
        _ => Ok((own, read)),
    }
}

/// The one answer that these bytes are.
pub fn read_answer(bytes: Vec<u8>) -> io::Result<Answer> {
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    Ok(Answer {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    })
}
