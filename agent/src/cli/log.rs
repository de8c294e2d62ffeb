//! The agent's log, on stderr.

mod job;
mod lossy;

use std::io::{self, Write, stderr};
use std::os::fd::AsFd as _;

use tracing_subscriber::EnvFilter;

use self::job::{Marks, Place, Rolling};
use self::lossy::Lossy;
use super::arguments::AgentOptions;
use super::setup::Setup;
use crate::config::{Config, LogFormat};
use crate::journal::Journal;

/// What is left of the log to do at the end: [`Log::flush`].
#[derive(Debug)]
pub(super) struct Log(Lossy);

/// Turns the log on. `config.log` was checked when it was read; a filter that is refused all the same means the default.
///
/// Under `run` the log shares stderr with COMMAND, so only what a person should look at is said unless more is asked for.
pub(super) fn init(config: &Config, supervised: bool) -> Log {
    let default = if supervised { "warn" } else { "info" };
    let filter = EnvFilter::try_new(config.log.as_deref().unwrap_or(default))
        .unwrap_or_else(|_| EnvFilter::new(default));
    let gap = |lost| format!("jobcred: {lost} lines of the log were dropped here\n");
    let lossy = Lossy::start(|| Unlocked, gap);
    let writer = lossy.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_ansi(false);
    // Only fails when there is a log already.
    let _ = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Log(lossy)
}

/// The journal that goes to the job's log, and what is left of that to do at the end; neither where there shall be none.
pub(super) fn journal(setup: &Setup, options: &AgentOptions) -> (Journal, Option<Log>) {
    let here = std::path::absolute(".").ok();
    // A name is only wanted to tell machines apart.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let marks = Marks {
        directory: if options.is_of_a_job() {
            options.directory.as_deref()
        } else {
            here.as_deref()
        },
        is_job: options.supervised.is_some(),
        pid: options
            .supervised
            .unwrap_or_else(|| std::process::id().cast_signed()),
        socket: setup.config.socket.as_deref(),
        host: &host,
    };
    let Some(place) = Place::of(&setup.config.job_log, &setup.outside.environment, marks) else {
        return (Journal::default(), None);
    };
    let gap = |lost| format!("{{\"event\":\"gap\",\"lines\":{lost}}}\n");
    let lossy = Lossy::start(move || Rolling::new(place), gap);
    let writer = lossy.clone();
    let journal = Journal::new(setup.outside.clock.clone(), move |line| writer.take(line));
    (journal, Some(Log(lossy)))
}

impl Log {
    /// Waits for the last lines, but not long: whoever reads them may have stopped.
    pub(super) fn flush(&self) {
        self.0.flush();
    }
}

/// Stderr without the lock of the standard library, which a write that hangs would keep: whoever else writes there would hang too.
struct Unlocked;

impl Write for Unlocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(stderr().as_fd(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
