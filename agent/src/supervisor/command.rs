//! COMMAND: started as a shell would start it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use command_fds::CommandFdExt as _;
use nix::errno::Errno;

use super::shell_hint::{hint, shown};
use super::signals::Signals;
use super::{Entry, Plan};

/// The exit code of shells for a command that is not there.
const NOT_FOUND: i32 = 127;
/// The exit code of shells for a command that is there but cannot be run.
const NOT_EXECUTABLE: i32 = 126;

/// Why COMMAND could not be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The exit code a shell would give.
    pub(super) code: i32,
    pub(super) message: String,
    /// Whether there was no room for one more process or descriptor: without us COMMAND would have needed none.
    pub(super) is_for_want_of_room: bool,
}

impl Failure {
    pub(super) fn new(program: &OsStr, arguments: &[OsString], error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        let name = shown(program);
        let message = match error.kind() {
            io::ErrorKind::NotFound => match hint(program, arguments) {
                Some(hint) => format!("{name}: command not found. {hint}"),
                None => format!("{name}: command not found"),
            },
            _ => format!("{name}: {error}"),
        };
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        Self {
            code,
            message,
            is_for_want_of_room: [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE]
                .contains(&errno),
        }
    }

    /// For a COMMAND without words. The command line always has one.
    fn empty() -> Self {
        Self::new(OsStr::new("run"), &[], &io::ErrorKind::NotFound.into())
    }
}

/// COMMAND, started.
pub(super) struct Started {
    pub(super) child: Child,
    /// What is to be said of it, once signals are blocked again.
    pub(super) notice: Option<&'static str>,
}

/// Starts COMMAND. `search_path` is `PATH`. Says nothing: a word may raise signals, which are not blocked now.
pub(super) fn spawn(plan: &Plan, search_path: Option<&str>) -> Result<Started, Failure> {
    let [program, arguments @ ..] = plan.command.as_slice() else {
        return Err(Failure::empty());
    };
    let full = |mut command: Command| {
        command.envs(plan.variables.iter());
        command
    };
    let (mut notice, mut started) = (None, full(words(program, arguments)).spawn());
    if let Err(error) = &started {
        match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::ENOEXEC => {
                if let Some(shell) = by_shell(program, arguments, search_path) {
                    started = full(shell).spawn();
                }
            }
            // The environment is too large by what we added: COMMAND matters more.
            Errno::E2BIG => {
                notice = Some(
                    "the environment is full: COMMAND runs without JOBCRED_SOCKET and does not find the agent",
                );
                started = words(program, arguments).spawn();
            }
            _ => {}
        }
    }
    match started {
        Ok(child) => Ok(Started { child, notice }),
        Err(error) => Err(Failure::new(program, arguments, &error)),
    }
}

/// Becomes COMMAND, with the signal mask as it was given: it runs as it would without us, and no agent serves it. Comes back only if
/// that fails. `signals` are those that have come so far.
pub(super) fn become_it(
    command: &[OsString],
    entry: &Entry,
    search_path: Option<&str>,
    signals: &[i32],
) -> Failure {
    let [program, arguments @ ..] = command else {
        return Failure::empty();
    };
    // The place of the start is still the current one, and no descriptor of COMMAND's has been closed.
    Signals::with_entry_state(entry, signals, || {
        let mut error = words(program, arguments).exec();
        if error.raw_os_error() == Some(Errno::ENOEXEC as i32)
            && let Some(mut shell) = by_shell(program, arguments, search_path)
        {
            error = shell.exec();
        }
        Failure::new(program, arguments, &error)
    })
}

/// A script without a first line that names its interpreter: every shell, and execvp(3), hands it to sh.
fn by_shell(program: &OsStr, arguments: &[OsString], search_path: Option<&str>) -> Option<Command> {
    let path = find(program, search_path)?;
    let mut shell = words(OsStr::new("/bin/sh"), &[path.into_os_string()]);
    shell.args(arguments);
    Some(shell)
}

/// A program and its arguments, to be started by fork and exec.
///
/// The mapping of no descriptors keeps the standard library from `posix_spawn`, which in glibc leaves two internal signals
/// ignored in the child: one more line of `/proc/self/status` that would differ.
fn words(program: &OsStr, arguments: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).preserved_fds(Vec::new());
    command
}

fn find(program: &OsStr, search_path: Option<&str>) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    search_path?
        .split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|path| {
            fs::metadata(path).is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        })
}
