//! A place for the socket, and a `run` under way in it.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_jobcred");
pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A COMMAND that answers signals until USR1 ends it with code 3.
pub(crate) const LISTENS: &str = "tail -f /dev/null > /dev/null 2>&1 & child=$!
    trap 'echo TERM' TERM; trap 'kill $child; echo USR1; exit 3' USR1
    echo ready; while kill -0 $child; do wait $child; done";

/// A directory with the socket's place in it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path().join("own").join("agent.sock")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program in an environment that leads to no identity and to this place.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("JOBCRED_PROBE", "false")
            .env("JOBCRED_LOG", "warn")
            // Else it would lie beside the tests.
            .env("JOBCRED_JOB_LOG", "off")
            .env("JOBCRED_SOCKET", self.socket())
            .stdin(Stdio::null());
        command
    }

    /// Where the one sandboxed run listens: on a name of its own.
    pub(crate) fn sandbox_socket(&self) -> PathBuf {
        let own = self.socket().with_file_name("");
        let found = std::fs::read_dir(own)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_str().unwrap().starts_with("run-"))
            });
        found.unwrap()
    }

    /// A directory where any user may make files, and the program in it: the build's own may be closed to other users.
    pub(crate) fn with_program_for_others(&self) -> (PathBuf, PathBuf) {
        let directory = self.file("others");
        std::fs::create_dir(&directory).unwrap();
        for open in [self.0.path(), &directory] {
            std::fs::set_permissions(open, Permissions::from_mode(0o777)).unwrap();
        }
        let program = directory.join("jobcred");
        std::fs::copy(BINARY, &program).unwrap();
        (directory, program)
    }

    pub(crate) fn jobcred(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(BINARY);
        command.args(arguments);
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.jobcred(arguments).output().unwrap()
    }

    /// The pid of the agent that answers.
    pub(crate) fn agent(&self) -> i32 {
        self.agent_at(&self.socket())
    }

    /// The pid of the agent that answers at `socket`.
    pub(crate) fn agent_at(&self, socket: &Path) -> i32 {
        let output = self.output(&["status", "--json", "--socket", socket.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }
}

/// A `run` under way whose COMMAND has said "ready".
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, stdout };
        assert_eq!(running.line(), "ready");
        running
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The pid of `run` itself.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// The rest of the output and the status.
    pub(crate) fn end(mut self) -> (String, std::process::ExitStatus) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line of `/proc/PID/status`, without its name; nothing when the process is gone.
pub(crate) fn status_line(pid: i32, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|value| value.trim().to_owned())
        .unwrap_or_default()
}

/// The children of a process, in the order of their start.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// What the descriptors of a process lead to. Whoever may not look fails here, and does not find that there is nothing.
pub(crate) fn held(pid: i32) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| match std::fs::read_link(entry.unwrap().path()) {
            // Closed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            link => Some(link.unwrap()),
        })
        .collect();
    assert!(!found.is_empty());
    found
}

/// Waits until a process that is not our child has ended.
pub(crate) fn wait_for_end(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            // Any other one says nothing of the process.
            assert_eq!(error, rustix::io::Errno::SRCH);
            return;
        }
    };
    let mut wait = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut wait, PollTimeout::from(10_000_u16)).unwrap();
    assert_eq!(ended, 1, "process {pid:?} is still there");
}
