//! Connections to the agent for threads: find it, check whose it is, send one request at a time.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::Error;
use crate::error::Attempt;
use crate::http::{Answer, AnswerReader};
use crate::owner::listener_uid;
use crate::platform;
use crate::settings::Settings;

/// The connections of the blocking client.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Idle<UnixStream>>,
}

/// Connections at rest, newest last. They belong to the process that opened them.
#[derive(Debug)]
pub(crate) struct Idle<C> {
    pid: u32,
    connections: Vec<C>,
    /// What a forked child does with its parent's connections.
    disown: fn(C),
}

/// Why an exchange on a connection did not end in an answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other end was gone before any byte of an answer: on a kept connection a reason to try on a new one, since it
    /// may have been closed while it was idle.
    Gone(io::Error),
    /// Anything else; trying again would not help, or not be safe.
    Failed(Error),
}

impl<C> Idle<C> {
    pub(crate) fn new(disown: fn(C)) -> Self {
        Self {
            pid: 0,
            connections: Vec::new(),
            disown,
        }
    }

    /// A connection of this process. Those that another process opened before a fork are let go: both would write into
    /// one stream.
    pub(crate) fn take(&mut self, pid: u32) -> Option<C> {
        self.own(pid);
        self.connections.pop()
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&mut self, pid: u32, connection: C) {
        self.own(pid);
        if self.connections.len() < MAX_IDLE {
            self.connections.push(connection);
        }
    }

    /// One kept connection was dead, so its siblings most likely are too.
    pub(crate) fn clear(&mut self) {
        self.connections.clear();
    }

    fn own(&mut self, pid: u32) {
        if self.pid != pid {
            self.connections.drain(..).for_each(self.disown);
            self.pid = pid;
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            // Closes the child's copy; the parent's connection lives on.
            idle: Mutex::new(Idle::new(drop)),
        }
    }
}

impl Pool {
    /// Sends a request and reads its answer, on a kept connection or a new one, all before `deadline`.
    pub(crate) fn exchange(
        &self,
        settings: &Settings,
        request: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let pid = platform::own_pid();
        let kept = self.with(|idle| idle.take(pid));
        if let Some(stream) = kept {
            match converse(&stream, request, deadline) {
                Ok(answer) => return Ok(self.keep(pid, stream, answer)),
                Err(Broken::Failed(error)) => return Err(error),
                Err(Broken::Gone(_)) => self.with(Idle::clear),
            }
        }
        let stream = open(settings, deadline)?;
        match converse(&stream, request, deadline) {
            Ok(answer) => Ok(self.keep(pid, stream, answer)),
            Err(Broken::Failed(error)) => Err(error),
            Err(Broken::Gone(error)) => Err(Error::connection(error)),
        }
    }

    fn keep(&self, pid: u32, stream: UnixStream, answer: Answer) -> Answer {
        if answer.keep {
            self.with(|idle| idle.put(pid, stream));
        }
        answer
    }

    fn with<T>(&self, act: impl FnOnce(&mut Idle<UnixStream>) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A new connection to the first agent that answers and may be trusted.
fn open(settings: &Settings, deadline: Instant) -> Result<UnixStream, Error> {
    settings.check()?;
    let mut attempts = Vec::new();
    let mut foreign = None;
    for path in &settings.paths {
        let limit = deadline.min(later(settings.connect_timeout));
        let found = match connect_to(path, limit) {
            Ok(stream) => match listener_uid(&stream) {
                Ok(uid) if settings.owner.accepts(uid) => return Ok(stream),
                Ok(uid) => {
                    foreign = foreign.or(Some(uid));
                    Attempt::foreign(path, uid)
                }
                Err(error) => Attempt::failed(path, &error),
            },
            Err(error) => Attempt::failed(path, &error),
        };
        attempts.push(found);
    }
    Err(Error::no_agent(&attempts, foreign, settings.is_given))
}

/// What is said of a socket that this user may not connect to.
pub(crate) const CLOSED: &str = "not accessible to this user";

impl Attempt {
    pub(crate) fn foreign(path: &Path, uid: u32) -> Self {
        Self {
            path: path.to_owned(),
            found: format!("it belongs to uid {uid}"),
            is_open: false,
        }
    }

    pub(crate) fn failed(path: &Path, error: &io::Error) -> Self {
        let is_busy = matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        );
        let is_short = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM]
            .iter()
            .any(|errno| error.raw_os_error() == Some(*errno as i32));
        Self {
            path: path.to_owned(),
            found: describe(error),
            is_open: is_busy || is_short,
        }
    }
}

/// What was found at a path, in words.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "nothing there".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
        io::ErrorKind::PermissionDenied => CLOSED.to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "too busy to answer".to_owned(),
        _ => error.to_string(),
    }
}

/// Like `UnixStream::connect`, which would wait for ever when the backlog is full: the kernel bounds the wait of a
/// blocking connect by the send timeout.
fn connect_to(path: &Path, limit: Instant) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let fd: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    loop {
        let left = remaining(limit)?;
        set_send_timeout(&fd, left)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(UnixStream::from(fd)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn set_send_timeout(fd: &impl AsFd, left: Duration) -> io::Result<()> {
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
    let value = TimeVal::new(seconds, i64::from(left.subsec_micros()));
    Ok(setsockopt(fd, SendTimeout, &value)?)
}

/// One request and its answer on one connection.
fn converse(mut stream: &UnixStream, request: &[u8], deadline: Instant) -> Result<Answer, Broken> {
    send_all(stream, request, deadline).map_err(sort)?;
    let mut reader = AnswerReader::default();
    let mut buffer = zeroize::Zeroizing::new([0u8; READ_BYTES]);
    loop {
        let left = remaining(deadline).map_err(sort)?;
        stream.set_read_timeout(Some(left)).map_err(sort)?;
        match stream.read(buffer.as_mut_slice()) {
            Ok(0) if !reader.has_begun() => {
                return Err(Broken::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(0) => return reader.end().map_err(Broken::Failed),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if let Some(answer) = reader.feed(bytes).map_err(Broken::Failed)? {
                    return Ok(answer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if reader.has_begun() => {
                return Err(Broken::Failed(Error::connection(error)));
            }
            Err(error) => return Err(sort(error)),
        }
    }
}

/// Like `write_all`, which on a dead connection would raise SIGPIPE: a Rust program ignores that signal, but the C ABI is
/// used by programs that leave it at its default, and must not end them.
fn send_all(stream: &UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        match send(stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether an error means that the other end has gone.
pub(crate) fn sort(error: io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Broken::Gone(error),
        _ => Broken::Failed(Error::connection(error)),
    }
}

/// The time left, never zero: a zero timeout means "for ever" to the kernel.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    deadline
        .checked_duration_since(platform::monotonic_now())
        .filter(|left| *left >= Duration::from_micros(1))
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// `timeout` from now, as far as the clock can count.
pub(crate) fn later(timeout: Duration) -> Instant {
    let now = platform::monotonic_now();
    now.checked_add(timeout).unwrap_or(now + FAR)
}

/// Holds the usual answer in one read.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// Threads of one process rarely miss the cache at the same time; more idle connections would only use up the agent's.
const MAX_IDLE: usize = 4;

/// A day: beyond any timeout that makes sense.
const FAR: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::{Idle, MAX_IDLE, later, open};
    use crate::settings::Builder;

    #[test]
    fn places_are_tried_in_order_until_somebody_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        drop(UnixListener::bind(path("dead")).unwrap());
        std::fs::write(path("file"), "").unwrap();
        let long = path(&"x".repeat(200));
        let mut settings = Builder::new().socket(path("missing")).settle();
        settings.paths.extend([path("dead"), path("file"), long]);
        let text = open(&settings, later(settings.timeout))
            .unwrap_err()
            .to_string();
        for part in [
            "missing (nothing there)",
            "dead (nobody listens)",
            "file (nobody listens)",
            "xxx (",
        ] {
            assert!(text.contains(part), "{text}");
        }

        let listener = UnixListener::bind(path("alive")).unwrap();
        settings.paths.push(path("alive"));
        open(&settings, later(settings.timeout)).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_forked_child_takes_none_of_its_parents_connections() {
        let mut idle = Idle::new(drop);
        idle.put(1, 'a');
        idle.put(1, 'b');
        assert_eq!(
            idle.take(1),
            Some('b'),
            "the one used last is the likeliest alive"
        );
        assert_eq!(idle.take(2), None);
        idle.put(2, 'c');
        assert_eq!(idle.take(1), None, "nor the other way round");
    }

    #[test]
    fn idle_connections_are_few() {
        let mut idle = Idle::new(drop);
        for number in 0..100 {
            idle.put(1, number);
        }
        assert_eq!(idle.connections.len(), MAX_IDLE);
        idle.clear();
        assert_eq!(idle.take(1), None);
    }
}
