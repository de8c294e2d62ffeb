//! A lease, from the side of a `run` that shares the agent of another one.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use jobcred_wire::PrincipalClaims;
use serde::{Deserialize, Serialize};

use super::Decision;

/// The longest line that is read, in bytes. An agent says far less.
const MAX_LINE: usize = 256 * 1024;

/// What an agent tells those who count on it: all that its successor has to know, so that it cannot become somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The agent's process id, in its own pid namespace.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The chosen strategy's name; `none` when there is none.
    pub strategy: String,
    /// A hash of strategy and configuration, as in `status`.
    pub fingerprint: String,
    /// What was decided, once that is for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Whose tokens there have been, once one was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalClaims>,
}

/// A lease that was asked for.
#[derive(Debug)]
pub struct LeaseReader {
    stream: UnixStream,
    /// The beginning of a line that has not come to its end.
    part: Vec<u8>,
}

/// What came over a lease.
#[derive(Debug, Default)]
pub struct News {
    /// The last that the agent said.
    pub told: Option<Told>,
    /// Whether the agent is gone, or does not know of leases.
    pub ended: bool,
}

impl LeaseReader {
    /// Of a connection, which must not block, over which it was asked for.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            part: Vec::new(),
        }
    }

    /// Reads what is there, without waiting.
    pub fn read(&mut self) -> News {
        let mut news = News::default();
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => news.ended = true,
                Ok(count) => {
                    for byte in buffer.iter().take(count) {
                        if *byte == b'\n' {
                            // Heads and chunk sizes of HTTP come as lines too. None of them begins like an object.
                            let line = std::mem::take(&mut self.part);
                            if line.starts_with(b"{") {
                                news.told = serde_json::from_slice(&line).ok().or(news.told);
                            }
                        } else {
                            self.part.push(*byte);
                        }
                    }
                    if self.part.len() <= MAX_LINE {
                        continue;
                    }
                    news.ended = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => news.ended = true,
            }
            return news;
        }
    }

    /// What to wait for.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::{LeaseReader, MAX_LINE};

    fn pair() -> (UnixStream, LeaseReader) {
        let (far, near) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (far, LeaseReader::new(near))
    }

    fn line(pid: u32) -> String {
        format!(r#"{{"pid":{pid},"version":"1","strategy":"none","fingerprint":""}}"#)
    }

    #[test]
    fn lines_are_found_in_a_chunked_answer_however_it_is_cut() {
        let (mut far, mut lease) = pair();
        let text = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\n{}\n\r\n41\r\n{}\n\r\n",
            line(7),
            line(8)
        );
        let mut seen = Vec::new();
        for byte in text.as_bytes() {
            far.write_all(&[*byte]).unwrap();
            let news = lease.read();
            assert!(!news.ended);
            seen.extend(news.told.map(|told| told.pid));
        }
        assert_eq!(seen, [7, 8]);
        drop(far);
        assert!(lease.read().ended);
    }

    #[test]
    fn what_is_no_lease_ends_or_says_nothing() {
        let (mut far, mut lease) = pair();
        far.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n{\"error\":{}}\n")
            .unwrap();
        assert!(lease.read().told.is_none());
        let writer = std::thread::spawn(move || {
            let _ = far.write_all(&vec![b'x'; 2 * MAX_LINE]);
        });
        while !lease.read().ended {}
        drop(lease);
        writer.join().unwrap();
    }
}
