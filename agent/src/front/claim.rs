//! Whose a socket's place is: a file beside the socket that everyone holds a shared lock on who counts on the agent there.
//!
//! The socket alone cannot tell. Between the death of an agent and the start of its successor nobody listens, and an agent of
//! another configuration that took the place then would serve somebody else's tokens to whoever was given the path. So nobody
//! takes a place that is claimed, and an agent does not go while somebody who has just come still claims its place.
//!
//! The claim's content says what kind of agent it is, for those who would like to share it. Everything here is done by the
//! holder of the directory's lock, which is what [`DirectoryLock`] stands for; the kernel gives claims back when a process dies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::socket::FileMark;

/// The file that is locked while sockets and claims of a directory change.
const LOCK_FILE: &str = ".lock";
/// The pause before the directory's lock is tried again. Who has it needs a fraction of a millisecond.
const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// The longest content that is read, in bytes.
const MAX_BYTES: u64 = 4096;

/// How often the directory's lock is tried before COMMAND starts: half a second in all. A lock that stays is a fault (its
/// holder was stopped, say), and nobody waits for that without end.
pub const PATIENT: u32 = 250;
/// For those who can come back later.
pub const ONCE: u32 = 1;

/// The lock of a directory, held until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held")] Flock<File>);

/// What kind of agent is at a place: those of the same mark are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The version of jobcred: another one may decide otherwise.
    pub version: String,
    /// What its decision comes from, as a hash; see [`crate::config::place_fingerprint`].
    pub fingerprint: String,
    /// Where it runs; see [`crate::platform::Processes::own_namespaces`]. In another container the same variables and the same
    /// loopback address can mean another identity.
    pub namespaces: String,
}

/// The content of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process that made the socket. It may have ended since, and the agent live on. For people who look into the file.
    pub pid: u32,
    /// The socket that this is about. A claim stays behind when everybody is killed, and whoever listens at the place after that
    /// may know nothing of claims.
    pub socket: FileMark,
    /// What kind of agent it is.
    #[serde(flatten)]
    pub mark: Mark,
}

/// A claim on a place, held until it is dropped.
#[derive(Debug)]
pub struct Claim(Flock<File>);

impl DirectoryLock {
    /// Locks `directory`, in at most `tries`, without ever sleeping in the kernel for it.
    ///
    /// A file of our own is locked rather than the directory: others can open a directory they may read, and keep its lock.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process keeps it; others when there can be no such file.
    pub fn acquire(directory: &Path, tries: u32) -> io::Result<Self> {
        let path = directory.join(LOCK_FILE);
        let mut file = options().create(true).open(&path)?;
        for attempt in 1.. {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(lock)),
                Err((back, Errno::EWOULDBLOCK)) => file = back,
                Err((_, errno)) => return Err(errno.into()),
            }
            if attempt >= tries {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("another process keeps {} locked", path.display()),
        ))
    }
}

impl Claim {
    /// Claims the place of `socket`. Nobody shares the agent there before it is [described](Self::describe). `None` when it is
    /// claimed by somebody else.
    ///
    /// # Errors
    /// When there can be no such file, or none that can be locked.
    pub fn take(_: &DirectoryLock, socket: &Path) -> io::Result<Option<Self>> {
        let file = options().create(true).open(path_of(socket))?;
        check(&file)?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        // Not atomic, but whoever else would lock it waits for the directory's lock first.
        lock.relock(FlockArg::LockSharedNonblock)?;
        Ok(Some(Self(lock)))
    }

    /// Joins those who claim the place of `socket`, and tells what is there.
    ///
    /// # Errors
    /// When there is no such file of our own, or what it says cannot be read.
    pub fn join(_: &DirectoryLock, socket: &Path) -> io::Result<(Self, Holder)> {
        let file = options().open(path_of(socket))?;
        check(&file)?;
        let lock = Flock::lock(file, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno)?;
        let claim = Self(lock);
        let holder = claim.holder()?;
        Ok((claim, holder))
    }

    /// What is there.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn holder(&self) -> io::Result<Holder> {
        let mut file: &File = &self.0;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Whether this is still the file that others find at the place.
    #[must_use]
    pub fn is_at(&self, socket: &Path) -> bool {
        let own = self.0.metadata();
        let there = fs::symlink_metadata(path_of(socket));
        matches!((own, there), (Ok(own), Ok(there)) if (own.dev(), own.ino()) == (there.dev(), there.ino()))
    }

    /// Says that this process has made the socket there, for agents of this `mark`.
    ///
    /// # Errors
    /// When it cannot be written. Nobody shares the agent then.
    pub fn describe(&mut self, _: &DirectoryLock, mark: &Mark, socket: FileMark) -> io::Result<()> {
        let holder = Holder {
            pid: std::process::id(),
            socket,
            mark: mark.clone(),
        };
        let mut text = serde_json::to_vec(&holder)?;
        text.push(b'\n');
        self.0.set_len(0)?;
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(&text)
    }
}

/// Whether somebody claims the place of `socket`. Where that cannot be known nobody can have done so.
#[must_use]
pub fn is_claimed(_: &DirectoryLock, socket: &Path) -> bool {
    let Ok(file) = options().open(path_of(socket)) else {
        return false;
    };
    matches!(
        Flock::lock(file, FlockArg::LockExclusiveNonblock),
        Err((_, Errno::EWOULDBLOCK))
    )
}

/// Removes the file of a place that nobody claims.
pub fn remove(_: &DirectoryLock, socket: &Path) {
    let path = path_of(socket);
    // Something else under that name is not ours to remove.
    if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
        let _ = fs::remove_file(path);
    }
}

/// Where the claim on the place of `socket` is: `agent.lock` beside `agent.sock`.
#[must_use]
pub fn path_of(socket: &Path) -> PathBuf {
    let path = socket.with_extension("lock");
    if path == socket {
        return socket.with_extension("lock.lock");
    }
    path
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK);
    options
}

/// Only a file of our own tells anything.
fn check(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other("it is not a file of ours"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::path::Path;

    use proptest::prelude::*;

    use super::{Claim, DirectoryLock, FileMark, Holder, Mark, ONCE, is_claimed, path_of, remove};
    use crate::mutation::near;

    fn mark(fingerprint: &str) -> Mark {
        Mark {
            version: "1".to_owned(),
            fingerprint: fingerprint.to_owned(),
            namespaces: "net:[1]".to_owned(),
        }
    }

    #[test]
    fn a_place_is_claimed_as_long_as_anybody_claims_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let lock = DirectoryLock::acquire(dir.path(), ONCE).unwrap();
        assert!(!is_claimed(&lock, &socket));
        fs::write(&socket, "").unwrap();
        let there = FileMark::at(&socket).unwrap();
        let mut first = Claim::take(&lock, &socket).unwrap().unwrap();
        assert!(Claim::join(&lock, &socket).is_err(), "it says nothing yet");
        first.describe(&lock, &mark("a"), there).unwrap();
        let (second, holder) = Claim::join(&lock, &socket).unwrap();
        assert_eq!((holder.pid, holder.mark), (std::process::id(), mark("a")));
        assert_eq!(holder.socket, there);
        drop(first);
        assert!(is_claimed(&lock, &socket));
        assert!(Claim::take(&lock, &socket).unwrap().is_none());
        assert_eq!(second.holder().unwrap().mark, mark("a"));
        drop(second);
        assert!(!is_claimed(&lock, &socket));
        let mut third = Claim::take(&lock, &socket).unwrap().unwrap();
        third.describe(&lock, &mark("b"), there).unwrap();
        assert_eq!(third.holder().unwrap().mark, mark("b"));
        assert!(third.is_at(&socket));
        remove(&lock, &socket);
        assert!(!third.is_at(&socket));
    }

    #[test]
    fn a_directory_that_stays_locked_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DirectoryLock::acquire(dir.path(), ONCE).unwrap();
        let error = DirectoryLock::acquire(dir.path(), 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_claim_of_ours_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let lock = DirectoryLock::acquire(dir.path(), ONCE).unwrap();
        assert!(Claim::join(&lock, &socket).is_err());
        for text in ["", "{}", "no json", r#"{"pid":1,"version":"1"}"#] {
            fs::write(path_of(&socket), text).unwrap();
            assert!(Claim::join(&lock, &socket).is_err(), "{text}");
        }
        fs::remove_file(path_of(&socket)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path_of(&socket)).unwrap();
        assert!(Claim::take(&lock, &socket).is_err());
        remove(&lock, &socket);
        assert!(fs::symlink_metadata(path_of(&socket)).is_ok());
    }

    proptest! {
        #[test]
        fn nearly_a_claim_tells_all_or_nothing(text in near(vec![
            r#"{"pid":7,"socket":{"device":1,"inode":2,"changed":[3,4]},"version":"1","fingerprint":"a","namespaces":"net:[1]"}"#.to_owned(),
        ])) {
            if let Ok(holder) = serde_json::from_slice::<Holder>(&text) {
                let written = serde_json::to_vec(&holder).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Holder>(&written).unwrap(), holder);
            }
        }
    }

    #[test]
    fn a_claim_never_has_the_sockets_own_name() {
        for (socket, claim) in [
            ("/x/agent.sock", "/x/agent.lock"),
            ("/x/agent", "/x/agent.lock"),
            ("/x/agent.lock", "/x/agent.lock.lock"),
        ] {
            assert_eq!(path_of(Path::new(socket)), Path::new(claim));
        }
    }
}
