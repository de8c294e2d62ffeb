//! A question to the agent that never keeps this process waiting: no runtime, no thread, one descriptor to poll.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use jobcred_wire::{HOST, MAX_ANSWER_BYTES, REQUEST_HEADER};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};
use nix::unistd::geteuid;
use tokio::time::Instant;

/// A question that has been asked, and what of the answer has come.
#[derive(Debug)]
pub(super) struct Question {
    stream: UnixStream,
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Question {
    /// Asks the socket `path` for `what`, a method and a target. Waits for nothing: a queue that is full is an error like a missing
    /// socket.
    pub(super) fn ask(path: &Path, what: &str) -> io::Result<Self> {
        let descriptor = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let address = UnixAddr::new(path)?;
        connect(std::os::fd::AsRawFd::as_raw_fd(&descriptor), &address)?;
        let peer = getsockopt(&descriptor, sockopt::PeerCredentials)?;
        if peer.uid() != geteuid().as_raw() && peer.uid() != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut stream = UnixStream::from(descriptor);
        // Far less than an empty socket takes at once. At one go: who reads a part may answer that, and hang up.
        let request = format!(
            "{what} HTTP/1.1\r\nHost: {HOST}\r\n{REQUEST_HEADER}: 1\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// Takes in what has come. `None` while there is more to come.
    pub(super) fn answer(&mut self) -> io::Result<Option<Answer>> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return parse(&self.read).map(Some),
                Ok(count) => self
                    .read
                    .extend_from_slice(piece.get(..count).unwrap_or(&[])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.read.len() > MAX_ANSWER_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

impl AsFd for Question {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Asks and waits for the answer, for `limit` at most.
pub(super) fn ask_within(path: &Path, what: &str, limit: Duration) -> io::Result<Answer> {
    let start = Instant::now();
    let mut question = Question::ask(path, what)?;
    loop {
        if let Some(answer) = question.answer()? {
            return Ok(answer);
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut descriptors = [PollFd::new(question.as_fd(), PollFlags::POLLIN)];
        // At least a millisecond, or the last fraction of one would be spent spinning.
        let wait = u16::try_from(left.as_millis()).unwrap_or(u16::MAX).max(1);
        poll(&mut descriptors, PollTimeout::from(wait))?;
    }
}

/// Reads an answer of the agent, which closes after it.
fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = end
        .and_then(|end| Some((bytes.get(..end)?, bytes.get(end + 4..)?)))
        // An agent that died, most likely.
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer {
        status,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::thread::JoinHandle;
    use std::time::Duration;

    use super::{Question, ask_within, parse};

    const LONG: Duration = Duration::from_secs(30);

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        (directory, path)
    }

    /// Answers one connection with `answer`; the request it got.
    fn answering(path: &PathBuf, answer: &'static [u8]) -> JoinHandle<String> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        })
    }

    #[test]
    fn a_question_is_asked_and_answered() {
        let (_directory, path) = place();
        let agent = answering(&path, b"HTTP/1.1 503 X\r\na: b\r\n\r\nbody");
        let answer = ask_within(&path, "GET /readyz?wait=3", LONG).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (503, &b"body"[..]));
        let request = agent.join().unwrap();
        assert!(
            request.starts_with("GET /readyz?wait=3 HTTP/1.1\r\n"),
            "{request}"
        );
    }

    #[test]
    fn who_never_answers_is_not_waited_for() {
        let (_directory, path) = place();
        assert!(ask_within(&path, "GET /", LONG).is_err());
        let listener = UnixListener::bind(&path).unwrap();
        let error = ask_within(&path, "GET /", Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The queue fills up, and that is told at once.
        let held: Vec<_> = std::iter::from_fn(|| Question::ask(&path, "GET /").ok()).collect();
        assert!(!held.is_empty());
        assert!(ask_within(&path, "GET /", LONG).is_err());
        drop(listener);
    }

    #[test]
    fn half_an_answer_is_none() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 2\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
        ] {
            assert!(parse(bytes).is_err());
        }
        let answer = parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
}
