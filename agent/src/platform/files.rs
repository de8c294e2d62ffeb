//! Small files from outside: the configuration, service-account tokens, roots, markers of a compute instance.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// The file system as seen from a root directory: `/`, or a scenario's folder in a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// The machine's file system.
    #[must_use]
    pub fn system() -> Self {
        Self::under("/")
    }

    /// Paths are taken below `root`.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether `path` exists, as whatever kind of entry.
    #[must_use]
    pub fn exists(&self, path: &Path) -> bool {
        self.resolve(path).symlink_metadata().is_ok()
    }

    /// Whether `path` is a directory.
    #[must_use]
    pub fn is_dir(&self, path: &Path) -> bool {
        self.resolve(path).is_dir()
    }

    /// Reads a text file of at most `limit` bytes.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` for a larger file or one that is not UTF-8.
    pub fn read_text(&self, path: &Path, limit: u64) -> io::Result<String> {
        let mut text = String::new();
        let (file, _) = open_regular(&self.resolve(path))?;
        let read = file
            .take(limit.saturating_add(1))
            .read_to_string(&mut text)?;
        if read as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the file is larger than {limit} bytes"),
            ));
        }
        Ok(text)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Opens a regular file to read it, by way of symbolic links as well. Never waits: to open a FIFO would, until something writes to it.
///
/// # Errors
/// What the file system says; `InvalidInput` for what is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    // Looked at first: opening a device can have effects, and a socket cannot be opened.
    require_regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    require_regular(&metadata)?;
    Ok((file, metadata))
}

fn require_regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let name = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("it is {name}, not a regular file"),
    ))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use nix::sys::stat::Mode;

    use super::Files;

    #[test]
    fn reads_below_its_root_and_no_more_than_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "12345").unwrap();
        let files = Files::under(dir.path());
        assert!(files.exists(Path::new("/a")));
        assert!(files.is_dir(Path::new("/")));
        assert_eq!(files.read_text(Path::new("/a"), 5).unwrap(), "12345");
        let error = files.read_text(Path::new("/a"), 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn c13_only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        std::fs::write(at("file"), "text").unwrap();
        for name in ["pipe", "socket", "directory", "file"] {
            std::os::unix::fs::symlink(name, at(&format!("link-to-{name}"))).unwrap();
        }
        std::os::unix::fs::symlink("/dev/null", at("device")).unwrap();
        let files = Files::under(dir.path());
        let read = |name: &str| files.read_text(&Path::new("/").join(name), 10);
        for (name, kind) in [
            ("pipe", "a pipe"),
            ("socket", "a socket"),
            ("directory", "a directory"),
            ("device", "a device"),
            ("link-to-pipe", "a pipe"),
            ("link-to-socket", "a socket"),
            ("link-to-directory", "a directory"),
        ] {
            let error = read(name).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("it is {kind}, not a regular file")
            );
        }
        assert_eq!(read("file").unwrap(), "text");
        assert_eq!(read("link-to-file").unwrap(), "text");
        assert_eq!(read("missing").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
