//! `docker-credential-jobcred`: gives docker, podman, skopeo and other container tools the job's registry credentials.
//!
//! A container tool runs it with one word, writes an address to its standard input and reads an answer from its
//! standard output. It runs once per command, so it does nothing but ask the agent.

mod input;
mod verb;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::verb::Reply;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let reply = match (arguments.next(), arguments.next()) {
        (Some(word), None) => answer(&word),
        _ => usage(1),
    };
    // Nobody may be left to read: that is the caller's matter, and the exit status stands.
    let _ = io::stdout().write_all(reply.stdout.as_bytes());
    let _ = io::stdout().flush();
    let _ = io::stderr().write_all(reply.stderr.as_bytes());
    ExitCode::from(reply.status)
}

fn answer(word: &OsString) -> Reply {
    match word.to_str() {
        Some("get") => read(verb::get),
        Some("store") => read(verb::store),
        Some("erase") => read(verb::erase),
        Some("list") => verb::list(),
        Some("version" | "--version" | "-v") => Reply::success(concat!(
            env!("CARGO_PKG_NAME"),
            " (jobcred) ",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        Some("help" | "--help" | "-h") => usage(0),
        _ => usage(1),
    }
}

fn read(act: impl FnOnce(&[u8]) -> Reply) -> Reply {
    match input::read_all() {
        Ok(bytes) => act(&bytes),
        Err(error) => Reply::failure(&error.to_string()),
    }
}

/// On standard output even when it is a mistake, as the other helpers do it.
fn usage(status: u8) -> Reply {
    Reply {
        stdout: USAGE.to_owned(),
        stderr: String::new(),
        status,
    }
}

const USAGE: &str = "\
Usage: docker-credential-jobcred <get|store|erase|list|version>

Container tools run this by themselves. To let them, name it for a registry
in ~/.docker/config.json (docker, podman, skopeo and others read it):

  { \"credHelpers\": { \"myregistry.azurecr.io\": \"jobcred\" } }

It asks the jobcred agent of the job: jobcred run -- COMMAND
";
