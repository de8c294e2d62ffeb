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

use super::signals::Signals;
use super::{Entry, Plan, say};

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
    pub(super) fn new(program: &OsStr, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        let program = program.display();
        let message = match error.kind() {
            io::ErrorKind::NotFound => format!("{program}: command not found"),
            _ => format!("{program}: {error}"),
        };
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        Self {
            code,
            message,
            is_for_want_of_room: [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE]
                .contains(&errno),
        }
    }
}

/// Starts COMMAND. `search_path` is `PATH`.
pub(super) fn spawn(plan: &Plan, search_path: Option<&str>) -> Result<Child, Failure> {
    let [program, arguments @ ..] = plan.command.as_slice() else {
        return Err(Failure::new(
            OsStr::new("run"),
            &io::ErrorKind::NotFound.into(),
        ));
    };
    let mut full = words(program, arguments);
    full.envs(plan.variables.iter().map(|(name, value)| (name, value)));
    let error = match full.spawn() {
        Ok(child) => return Ok(child),
        Err(error) => error,
    };
    let second = match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        // A script without a first line that names its interpreter: every shell, and execvp(3), hands it to sh.
        Errno::ENOEXEC => find(program, search_path).map(|path| {
            let mut shell = words(OsStr::new("/bin/sh"), &[path.into_os_string()]);
            shell.args(arguments);
            shell.envs(plan.variables.iter().map(|(name, value)| (name, value)));
            shell
        }),
        // The environment is too large by what we added: COMMAND matters more.
        Errno::E2BIG => {
            say(
                "the environment is full: COMMAND runs without JOBCRED_SOCKET and does not find the agent",
            );
            Some(words(program, arguments))
        }
        _ => None,
    };
    match second.map(|mut command| command.spawn()) {
        Some(Ok(child)) => Ok(child),
        Some(Err(error)) => Err(Failure::new(program, &error)),
        None => Err(Failure::new(program, &error)),
    }
}

/// Becomes COMMAND, with the signal mask as it was given, when there is no room for COMMAND beside this process: it runs as it
/// would without us, though nobody serves it then. Comes back only if that fails, too.
pub(super) fn become_it(plan: &Plan, entry: &Entry, before: &Failure) -> Failure {
    say(&format!(
        "{}; it runs in place of jobcred, without an agent",
        before.message
    ));
    let [program, arguments @ ..] = plan.command.as_slice() else {
        return Failure::new(OsStr::new("run"), &io::ErrorKind::NotFound.into());
    };
    // The place of the start is still the current one, and no descriptor of COMMAND's has been closed.
    let mut command = words(program, arguments);
    Signals::with_entry_mask(entry, || Failure::new(program, &command.exec())).0
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
