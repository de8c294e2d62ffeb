//! The job's log: a file that outlives the agent, where the platform or a person finds it. What is in it is the journal's.
//!
//! Everything here happens on the log's own thread, which the agent never waits for: the directory may be a network file
//! system that hangs, or a disk that is full. What cannot be written is lost, and the job does not notice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use ring::digest::{SHA256, digest};

use crate::config::JobLog;
use crate::platform::Environment;

/// When a file is full, in bytes. The one before it is kept, so that a job leaves twice as much at most.
const MAX_BYTES: u64 = 1024 * 1024;
/// The directory that platforms and people look into, and ours in it.
const LOGS: &str = "logs";
const OURS: &str = "jobcred";
/// Variables that number a job's nodes.
const NODE_RANKS: [&str; 3] = ["AZUREML_CR_NODE_RANK", "NODE_RANK", "GROUP_RANK"];
/// The variable by which an Azure ML job knows itself: the platform uploads its `logs` then.
const RUN_ID: &str = "AZUREML_RUN_ID";

/// Where the file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    directory: Directory,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Directory {
    /// `logs/jobcred` below it; whether `logs` is made, too.
    Below(PathBuf, bool),
    /// This one.
    Exactly(PathBuf),
}

/// What tells one agent's file from another's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    /// Where COMMAND runs, or the sidecar; absolute.
    pub(super) directory: Option<&'a Path>,
    /// Whether it is COMMAND that runs there.
    pub(super) is_job: bool,
    /// The pid of the supervisor that started the agent first, or the agent's own.
    pub(super) pid: i32,
    /// Where the agent answers.
    pub(super) socket: Option<&'a Path>,
    /// The machine's name. It is not shown, only told apart.
    pub(super) host: &'a str,
}

impl Place {
    /// The place, if there is to be a log. Asks no file system.
    pub(super) fn of(
        setting: &JobLog,
        environment: &Environment,
        marks: Marks<'_>,
    ) -> Option<Self> {
        let run_id = environment.get(RUN_ID);
        let directory = match setting {
            JobLog::Off => return None,
            JobLog::In(directory) => Directory::Exactly(directory.clone()),
            JobLog::Auto => {
                let directory = marks.directory.filter(|path| path.is_absolute())?;
                Directory::Below(directory.to_owned(), marks.is_job && run_id.is_some())
            }
        };
        let rank = NODE_RANKS
            .iter()
            .find_map(|name| environment.get(name))
            .filter(|rank| {
                (1..=6).contains(&rank.len()) && rank.bytes().all(|byte| byte.is_ascii_digit())
            });
        // The same for all agents of one run at one place on one node, one after the other; another for every other.
        let run = match run_id {
            Some(id) => id.to_owned(),
            None => marks.pid.to_string(),
        };
        let socket = marks.socket.map(Path::to_string_lossy).unwrap_or_default();
        let name = format!(
            "node{}-{}-{}",
            rank.unwrap_or_default(),
            short_hash(marks.host),
            short_hash(&format!("{run}\0{socket}"))
        );
        Some(Self { directory, name })
    }

    fn open_directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        match &self.directory {
            Directory::Exactly(path) => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o750)
                    .create(path)?;
                Ok(open(path, flags, Mode::empty())?)
            }
            Directory::Below(path, is_made) => {
                let logs = path.join(LOGS);
                if *is_made {
                    make(&logs, 0o777)?;
                }
                let ours = logs.join(OURS);
                make(&ours, 0o750)?;
                Ok(open(&ours, flags | OFlag::O_NOFOLLOW, Mode::empty())?)
            }
        }
    }
}

/// Makes a directory unless there is one.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn short_hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let first = digest.as_ref().iter().take(4);
    let number = first.fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{number:08x}")
}

/// The file, and the one before it.
pub(super) struct Rolling {
    place: Place,
    state: State,
}

enum State {
    Unopened,
    Open(Opened),
    /// It could not be opened, and is left alone from now on.
    Closed,
}

struct Opened {
    directory: OwnedFd,
    file: File,
    size: u64,
    /// Whether the last line is not whole: a disk filled up in the middle of it.
    is_torn: bool,
}

impl Rolling {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            state: State::Unopened,
        }
    }

    fn open(&self) -> io::Result<Opened> {
        let directory = self.place.open_directory()?;
        let (file, size) = open_file(&directory, &self.current())?;
        Ok(Opened {
            directory,
            file,
            size,
            is_torn: false,
        })
    }

    fn current(&self) -> String {
        format!("{}.jsonl", self.place.name)
    }

    fn before(&self) -> String {
        format!("{}.1.jsonl", self.place.name)
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if matches!(self.state, State::Unopened) {
            self.state = State::Open(self.open()?);
        }
        let (current, before) = (self.current(), self.before());
        let State::Open(opened) = &mut self.state else {
            return Ok(());
        };
        let length = line.len() as u64;
        if opened.size > 0 && opened.size + length > MAX_BYTES {
            renameat(
                &opened.directory,
                current.as_str(),
                &opened.directory,
                before.as_str(),
            )?;
            (opened.file, opened.size) = open_file(&opened.directory, &current)?;
            opened.is_torn = false;
        }
        if opened.is_torn {
            // The rest of the file stays readable line by line.
            opened.file.write_all(b"\n")?;
            opened.is_torn = false;
        }
        // One write, so that lines of two agents do not mix.
        let written = opened.file.write(line)?;
        opened.size += written as u64;
        opened.is_torn = written > 0 && written < line.len();
        Ok(())
    }
}

impl Write for Rolling {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.write_line(line) {
            // A disk that is full may have room again; a place that cannot be opened stays as it is.
            if matches!(self.state, State::Unopened) {
                tracing::debug!(%error, "there is no job log");
                self.state = State::Closed;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a file of ours to append to it; never what somebody put there in its place.
fn open_file(directory: &OwnedFd, name: &str) -> io::Result<(File, u64)> {
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o640);
    let file = File::from(openat(directory, name, flags, mode)?);
    let metadata = file.metadata()?;
    let is_ours =
        metadata.is_file() && metadata.nlink() == 1 && metadata.uid() == geteuid().as_raw();
    if is_ours {
        Ok((file, metadata.len()))
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::{MAX_BYTES, Marks, Place, Rolling};
    use crate::config::JobLog;
    use crate::platform::Environment;

    fn marks(directory: &Path) -> Marks<'_> {
        Marks {
            directory: Some(directory),
            is_job: true,
            pid: 7,
            socket: None,
            host: "a-secret-host",
        }
    }

    fn place(directory: &Path, environment: &Environment) -> Place {
        Place::of(&JobLog::Auto, environment, marks(directory)).unwrap()
    }

    fn azure_ml() -> Environment {
        Environment::from([
            ("AZUREML_RUN_ID", "jane_doe_run_1"),
            ("AZUREML_CR_NODE_RANK", "3"),
        ])
    }

    /// Names and contents of what lies in a directory.
    fn files(directory: &Path) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(directory) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap_or_default())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn without_a_directory_for_logs_nothing_is_written_outside_azure_ml() {
        let directory = tempfile::tempdir().unwrap();
        let here = Environment::default();
        Rolling::new(place(directory.path(), &here))
            .write_all(b"x\n")
            .unwrap();
        assert_eq!(files(directory.path()), []);
        fs::create_dir(directory.path().join("logs")).unwrap();
        Rolling::new(place(directory.path(), &here))
            .write_all(b"x\n")
            .unwrap();
        let found = files(&directory.path().join("logs/jobcred"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, "x\n");
    }

    #[test]
    fn in_azure_ml_the_directory_is_made_and_the_name_tells_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Rolling::new(place(directory.path(), &azure_ml()));
        file.write_all(b"one\n").unwrap();
        file.write_all(b"two\n").unwrap();
        let ours = directory.path().join("logs/jobcred");
        let [(name, text)] = files(&ours).try_into().unwrap();
        assert_eq!(text, "one\ntwo\n");
        assert!(name.starts_with("node3-"), "{name}");
        assert!(!name.contains("jane") && !name.contains("host"), "{name}");
        let mode = fs::metadata(ours.join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        // The agent that is started again goes on in the same file; another node's does not.
        Rolling::new(place(directory.path(), &azure_ml()))
            .write_all(b"three\n")
            .unwrap();
        assert_eq!(files(&ours).len(), 1);
        let other = Marks {
            host: "another",
            ..marks(directory.path())
        };
        let other = Place::of(&JobLog::Auto, &azure_ml(), other).unwrap();
        Rolling::new(other).write_all(b"x\n").unwrap();
        assert_eq!(files(&ours).len(), 2);
    }

    #[test]
    fn a_full_file_is_put_aside_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Rolling::new(place(directory.path(), &azure_ml()));
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..5 * MAX_BYTES / 1024 {
            file.write_all(&line).unwrap();
        }
        file.write_all(b"last\n").unwrap();
        let found = files(&directory.path().join("logs/jobcred"));
        let sizes: Vec<_> = found.iter().map(|(_, text)| text.len() as u64).collect();
        assert_eq!(sizes, [MAX_BYTES, 5]);
        assert!(found[0].0.ends_with(".1.jsonl"));
    }

    #[test]
    fn what_somebody_put_in_its_place_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        let where_to = place(directory.path(), &azure_ml());
        Rolling::new(where_to.clone()).write_all(b"x\n").unwrap();
        let ours = directory.path().join("logs/jobcred");
        let [(name, _)] = files(&ours).try_into().unwrap();
        for put in [
            (|from, to| symlink(from, to).unwrap()) as fn(&Path, &Path),
            |from, to| fs::hard_link(from, to).unwrap(),
            |_, to| {
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
                nix::unistd::mkfifo(to, mode).unwrap();
            },
        ] {
            fs::remove_file(ours.join(&name)).unwrap();
            put(&precious, &ours.join(&name));
            Rolling::new(where_to.clone()).write_all(b"x\n").unwrap();
            assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        }
        fs::remove_dir_all(&ours).unwrap();
        symlink(directory.path(), &ours).unwrap();
        Rolling::new(where_to).write_all(b"x\n").unwrap();
        assert!(!directory.path().join(name).exists());
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let directory = tempfile::tempdir().unwrap();
        let marks = marks(directory.path());
        assert!(Place::of(&JobLog::Off, &azure_ml(), marks).is_none());
        let chosen = directory.path().join("a/b");
        let setting = JobLog::In(chosen.clone());
        let place = Place::of(&setting, &Environment::default(), marks).unwrap();
        Rolling::new(place).write_all(b"x\n").unwrap();
        assert_eq!(files(&chosen).len(), 1);
        let relative = Marks {
            directory: Some(Path::new("x")),
            ..marks
        };
        assert!(Place::of(&JobLog::Auto, &azure_ml(), relative).is_none());
    }

    #[test]
    fn a_full_disk_costs_lines_and_no_error() {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut file = Rolling::new(place(directory.path(), &azure_ml()));
        file.write_all(b"one\n").unwrap();
        let super::State::Open(opened) = &mut file.state else {
            panic!("it is open");
        };
        let full = fs::File::options().append(true).open("/dev/full").unwrap();
        let real = std::mem::replace(&mut opened.file, full);
        file.write_all(b"two\n").unwrap();
        let super::State::Open(opened) = &mut file.state else {
            panic!("it is open");
        };
        opened.file = real;
        file.write_all(b"three\n").unwrap();
        let found = files(&directory.path().join("logs/jobcred"));
        assert_eq!(found[0].1, "one\nthree\n");
    }
}
