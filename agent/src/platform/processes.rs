//! What `/proc` says about a process that asked: what it runs and which rank of the training it is.
//!
//! For people who read `status` and `top`, never for a decision: a process can call itself what it likes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// The variables by which launchers tell a process its place: torchrun, Open MPI, PMI (MPICH, Intel MPI), Slurm.
///
/// No other variable of a process is ever looked at.
const RANK_VARIABLES: [&str; 11] = [
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK",
    "SLURM_PROCID",
    "SLURM_LOCALID",
];
/// How much of an environment is looked through. A larger one is rare, and its ranks are then not known.
const MAX_ENVIRONMENT_BYTES: u64 = 256 * 1024;
/// A rank is a small number; whatever is longer is something else and is not shown.
const MAX_RANK_DIGITS: usize = 9;
/// Far more than `/proc/PID/stat` has.
const MAX_STAT_BYTES: u64 = 4096;

/// The processes of this machine, as far as they are visible.
#[derive(Clone, Debug)]
pub struct Processes {
    root: PathBuf,
}

/// One run of one program: a pid that is used again has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartTime(u64);

/// What a process is, as far as it may be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// The name that the kernel keeps for it, at most 15 bytes.
    pub name: Option<String>,
    /// Its place in the training, by the variables it was started with.
    pub ranks: BTreeMap<String, String>,
}

impl Processes {
    /// Those in `/proc`.
    #[must_use]
    pub fn system() -> Self {
        Self::under("/proc")
    }

    /// Those in a directory that looks like `/proc`.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// What this process sees as the machine: the kernel's names for its network, mounts and process ids. Where two have the same,
    /// a loopback address, a path and a pid mean the same to both. `None` where the kernel does not tell.
    #[must_use]
    pub fn own_namespaces(&self) -> Option<String> {
        let names = ["net", "mnt", "pid"].map(|kind| {
            let link = std::fs::read_link(self.root.join("self/ns").join(kind)).ok()?;
            link.into_os_string().into_string().ok()
        });
        let names: Option<Vec<String>> = names.into_iter().collect();
        Some(names?.join(" "))
    }

    /// When the process began; `None` when there is none, or it is not visible.
    #[must_use]
    pub fn start_time(&self, pid: u32) -> Option<StartTime> {
        let stat = self.read(pid, "stat", MAX_STAT_BYTES)?;
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in parentheses and may itself hold any; what follows the last one are numbers and the state.
        let (_, rest) = stat.rsplit_once(')')?;
        // proc_pid_stat(5): the start time is field 22, and the state, which comes first here, field 3.
        rest.split_ascii_whitespace()
            .nth(22 - 3)?
            .parse()
            .ok()
            .map(StartTime)
    }

    /// What can be seen of the process. The environment of another user's process cannot.
    #[must_use]
    pub fn facts(&self, pid: u32) -> ProcessFacts {
        let name = self
            .read(pid, "comm", 64)
            .map(|name| String::from_utf8_lossy(&name).trim_end().to_owned())
            .filter(|name| !name.is_empty());
        let ranks = self
            .read(pid, "environ", MAX_ENVIRONMENT_BYTES)
            .map(|environment| ranks_in(whole_entries(&environment)))
            .unwrap_or_default();
        ProcessFacts { name, ranks }
    }

    fn read(&self, pid: u32, what: &str, limit: u64) -> Option<Vec<u8>> {
        let path = self.root.join(pid.to_string()).join(what);
        let mut bytes = Vec::new();
        File::open(path)
            .ok()?
            .take(limit)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(bytes)
    }
}

/// Without what comes after the last entry's end: a number that is cut off would be another one.
fn whole_entries(environment: &[u8]) -> &[u8] {
    let end = environment.iter().rposition(|&byte| byte == 0);
    environment.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn ranks_in(environment: &[u8]) -> BTreeMap<String, String> {
    let mut ranks = BTreeMap::new();
    for entry in environment.split(|&byte| byte == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else {
            continue;
        };
        if let Some((name, value)) = entry.split_once('=')
            && RANK_VARIABLES.contains(&name)
            && !value.is_empty()
            && value.len() <= MAX_RANK_DIGITS
            && value.bytes().all(|byte| byte.is_ascii_digit())
        {
            ranks.insert(name.to_owned(), value.to_owned());
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Processes, ranks_in, whole_entries};

    #[test]
    fn this_process_can_see_itself() {
        let processes = Processes::system();
        let own = std::process::id();
        let start = processes.start_time(own);
        assert!(start.is_some());
        assert_eq!(start, processes.start_time(own));
        assert!(processes.facts(own).name.is_some());
        // Above the largest pid that a kernel gives out.
        assert_eq!(processes.start_time(1 << 23), None);
        assert_eq!(processes.facts(1 << 23), super::ProcessFacts::default());
        let namespaces = processes.own_namespaces().unwrap();
        assert!(namespaces.starts_with("net:["), "{namespaces}");
        assert_eq!(Processes::under("/nowhere").own_namespaces(), None);
    }

    #[test]
    fn a_name_cannot_pretend_a_start_time() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("7")).unwrap();
        let stat = "7 (a) R 1 2) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        fs::write(dir.path().join("7/stat"), stat).unwrap();
        let processes = Processes::under(dir.path());
        assert_eq!(processes.start_time(7), Some(super::StartTime(4242)));
    }

    #[test]
    fn only_ranks_are_taken_from_an_environment_and_only_numbers() {
        let environment = b"RANK=3\0SECRET=RANK=1\0LOCAL_RANK=secret\0WORLD_SIZE=\0\xff=1\0\
            PMI_RANK=12345678901\0OMPI_COMM_WORLD_RANK=0\0PASSWORD=7";
        let ranks: Vec<_> = ranks_in(environment).into_iter().collect();
        assert_eq!(
            ranks,
            [("OMPI_COMM_WORLD_RANK", "0"), ("RANK", "3")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(whole_entries(b"A=1\0RANK=1"), b"A=1");
        assert_eq!(whole_entries(b"RANK=1"), b"");
    }
}
