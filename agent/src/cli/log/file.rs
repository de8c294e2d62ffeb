//! The file of the job's log, and the one before it. Opened, locked, appended to and closed at one go, because whoever wants to
//! unmount or remove the directory must find nothing of ours open in it.
//!
//! All agents of one user on one machine that keep their log in a directory share the file: each appends whole lines under the
//! file's lock, and whoever finds it full puts it aside. So a directory holds the same however many agents there have been.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::geteuid;

/// When a file is full, in bytes. The one before it is kept, so that twice as much is left behind at most.
pub(super) const MAX_BYTES: u64 = 1024 * 1024;
/// How often others may put the file aside in between.
const TRIES: u32 = 16;

/// Appends whole lines to the file `name` in `directory`, and returns how many bytes of them are there now. A file is made, or
/// put aside, only where it `may_make` one.
///
/// # Errors
/// When nothing could be written: the disk is full, say, or the file is not ours.
pub(super) fn append(
    directory: &OwnedFd,
    name: &str,
    lines: &[u8],
    may_make: bool,
) -> io::Result<usize> {
    let current = format!("{name}.jsonl");
    for _ in 0..TRIES {
        let file = open(directory, &current, may_make)?;
        // A file system without locks still takes lines. Whoever keeps the lock keeps only this thread waiting.
        let _lock = Flock::lock(file.try_clone()?, FlockArg::LockExclusive).ok();
        let metadata = file.metadata()?;
        if !is_at(directory, &current, metadata.ino()) {
            continue;
        }
        let size = metadata.len();
        if size > 0 && size.saturating_add(lines.len() as u64) > MAX_BYTES {
            if !may_make {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let before = format!("{name}.1.jsonl");
            renameat(directory, current.as_str(), directory, before.as_str())?;
            continue;
        }
        if is_torn(&file, size)? {
            // The rest of the file stays readable line by line.
            (&file).write_all(b"\n")?;
        }
        return (&file).write(lines);
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Opens a file of ours to append to it; never what somebody put there in its place.
fn open(directory: &OwnedFd, name: &str, may_make: bool) -> io::Result<File> {
    let mut flags =
        OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    flags.set(OFlag::O_CREAT, may_make);
    let mode = Mode::from_bits_truncate(0o640);
    let file = File::from(openat(directory, name, flags, mode)?);
    let metadata = file.metadata()?;
    let is_ours =
        metadata.is_file() && metadata.nlink() <= 1 && metadata.uid() == geteuid().as_raw();
    if is_ours {
        Ok(file)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Whether the file that was opened has not been put aside meanwhile.
fn is_at(directory: &OwnedFd, name: &str, inode: u64) -> bool {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_ino == inode)
}

/// Whether the last line is not whole: the disk filled up, or the agent was killed, in the middle of it.
fn is_torn(file: &File, size: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if size > 0 {
        file.read_at(&mut last, size - 1)?;
    }
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;

    use super::{MAX_BYTES, append};

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn append(&self, lines: &[u8], may_make: bool) -> std::io::Result<usize> {
            let directory = OwnedFd::from(fs::File::open(self.0.path()).unwrap());
            append(&directory, "x", lines, may_make)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.path().join(name)).ok()
        }
    }

    #[test]
    fn a_full_file_is_put_aside_once() {
        let place = Place::new();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..5 * MAX_BYTES / 1024 {
            assert_eq!(place.append(&line, true).unwrap(), line.len());
        }
        // Not by one who may not make another.
        assert!(place.append(b"last\n", false).is_err());
        place.append(b"last\n", true).unwrap();
        assert_eq!(place.read("x.jsonl").unwrap(), "last\n");
        let before = place.read("x.1.jsonl").unwrap();
        assert_eq!(before.len() as u64, MAX_BYTES);
        assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 2);
    }

    #[test]
    fn many_at_once_lose_and_tear_nothing() {
        const WRITERS: usize = 8;
        const LINES: usize = 400;
        let place = Place::new();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let place = &place;
                scope.spawn(move || {
                    for number in 0..LINES {
                        // Some more than half of what two files take, so that one is put aside under way.
                        let line = format!("{writer} {number} {}\n", "x".repeat(400));
                        assert_eq!(place.append(line.as_bytes(), true).unwrap(), line.len());
                    }
                });
            }
        });
        let all = ["x.1.jsonl", "x.jsonl"].map(|name| place.read(name).unwrap());
        let mut next = [0; WRITERS];
        for line in all.concat().lines() {
            let mut words = line.split(' ');
            let writer: usize = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next().unwrap(), next[writer].to_string());
            assert_eq!(words.next().unwrap().len(), 400);
            next[writer] += 1;
        }
        assert_eq!(next, [LINES; WRITERS]);
    }

    #[test]
    fn what_follows_a_line_that_was_cut_off_is_whole() {
        let place = Place::new();
        fs::write(place.0.path().join("x.jsonl"), "one\n{\"tim").unwrap();
        place.append(b"two\n", false).unwrap();
        assert_eq!(place.read("x.jsonl").unwrap(), "one\n{\"tim\ntwo\n");
    }

    #[test]
    fn nothing_is_made_by_one_who_may_not() {
        let place = Place::new();
        let error = place.append(b"one\n", false).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
    }
}
