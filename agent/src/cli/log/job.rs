//! The job's log: lines that outlive the agent, where the platform or a person finds them. What is in them is the journal's.
//!
//! The working directory is COMMAND's. What it makes, lists, empties, renames or unmounts there it must find as it would
//! without us, so nothing is made there while it runs: lines wait in memory until it has ended. Only where the platform has put
//! a `logs` to upload before COMMAND began do they go there at once.
//!
//! Everything here happens on the log's own thread, which the agent never waits for: the directory may be a network file
//! system that hangs, or a disk that is full. What cannot be written is lost, and the job does not notice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use ring::digest::{SHA256, digest};

use super::file::append;
use super::kept::Kept;
use super::stage::{SharedStage, Stage};
use crate::config::JobLog;
use crate::platform::Environment;

/// The directory that platforms and people look into, and ours in it.
const LOGS: &str = "logs";
const OURS: &str = "jobcred";
/// Variables that number a job's nodes.
const NODE_RANKS: [&str; 3] = ["AZUREML_CR_NODE_RANK", "NODE_RANK", "GROUP_RANK"];
/// The variable by which an Azure ML job knows itself: the platform uploads its `logs` then.
const RUN_ID: &str = "AZUREML_RUN_ID";

/// Where the file goes, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    directory: Directory,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Directory {
    /// `logs/jobcred` below it.
    Below {
        path: PathBuf,
        /// Whether `logs` is made at the end of a COMMAND that has failed, where there is none.
        is_made: bool,
        /// Whether lines go there before the end.
        is_live: bool,
    },
    /// This one, at once: somebody has chosen it.
    Exactly(PathBuf),
}

/// What an agent's place hangs on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    /// Where COMMAND runs, or the sidecar; absolute.
    pub(super) directory: Option<&'a Path>,
    /// Whether it is COMMAND that runs there.
    pub(super) is_job: bool,
    /// Whether [`is_uploaded`] was true of it before COMMAND began.
    pub(super) is_uploaded: bool,
    /// The machine's name. It is not shown, only told apart.
    pub(super) host: &'a str,
    /// The agent's user, who alone can write to its file.
    pub(super) uid: u32,
}

/// Whether the current directory has a `logs` that the platform uploads. To be asked before COMMAND begins: later it may be
/// COMMAND's own.
pub(super) fn is_uploaded(environment: &Environment) -> bool {
    // Nothing is read, and no link followed: that could hang, and COMMAND waits.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    environment.get(RUN_ID).is_some() && open(LOGS, flags, Mode::empty()).is_ok()
}

impl Place {
    /// The place, if there is to be a log. Asks no file system.
    pub(super) fn of(
        setting: &JobLog,
        environment: &Environment,
        marks: Marks<'_>,
    ) -> Option<Self> {
        let directory = match setting {
            JobLog::Off => return None,
            JobLog::In(directory) => Directory::Exactly(directory.clone()),
            JobLog::Auto => Directory::Below {
                path: marks
                    .directory
                    .filter(|path| path.is_absolute())?
                    .to_owned(),
                is_made: marks.is_job && environment.get(RUN_ID).is_some(),
                is_live: marks.is_uploaded,
            },
        };
        let rank = NODE_RANKS
            .iter()
            .find_map(|name| environment.get(name))
            .filter(|rank| {
                (1..=6).contains(&rank.len()) && rank.bytes().all(|byte| byte.is_ascii_digit())
            });
        let name = format!(
            "node{}-{}",
            rank.unwrap_or_default(),
            short_hash(&format!("{}\0{}", marks.host.trim(), marks.uid))
        );
        Some(Self { directory, name })
    }
}

fn short_hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let first = digest.as_ref().iter().take(4);
    let number = first.fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{number:08x}")
}

/// Keeps lines until they may be written, and writes them.
pub(super) struct JobFile<G> {
    place: Place,
    /// The line that stands for lines that were lost.
    gap: G,
    kept: Kept,
    /// Once COMMAND has ended its directory is nobody's any more.
    stage: SharedStage,
    /// Whether our directory and file may be made before that: once, by the job's first agent. COMMAND may have removed them.
    may_begin: bool,
    /// The file system that the directory is on: COMMAND may unmount it, and what comes to light below is not ours to fill.
    device: Option<u64>,
}

/// What may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Making {
    Nothing,
    /// Our directory and our file.
    Ours,
    /// And the directory they are in.
    All,
}

impl<G: Fn(u64) -> Vec<u8>> JobFile<G> {
    /// `is_first`: whether no agent of this job was here before.
    pub(super) fn new(place: Place, is_first: bool, stage: SharedStage, gap: G) -> Self {
        let device = match &place.directory {
            Directory::Below { path, .. } => device(path),
            Directory::Exactly(_) => None,
        };
        Self {
            place,
            gap,
            kept: Kept::default(),
            stage,
            may_begin: is_first,
            device,
        }
    }

    /// Writes what is kept, if this is the moment.
    fn write_down(&mut self) -> io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let (directory, making) = match &self.place.directory {
            Directory::Exactly(path) => (open_chosen(path)?, Making::All),
            Directory::Below {
                path,
                is_made,
                is_live,
            } => {
                let making = match (self.stage.get(), is_live) {
                    // What comes after a COMMAND that went well may want to make `logs` by itself.
                    (Stage::Failed, _) if *is_made => Making::All,
                    (Stage::Failed | Stage::Ended, _) => Making::Ours,
                    (Stage::Running, true) if self.may_begin => Making::Ours,
                    (Stage::Running, true) => Making::Nothing,
                    (Stage::Running, false) => return Ok(()),
                };
                // Also when this fails: what is there later may be COMMAND's.
                self.may_begin = false;
                if device(path) != self.device {
                    return Err(io::ErrorKind::NotFound.into());
                }
                (open_ours(path, making)?, making)
            }
        };
        let name = &self.place.name;
        self.kept.write(&self.gap, |lines| {
            append(&directory, name, lines, making != Making::Nothing)
        })
    }
}

impl<G: Fn(u64) -> Vec<u8>> Write for JobFile<G> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.kept.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_down().inspect_err(|error| {
            tracing::debug!(%error, "the job's log cannot be written now");
        })
    }
}

fn device(directory: &Path) -> Option<u64> {
    fs::metadata(directory).ok().map(|metadata| metadata.dev())
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_RDONLY);

fn open_chosen(path: &Path) -> io::Result<OwnedFd> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)?;
    Ok(open(path, DIRECTORY, Mode::empty())?)
}

fn open_ours(path: &Path, making: Making) -> io::Result<OwnedFd> {
    let logs = path.join(LOGS);
    if making == Making::All {
        make(&logs, 0o777)?;
    }
    let ours = logs.join(OURS);
    let is_new = making != Making::Nothing && make(&ours, 0o750)?;
    let directory = open(&ours, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
    if is_new {
        // Somebody's working tree shall not look changed to the next COMMAND.
        let _ = ignore_all(&directory);
    }
    Ok(directory)
}

/// Makes a directory unless there is one. Whether there was none.
fn make(path: &Path, mode: u32) -> io::Result<bool> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets git pass over all that is in a directory.
fn ignore_all(directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o640);
    File::from(openat(directory, ".gitignore", flags, mode)?).write_all(b"*\n")
}

#[cfg(test)]
mod tests;
