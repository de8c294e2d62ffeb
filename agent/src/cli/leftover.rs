//! Sockets that a killed `run` left behind.
//!
//! A name of a run's own is never used twice, so nobody else would ever replace it.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::front::claim::ONCE;
use crate::front::election::{Cleared, clear_place};
use crate::front::socket::SocketFile;

/// What names of a run's own begin with.
pub(super) const PREFIX: &str = "run-";
/// And end with.
pub(super) const SUFFIX: &str = ".sock";
/// Entries of a directory that are looked at: starting must not take long, whatever is there.
const MAX_ENTRIES: usize = 1000;

/// Removes the sockets in `directory` that have such a name, belong to `uid`, and nobody listens on.
pub(super) fn remove(directory: &Path, uid: u32) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        let name = entry.file_name();
        let is_named = name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        let is_ours = || {
            entry
                .metadata()
                .is_ok_and(|metadata| metadata.file_type().is_socket() && metadata.uid() == uid)
        };
        if is_named && is_ours() && is_dead(&entry.path()) {
            // Those that a run inside the dead one counts on stay: it makes the socket anew.
            if let Ok(file) = SocketFile::at(&entry.path()) {
                match clear_place(&file, ONCE) {
                    Cleared::Gone => drop(file),
                    Cleared::Kept => file.leave(),
                }
            }
        }
    }
}

/// Whether nobody listens at `path`. A socket appears under its name only once somebody does, so there is none that is new.
fn is_dead(path: &Path) -> bool {
    // Not blocking: with a full queue a connection would wait until there is room.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(socket) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else {
        return false;
    };
    UnixAddr::new(path)
        .is_ok_and(|address| connect(socket.as_raw_fd(), &address) == Err(Errno::ECONNREFUSED))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_dead_sockets_of_runs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let uid = nix::unistd::geteuid().as_raw();
        let _alive = UnixListener::bind(path("run-1-a.sock")).unwrap();
        drop(UnixListener::bind(path("run-2-b.sock")).unwrap());
        drop(UnixListener::bind(path("agent.sock")).unwrap());
        fs::write(path("run-3-c.sock"), "no socket").unwrap();
        fs::write(path("run-2-b.lock"), "{}").unwrap();
        // Somebody else's.
        super::remove(dir.path(), uid + 1);
        assert!(path("run-2-b.sock").exists());
        super::remove(dir.path(), uid);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [".lock", "agent.sock", "run-1-a.sock", "run-3-c.sock"]
        );
    }
}
