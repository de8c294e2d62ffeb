//! Small files the platform puts in place: service-account tokens, markers of a compute instance.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

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
        let file = fs::File::open(self.resolve(path))?;
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::path::Path;

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
}
