//! Finding the agent, and telling why there is none.

use std::path::PathBuf;
use std::time::Duration;

use jobcred_client::{Builder, Client, Error, ErrorKind};
use jobcred_wire::{SOCKET_VARIABLE, SocketSearch};

use super::arguments::GlobalOptions;
use super::setup::{Setup, check_log};
use super::{exit, output};
use crate::config::FILE_VARIABLE;
use crate::platform::Environment;
use crate::supervisor::say;

/// Everything a subcommand may take, in all: the agent's own patience with Azure ends before.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Fills in the socket that the configuration file names, where neither a flag nor the variable does.
///
/// # Errors
/// The report of all mistakes in the configuration, where there is a file, and of a `--log` that is none.
pub(super) fn settle(options: &mut GlobalOptions) -> Result<(), String> {
    check_log(options)?;
    let environment = Environment::of_process();
    let has_file = options.config.is_some() || environment.get(FILE_VARIABLE).is_some();
    if options.socket.is_none() && environment.get(SOCKET_VARIABLE).is_none() && has_file {
        options.socket = Setup::read(options)?.config.socket;
    }
    Ok(())
}

/// A client of the agent that `--socket` names, else of the one that every other client would find.
pub(super) fn client(options: &GlobalOptions) -> Client {
    builder(options).timeout(TIMEOUT).build()
}

/// The same, with a patience of its own.
pub(super) fn impatient_client(options: &GlobalOptions, timeout: Duration) -> Client {
    builder(options)
        .timeout(timeout)
        .connect_timeout(timeout)
        .build()
}

fn builder(options: &GlobalOptions) -> Builder {
    let builder = Client::builder();
    match &options.socket {
        Some(path) => builder.socket(path),
        None => builder,
    }
}

/// The places a client would look at.
pub(super) fn places(options: &GlobalOptions, environment: &Environment) -> Vec<PathBuf> {
    if let Some(path) = &options.socket {
        return vec![path.clone()];
    }
    SocketSearch {
        explicit: environment.get(SOCKET_VARIABLE).map(str::to_owned),
        runtime_dir: environment.get("XDG_RUNTIME_DIR").map(str::to_owned),
        uid: nix::unistd::geteuid().as_raw(),
    }
    .paths()
}

/// Says what went wrong, and gives the code for it.
pub(super) fn report(error: &Error) -> i32 {
    say(&output::plain(error.message()));
    if let Some(hint) = error.hint() {
        say(&output::plain(hint));
    }
    if let Some(id) = error.request_id() {
        say(&format!(
            "request {}: the agent's log has more of it where that has the level info (JOBCRED_LOG=info; under `run` it is warn)",
            output::plain(id)
        ));
    }
    code(error.kind())
}

/// The same of an answer to whether the declared resources are there.
pub(super) fn report_unready(error: &Error) -> i32 {
    let code = report(error);
    match error.kind() {
        ErrorKind::Agent(kind) => exit::of_readiness(kind),
        _ => code,
    }
}

/// The exit code for an error.
pub(super) fn code(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::Invalid => exit::USAGE,
        ErrorKind::Agent(code) => exit::of(code),
        _ => exit::NO_AGENT,
    }
}
