//! Requests to the agent's socket in plain bytes, so that nothing between a test and the agent makes them better.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::HUNG;
use super::scan::Watch;

/// An answer of the agent.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}: {:?}", self.status, self.body))
    }

    /// `error.code`.
    #[track_caller]
    pub fn code(&self) -> String {
        self.error("code")
    }

    /// A text of the error, say `message` or `hint`; empty when there is none.
    #[track_caller]
    pub fn error(&self, field: &str) -> String {
        let json = self.json();
        assert!(json["error"].is_object(), "no error: {}", self.status);
        json["error"][field].as_str().unwrap_or_default().to_owned()
    }

    /// The token of a good answer.
    #[track_caller]
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A connection to the agent that is kept.
pub struct Connection {
    stream: UnixStream,
    watch: Watch,
    read: Vec<u8>,
}

impl Connection {
    pub fn open(socket: &Path, watch: &Watch) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(HUNG))?;
        stream.set_write_timeout(Some(HUNG))?;
        Ok(Self {
            stream,
            watch: watch.clone(),
            read: Vec::new(),
        })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// One request and its answer. An answer that is no token is searched for secrets.
    pub fn ask(&mut self, method: &str, target: &str) -> io::Result<Answer> {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n");
        self.send(head.as_bytes())?;
        let answer = self.answer()?;
        let declared = ["/v1/token", "/v1/registry"]
            .iter()
            .any(|path| target.starts_with(path));
        if !(declared && answer.status == 200) {
            let what = format!("the answer to {method} {target:.60}");
            self.watch.check(&what, answer.body.as_bytes());
        }
        self.watch.check(
            "the headers of an answer",
            format!("{:?}", answer.headers).as_bytes(),
        );
        Ok(answer)
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let head_end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.read[..head_end]).into_owned();
        self.read.drain(..head_end + 4);
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no status line: {head}")))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map_or(0, |(_, value)| value.parse().unwrap());
        while self.read.len() < length {
            self.fill()?;
        }
        let body: Vec<u8> = self.read.drain(..length).collect();
        Ok(Answer {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        })
    }

    /// Sends nothing more.
    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Everything until the agent closes the connection.
    pub fn rest(mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(self.read),
                // Closed with bytes of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(self.read);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
