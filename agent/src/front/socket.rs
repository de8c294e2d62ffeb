//! The Unix socket: where it is, how it gets there safely, and who may reach it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::unistd::{Gid, geteuid};
use serde::{Deserialize, Serialize};

use super::claim::{self, DirectoryLock, PATIENT};

/// The longest path a socket can have on Linux, in bytes.
pub const MAX_SOCKET_PATH: usize = 107;
/// Connections that may wait while nobody accepts: the agent is being started again, say. The kernel may cap it lower.
const BACKLOG: i32 = 1024;
/// The name under which a socket is made in a directory that is locked. As short as can be, so that a path near the limit
/// still works.
const DRAFT: &str = ".new";

/// Where and for whom to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The socket's path. Its directory is made when it does not exist.
    pub path: PathBuf,
    /// The group the socket is shared with, by number; `None` is private.
    pub group: Option<u32>,
}

/// A listening socket. Dropping it removes the file, if it is still the one that was made.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a listening socket, removed on drop if it is still the same one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    mark: FileMark,
}

/// What tells one file from a later one at the same path: inode numbers alone are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl FileMark {
    /// Of the file that is at `path` now.
    ///
    /// # Errors
    /// When there is none.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::symlink_metadata(path)?))
    }

    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there already.
    #[error("an agent already answers at {}", .0.display())]
    InUse(PathBuf),
    /// Nobody answers there, but jobs count on the agent that will.
    #[error("the agent at {} is being started again for others", .0.display())]
    Claimed(PathBuf),
    /// Another process keeps the directory locked.
    #[error("another process keeps the directory of {} locked", .0.display())]
    Busy(PathBuf),
    /// The path cannot be used safely or at all.
    #[error("cannot listen at {}: {reason}", path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

impl BoundSocket {
    /// Makes the directory and the socket as the sharing demands.
    ///
    /// | sharing | directory | socket |
    /// |---|---|---|
    /// | private | 0700 | 0600 |
    /// | a group | 0750, that group | 0660, that group |
    ///
    /// An existing directory is used only when it is a real directory, is ours (or root's), and lets nobody else write. A stale
    /// socket is replaced only when it *is* a socket and nobody answers on it; anything else in its place is left alone.
    ///
    /// # Errors
    /// [`BindError`], with the reason in words.
    pub fn bind(options: &SocketOptions) -> Result<Self, BindError> {
        let dir = options.prepare()?;
        // Two agents starting at once must not both find the path free: the lock is held until the socket stands.
        let lock = options.lock(dir, PATIENT)?;
        clear_stale(&options.path)?;
        if claim::is_claimed(&lock, &options.path) {
            return Err(BindError::Claimed(options.path.clone()));
        }
        // What an agent before this one said there is not about this one.
        claim::remove(&lock, &options.path);
        Self::listen(options, &options.path.with_file_name(DRAFT))
    }

    /// The same for one who has the directory's lock and sees to claims.
    ///
    /// # Errors
    /// [`BindError`], with the reason in words.
    pub fn bind_locked(options: &SocketOptions, _: &DirectoryLock) -> Result<Self, BindError> {
        clear_stale(&options.path)?;
        Self::listen(options, &options.path.with_file_name(DRAFT))
    }

    /// The same in place of a socket on which somebody listens who does nothing any more.
    ///
    /// # Errors
    /// [`BindError`], with the reason in words.
    pub fn bind_over(options: &SocketOptions, _: &DirectoryLock) -> Result<Self, BindError> {
        Self::listen(options, &options.path.with_file_name(DRAFT))
    }

    /// The same at a path that is nobody else's, so that no lock is needed. `draft` is a name in the same directory that is
    /// nobody else's either.
    ///
    /// # Errors
    /// [`BindError`], with the reason in words.
    pub fn bind_alone(options: &SocketOptions, draft: &str) -> Result<Self, BindError> {
        options.prepare()?;
        clear_stale(&options.path)?;
        Self::listen(options, &options.path.with_file_name(draft))
    }

    fn listen(options: &SocketOptions, draft: &Path) -> Result<Self, BindError> {
        let path = &options.path;
        let unusable = |error: io::Error| options.unusable(error.to_string());
        let listener = listen_at(path, draft, options.group).map_err(unusable)?;
        let file = SocketFile::at(path).map_err(unusable)?;
        Ok(Self { listener, file })
    }

    /// The path clients connect to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// What tells its file from any other.
    #[must_use]
    pub fn mark(&self) -> FileMark {
        self.file.mark
    }

    /// The listener and the guard of its file, apart: one process may accept while another keeps the file.
    #[must_use]
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl SocketOptions {
    /// Makes the directory, or finds it to be one that can be used. Gives its path.
    ///
    /// # Errors
    /// [`BindError::Unusable`].
    pub fn prepare(&self) -> Result<&Path, BindError> {
        let path = &self.path;
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(self.unusable(format!(
                "the path is longer than {MAX_SOCKET_PATH} bytes, the most a socket can have; choose a shorter one with JOBCRED_SOCKET"
            )));
        }
        let dir = match path.parent() {
            Some(dir) if path.is_absolute() && path.file_name().is_some() => dir,
            _ => {
                return Err(self.unusable("the path must be absolute and name a file".to_owned()));
            }
        };
        prepare_directory(dir, self.group).map_err(|reason| self.unusable(reason))?;
        Ok(dir)
    }

    /// Locks the directory that [`Self::prepare`] gave.
    ///
    /// # Errors
    /// [`BindError::Busy`] or [`BindError::Unusable`].
    pub fn lock(&self, dir: &Path, tries: u32) -> Result<DirectoryLock, BindError> {
        DirectoryLock::acquire(dir, tries).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => BindError::Busy(self.path.clone()),
            _ => self.unusable(error.to_string()),
        })
    }

    fn unusable(&self, reason: String) -> BindError {
        BindError::Unusable {
            path: self.path.clone(),
            reason,
        }
    }
}

impl SocketFile {
    /// The file that is at `path` now.
    ///
    /// # Errors
    /// When there is none.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            mark: FileMark::at(path)?,
            path: path.to_owned(),
        })
    }

    /// Whether it is still the one that is found at its path.
    #[must_use]
    pub fn is_there(&self) -> bool {
        FileMark::at(&self.path).is_ok_and(|mark| mark == self.mark)
    }

    /// Leaves the file where it is, for whoever listens on.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// The path clients connect to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            // Nothing to do about a failure: the next agent finds a stale socket and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds the first of `paths` that can be used.
///
/// # Errors
/// [`BindError::InUse`] and its like as soon as a path is somebody else's; otherwise why each path failed, in one error.
pub fn bind_first(paths: &[PathBuf], group: Option<u32>) -> Result<BoundSocket, BindError> {
    first_of(paths, group, BoundSocket::bind)
}

/// The first of `paths` that `attempt` can use.
///
/// # Errors
/// As soon as one is not unusable but somebody else's; otherwise why each path failed, in one error.
pub fn first_of<T>(
    paths: &[PathBuf],
    group: Option<u32>,
    mut attempt: impl FnMut(&SocketOptions) -> Result<T, BindError>,
) -> Result<T, BindError> {
    let mut reasons = Vec::new();
    for path in paths {
        match attempt(&SocketOptions {
            path: path.clone(),
            group,
        }) {
            Ok(found) => return Ok(found),
            Err(BindError::Unusable { path, reason }) => reasons.push((path, reason)),
            Err(taken) => return Err(taken),
        }
    }
    let path = reasons
        .first()
        .map(|(path, _)| path.clone())
        .unwrap_or_default();
    let reason = match reasons.as_slice() {
        [(_, only)] => only.clone(),
        several => several
            .iter()
            .map(|(path, reason)| format!("{}: {reason}", path.display()))
            .collect::<Vec<_>>()
            .join("; "),
    };
    Err(BindError::Unusable { path, reason })
}

/// Whether an agent, or anything else, answers at `path`.
#[must_use]
pub fn is_answered(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH && try_connect(path).is_ok()
}

/// Connects without waiting; the stream does not block. `None` is a full queue: somebody who listens, however slowly, and
/// waiting there could take for ever.
///
/// # Errors
/// When nobody listens there, or it cannot be tried.
pub fn try_connect(path: &Path) -> io::Result<Option<UnixStream>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => Ok(Some(fd.into())),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn prepare_directory(dir: &Path, group: Option<u32>) -> Result<(), String> {
    let mode = if group.is_some() { 0o750 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => {
            if let Some(gid) = group {
                std::os::unix::fs::lchown(dir, None, Some(gid)).map_err(|error| {
                    format!("cannot give {} to group {gid}: {error}", dir.display())
                })?;
            }
            // The umask may have taken bits away that the group needs.
            return fs::set_permissions(dir, Permissions::from_mode(mode))
                .map_err(|error| format!("cannot set the mode of {}: {error}", dir.display()));
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(format!(
                "cannot make the directory {}: {error}; choose another place with JOBCRED_SOCKET",
                dir.display()
            ));
        }
    }
    let metadata =
        fs::symlink_metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let path = dir;
    let dir = dir.display();
    if !metadata.is_dir() {
        return Err(format!(
            "{dir} is not a directory; remove it, or choose another place with JOBCRED_SOCKET"
        ));
    }
    let own = geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(format!(
            "{dir} belongs to uid {}, not to us (uid {own}): somebody else could swap the socket; choose another place with JOBCRED_SOCKET",
            metadata.uid()
        ));
    }
    if let (Some(gid), true) = (group, metadata.uid() == own) {
        let mode = metadata.mode() & 0o7777;
        // Ours from a private start; now a group is to get through.
        if mode == 0o700 {
            std::os::unix::fs::lchown(path, None, Some(gid))
                .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o750)))
                .map_err(|error| format!("cannot open {dir} to group {gid}: {error}"))?;
        } else if metadata.gid() != gid && mode & 0o001 == 0 {
            return Err(format!(
                "group {gid} cannot reach {dir} (mode {mode:04o}, group {}): give the directory to that group with mode 0750, or remove it",
                metadata.gid()
            ));
        }
    }
    // Also for a volume that the platform made group-writable (fsGroup): its members could swap the socket, so the agent
    // wants a subdirectory of its own inside it.
    if metadata.mode() & 0o022 != 0 {
        return Err(format!(
            "{dir} can be written by others (mode {:04o}): somebody else could swap the socket; use a subdirectory of it",
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}

fn clear_stale(path: &Path) -> Result<(), BindError> {
    let unusable = |reason: String| BindError::Unusable {
        path: path.to_owned(),
        reason,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error.to_string())),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(unusable(
                "something that is not a socket is there; it is left alone".to_owned(),
            ));
        }
        Ok(_) => {}
    }
    match try_connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| unusable(format!("cannot remove the stale socket: {error}"))),
        Err(error) => Err(unusable(format!(
            "a socket is there that cannot be tried: {error}"
        ))),
    }
}

/// Binds under a name of its own and renames: clients see the socket only once its mode, group and backlog are right.
fn listen_at(path: &Path, draft: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    match fs::symlink_metadata(draft) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        // One of ours, who was killed before the name was changed.
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(draft)?,
        Ok(_) => {
            return Err(io::Error::other(format!(
                "{} is in the way; it is not a socket, and left alone",
                draft.display()
            )));
        }
    }
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(fd.as_raw_fd(), &UnixAddr::new(draft)?)?;
    if let Some(gid) = group {
        std::os::unix::fs::lchown(draft, None, Some(Gid::from_raw(gid).as_raw()))?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(draft, Permissions::from_mode(mode))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    fs::rename(draft, path)?;
    Ok(UnixListener::from(fd))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;

    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
    };
    use tempfile::TempDir;

    use super::{BindError, BoundSocket, SocketOptions, bind_first, is_answered};

    fn place(dir: &TempDir) -> SocketOptions {
        SocketOptions {
            path: dir.path().join("own").join("agent.sock"),
            group: None,
        }
    }

    fn reason(options: &SocketOptions) -> String {
        match BoundSocket::bind(options) {
            Err(BindError::Unusable { reason, .. }) => reason,
            other => panic!("expected an unusable path: {other:?}"),
        }
    }

    fn mode(path: &std::path::Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_private_socket_has_private_modes_and_goes_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        let bound = BoundSocket::bind(&options).unwrap();
        assert_eq!(mode(&options.path), 0o600);
        assert_eq!(mode(options.path.parent().unwrap()), 0o700);
        assert!(is_answered(&options.path));
        drop(bound);
        assert!(!options.path.exists());
    }

    #[test]
    fn a_shared_socket_is_open_to_its_group_only() {
        let dir = tempfile::tempdir().unwrap();
        let gid = nix::unistd::getegid().as_raw();
        let options = SocketOptions {
            group: Some(gid),
            ..place(&dir)
        };
        let _bound = BoundSocket::bind(&options).unwrap();
        assert_eq!(mode(&options.path), 0o660);
        assert_eq!(mode(options.path.parent().unwrap()), 0o750);
        assert_eq!(fs::symlink_metadata(&options.path).unwrap().gid(), gid);
    }

    #[test]
    fn a_directory_of_a_private_start_is_opened_to_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let private = place(&dir);
        drop(BoundSocket::bind(&private).unwrap());
        let parent = private.path.parent().unwrap();
        assert_eq!(mode(parent), 0o700);
        let gid = nix::unistd::getegid().as_raw();
        let shared = SocketOptions {
            group: Some(gid),
            ..place(&dir)
        };
        let _bound = BoundSocket::bind(&shared).unwrap();
        assert_eq!(mode(parent), 0o750);
        assert_eq!(fs::symlink_metadata(parent).unwrap().gid(), gid);
    }

    #[test]
    fn a_second_agent_is_told_and_the_first_one_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        let _bound = BoundSocket::bind(&options).unwrap();
        assert!(matches!(
            BoundSocket::bind(&options),
            Err(BindError::InUse(_))
        ));
        assert!(is_answered(&options.path));
    }

    #[test]
    fn a_socket_with_a_full_queue_is_in_use_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        fs::create_dir(options.path.parent().unwrap()).unwrap();
        let path = UnixAddr::new(&options.path).unwrap();
        let listener = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &path).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        // The kernel lets one more in than the backlog says.
        let _waiting = UnixStream::connect(&options.path).unwrap();
        assert!(matches!(
            BoundSocket::bind(&options),
            Err(BindError::InUse(_))
        ));
        assert!(is_answered(&options.path));
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        fs::create_dir(options.path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&options.path).unwrap());
        assert!(options.path.exists(), "std leaves the file behind");
        let _bound = BoundSocket::bind(&options).unwrap();
        assert!(is_answered(&options.path));
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        fs::create_dir(options.path.parent().unwrap()).unwrap();
        fs::write(&options.path, "precious").unwrap();
        assert!(reason(&options).contains("not a socket"));
        assert_eq!(fs::read_to_string(&options.path).unwrap(), "precious");

        fs::remove_file(&options.path).unwrap();
        symlink("/etc/passwd", &options.path).unwrap();
        assert!(reason(&options).contains("not a socket"));
    }

    #[test]
    fn only_what_can_be_a_draft_of_ours_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        let draft = options.path.with_file_name(super::DRAFT);
        fs::create_dir(options.path.parent().unwrap()).unwrap();
        fs::write(&draft, "precious").unwrap();
        assert!(reason(&options).contains("in the way"));
        assert_eq!(fs::read_to_string(&draft).unwrap(), "precious");

        fs::remove_file(&draft).unwrap();
        drop(UnixListener::bind(&draft).unwrap());
        let _bound = BoundSocket::bind(&options).unwrap();
        assert!(!draft.exists());
    }

    #[test]
    fn a_squatted_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        let parent = options.path.parent().unwrap();
        symlink("/tmp", parent).unwrap();
        assert!(reason(&options).contains("not a directory"));

        fs::remove_file(parent).unwrap();
        fs::create_dir(parent).unwrap();
        fs::set_permissions(parent, Permissions::from_mode(0o777)).unwrap();
        assert!(reason(&options).contains("written by others"));
    }

    #[test]
    fn paths_that_cannot_be_sockets() {
        for path in ["relative/agent.sock", "/"] {
            let options = SocketOptions {
                path: PathBuf::from(path),
                group: None,
            };
            assert!(reason(&options).contains("absolute"), "{path}");
        }
        let options = SocketOptions {
            path: PathBuf::from(format!("/tmp/{}", "x".repeat(200))),
            group: None,
        };
        assert!(reason(&options).contains("107"));
    }

    #[test]
    fn the_first_usable_place_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [PathBuf::from("/proc/jobcred/agent.sock"), place(&dir).path];
        let bound = bind_first(&paths, None).unwrap();
        assert_eq!(bound.path(), paths[1]);
        let error = bind_first(&paths[..1], None).unwrap_err().to_string();
        assert!(error.contains("JOBCRED_SOCKET"), "{error}");
    }

    #[test]
    fn a_guard_does_not_remove_somebody_elses_socket() {
        let dir = tempfile::tempdir().unwrap();
        let options = place(&dir);
        let bound = BoundSocket::bind(&options).unwrap();
        fs::remove_file(&options.path).unwrap();
        let _other = UnixListener::bind(&options.path).unwrap();
        drop(bound);
        assert!(options.path.exists());
    }
}
