//! Who starts the agent at a place and who shares it.
//!
//! A job's launcher starts `jobcred run` once for each process. The first one makes the socket and starts the agent; the others
//! find it, and hold a *lease*: a connection that tells the agent that somebody counts on it. When agent and starter are both
//! gone, those who are left elect again, and the one who is first starts an agent in turn.
//!
//! Nobody waits for anybody here: the lock of the directory is tried for half a second at most, and a connection to a socket
//! that listens stands at once, whether or not its agent has come so far as to accept it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use jobcred_wire::{HOST, LEASE_PATH, REQUEST_HEADER};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use super::claim::{Claim, DirectoryLock, Mark, ONCE, PATIENT, is_claimed, path_of, remove};
use super::socket::{BindError, BoundSocket, FileMark, SocketFile, SocketOptions, try_connect};

/// How often the directory's lock is tried once COMMAND has ended. What stays there does no harm.
const AT_THE_END: u32 = 25;

/// A place at an agent, as the one who starts it or as one who shares it. Dropping it gives it up.
#[derive(Debug)]
pub struct Seat {
    place: SocketOptions,
    /// What the agent is there must be like; `None` where nobody shall share it.
    mark: Option<Mark>,
    claim: Option<Claim>,
    /// What is known of the decision that callers at this place were served by, as a hash.
    known: Option<String>,
    /// What came of the election, for whoever takes it.
    pub part: Part,
}

/// What one does at a place.
#[derive(Debug)]
pub enum Part {
    /// Starts the agent that answers on this socket.
    Owner(BoundSocket),
    /// Holds a lease: a connection on which it was asked for. `None` when the listener's queue is full; to be asked for later.
    Sharer(Option<UnixStream>),
    /// It was taken out.
    Taken,
}

/// What came of another election.
#[derive(Debug)]
pub enum Again {
    /// One to act on.
    Part(Part),
    /// Not now: the lock is taken, the queue is full, or nobody listens and it is not for us yet.
    Later,
    /// Somebody else's agent answers there.
    Lost(String),
}

/// Why the agent at a place is not shared.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// There is another agent, or somebody else's turn: a place of one's own is wanted.
    #[error("{0}")]
    Aside(String),
    /// The place cannot be used.
    #[error(transparent)]
    Unusable(BindError),
}

impl From<BindError> for ElectionError {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Unusable { .. } => Self::Unusable(error),
            taken => Self::Aside(taken.to_string()),
        }
    }
}

impl Seat {
    /// Elects at `place`: shares an agent of the same `mark`, or makes the socket for one.
    ///
    /// # Errors
    /// [`ElectionError::Aside`] where another agent is, with the reason in words.
    pub fn elect(place: &SocketOptions, mark: &Mark) -> Result<Self, ElectionError> {
        let path = &place.path;
        let lock = place.lock(place.prepare()?, PATIENT)?;
        if let Ok(stream) = try_connect(path) {
            let (claim, part) =
                share(&lock, path, mark, stream, "").map_err(ElectionError::Aside)?;
            return Ok(Self {
                place: place.clone(),
                mark: Some(mark.clone()),
                claim: Some(claim),
                known: None,
                part,
            });
        }
        // Free, or something that binding finds a word for.
        if is_claimed(&lock, path) {
            // Whose tokens its callers have had is not known to us.
            return Err(BindError::Claimed(path.clone()).into());
        }
        let socket = BoundSocket::bind_locked(place, &lock)?;
        Ok(Self::make(place, mark, socket, Some(&lock)))
    }

    /// A seat at a socket of one's own. Whoever is started by its holder may share it, where there is a `mark`.
    ///
    /// # Errors
    /// When there can be no socket.
    pub fn alone(
        place: &SocketOptions,
        mark: Option<&Mark>,
        draft: &str,
    ) -> Result<Self, BindError> {
        let socket = BoundSocket::bind_alone(place, draft)?;
        let Some(mark) = mark else {
            return Ok(Self {
                place: place.clone(),
                mark: None,
                claim: None,
                known: None,
                part: Part::Owner(socket),
            });
        };
        let lock = place
            .prepare()
            .and_then(|directory| place.lock(directory, ONCE))
            .ok();
        Ok(Self::make(place, mark, socket, lock.as_ref()))
    }

    fn make(
        place: &SocketOptions,
        mark: &Mark,
        socket: BoundSocket,
        lock: Option<&DirectoryLock>,
    ) -> Self {
        // Without a claim nobody shares the agent, that is all.
        let mut claim = lock.and_then(|lock| Claim::take(lock, &place.path).ok()?);
        match (lock, &mut claim) {
            (Some(lock), Some(claim)) => {
                let _ = claim.describe(lock, mark, socket.mark());
            }
            (Some(lock), None) => remove(lock, &place.path),
            _ => {}
        }
        Self {
            place: place.clone(),
            mark: Some(mark.clone()),
            claim,
            known: None,
            part: Part::Owner(socket),
        }
    }

    /// Elects again, after the agent or its starter died. With `may_own` false, a place where nobody listens is left to others;
    /// with `in_doubt`, one where nobody answered and whoever listens is stopped counts as one of those. Returns at once.
    pub fn elect_again(&mut self, may_own: bool, in_doubt: bool) -> Again {
        let Some(mark) = self.mark.clone() else {
            return Again::Later;
        };
        let place = &self.place;
        let lock = place
            .prepare()
            .and_then(|directory| place.lock(directory, ONCE));
        let Ok(lock) = lock else { return Again::Later };
        match try_connect(&place.path) {
            Ok(stream) => {
                let is_stopped = in_doubt && stream.as_ref().is_some_and(is_listener_stopped);
                let query = match &self.known {
                    Some(known) => format!("?known={known}"),
                    None => String::new(),
                };
                match share(&lock, &place.path, &mark, stream, &query) {
                    // It may go on one day, and sees then that the place is taken.
                    Ok(_) if is_stopped && may_own => {
                        self.take_over(&lock, &mark, BoundSocket::bind_over)
                    }
                    Ok((claim, part)) => {
                        self.claim = Some(claim);
                        Again::Part(part)
                    }
                    Err(reason) => Again::Lost(reason),
                }
            }
            Err(_) if !may_own => Again::Later,
            Err(_) => self.take_over(&lock, &mark, BoundSocket::bind_locked),
        }
    }

    fn take_over(
        &mut self,
        lock: &DirectoryLock,
        mark: &Mark,
        bind: fn(&SocketOptions, &DirectoryLock) -> Result<BoundSocket, BindError>,
    ) -> Again {
        let path = &self.place.path;
        let is_ours = self.claim.as_ref().is_some_and(|claim| claim.is_at(path));
        if !is_ours {
            // Somebody cleaned up under us, and others may have come since.
            match Claim::take(lock, path) {
                Ok(Some(claim)) => self.claim = Some(claim),
                _ => return Again::Lost(BindError::Claimed(path.clone()).to_string()),
            }
        }
        match bind(&self.place, lock) {
            Ok(socket) => {
                if let Some(claim) = &mut self.claim {
                    // Where it cannot be written nobody else shares the agent.
                    let _ = claim.describe(lock, mark, socket.mark());
                }
                Again::Part(Part::Owner(socket))
            }
            Err(_) => Again::Later,
        }
    }

    /// Where clients find the agent.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Remembers the hash of the decision that callers here were served by: an agent that shall be shared later is told, and
    /// serves nobody if it decided otherwise.
    pub fn note_decision(&mut self, fingerprint: &str) {
        self.known = Some(fingerprint.to_owned());
    }

    /// Takes the part out.
    pub fn take_part(&mut self) -> Part {
        std::mem::replace(&mut self.part, Part::Taken)
    }

    /// Gives the claim up: this one does not count on the agent any more.
    pub fn release(&mut self) {
        self.claim = None;
    }

    /// Removes what is left at the place of a dead agent, unless others count on the next one.
    pub fn clear(&mut self, file: SocketFile) {
        self.release();
        match clear_place(&file, AT_THE_END) {
            Cleared::Gone => drop(file),
            Cleared::Kept => file.leave(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Part::Owner(socket) = self.take_part() {
            let (_, file) = socket.into_parts();
            self.clear(file);
        }
    }
}

/// What became of a place that nobody is left at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// Nobody finds an agent there any more.
    Gone,
    /// Somebody counts on it, or it cannot be told.
    Kept,
}

/// Closes a place: removes its socket and its claim, unless somebody claims it. A newcomer has either claimed it before, or
/// finds it free.
#[must_use]
pub fn clear_place(file: &SocketFile, tries: u32) -> Cleared {
    let Some(directory) = file.path().parent() else {
        return Cleared::Gone;
    };
    if !file.is_there() {
        return Cleared::Gone;
    }
    if fs::symlink_metadata(path_of(file.path())).is_err() {
        // Nobody could join an agent there.
        let _ = fs::remove_file(file.path());
        return Cleared::Gone;
    }
    let Ok(lock) = DirectoryLock::acquire(directory, tries) else {
        return Cleared::Kept;
    };
    if is_claimed(&lock, file.path()) {
        return Cleared::Kept;
    }
    if file.is_there() {
        remove(&lock, file.path());
        let _ = fs::remove_file(file.path());
    }
    Cleared::Gone
}

/// Joins the agent that listens at `path`, if it is of our kind; else the reason why not.
fn share(
    lock: &DirectoryLock,
    path: &Path,
    mark: &Mark,
    stream: Option<UnixStream>,
    query: &str,
) -> Result<(Claim, Part), String> {
    let there = path.display();
    let found = Claim::join(lock, path)
        .ok()
        // What is said there of an earlier socket is not about whoever listens now.
        .filter(|(_, holder)| FileMark::at(path).is_ok_and(|socket| socket == holder.socket));
    let Some((claim, holder)) = found else {
        return Err(format!(
            "an agent already answers at {there}, one that is not shared"
        ));
    };
    if holder.mark.version != mark.version {
        return Err(format!(
            "the agent at {there} is of version {}, this is {}",
            printable(&holder.mark.version),
            mark.version
        ));
    }
    if holder.mark.namespaces != mark.namespaces {
        return Err(format!("the agent at {there} is in another container"));
    }
    if holder.mark != *mark {
        return Err(format!(
            "the agent at {there} goes by another environment or configuration"
        ));
    }
    let Some(stream) = stream else {
        return Ok((claim, Part::Sharer(None)));
    };
    let owner = getsockopt(&stream, sockopt::PeerCredentials).map_err(|errno| errno.to_string())?;
    if owner.uid() != geteuid().as_raw() {
        return Err(format!("the agent at {there} is uid {}'s", owner.uid()));
    }
    // A queue that was closed at this very moment: found out by whoever reads.
    let _ = ask_for_lease(&stream, query);
    Ok((claim, Part::Sharer(Some(stream))))
}

/// Whether the process that made the listener at the other end was stopped: by a terminal, by a debugger, by a signal.
fn is_listener_stopped(stream: &UnixStream) -> bool {
    let Ok(owner) = getsockopt(stream, sockopt::PeerCredentials) else {
        return false;
    };
    // The name in parentheses may hold anything, so the state is what comes after the last of them.
    fs::read_to_string(format!("/proc/{}/stat", owner.pid())).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

/// Asks for a lease on a new connection: a few bytes, which it takes at once.
///
/// # Errors
/// When the other end is closed.
pub fn ask_for_lease(mut stream: &UnixStream, query: &str) -> io::Result<()> {
    let request =
        format!("GET {LEASE_PATH}{query} HTTP/1.1\r\nhost: {HOST}\r\n{REQUEST_HEADER}: 1\r\n\r\n");
    stream.write_all(request.as_bytes())
}

fn printable(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_graphic)
        .take(32)
        .collect()
}
