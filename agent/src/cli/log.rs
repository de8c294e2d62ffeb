//! The agent's log, on stderr.

mod file;
mod job;
mod kept;
mod lossy;
mod stage;

use std::io::{self, Write, stderr};
use std::os::fd::AsFd as _;

use tracing_subscriber::EnvFilter;

use self::job::{JobFile, Marks, Place};
use self::lossy::Lossy;
pub(super) use self::stage::{SharedStage, Stage};
use super::arguments::AgentOptions;
use super::setup::Setup;
use super::supervised::Beginning;
use crate::config::{Config, JobLog, LogFormat};
use crate::journal::{self, Journal};

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
    let gap = |lost| format!("jobcred: {lost} lines of the log were dropped here\n").into_bytes();
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

/// Whether the job's log may be written while COMMAND runs. To be asked in its directory before it begins.
pub(super) fn is_live(setup: &Setup) -> bool {
    setup.config.job_log == JobLog::Auto && job::is_uploaded(&setup.outside.environment)
}

/// What tells the lines of one agent, and of those that are started again in its place, from the lines of others.
pub(super) fn new_id() -> String {
    let number = getrandom::u32().unwrap_or_else(|_| std::process::id());
    format!("{number:08x}")
}

/// The job's log, and what is left of it to do at the end.
#[derive(Debug)]
pub(super) struct AgentLog {
    log: Log,
    stage: SharedStage,
}

/// The journal that goes to the job's log, and the latter; neither where there shall be none.
pub(super) fn journal(
    beginning: &Beginning,
    options: &AgentOptions,
) -> (Journal, Option<AgentLog>) {
    let setup = &beginning.setup;
    let here = std::path::absolute(".").ok();
    // A name is only wanted to tell machines apart.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_of_a_job = options.is_of_a_job();
    let marks = Marks {
        directory: if is_of_a_job {
            options.directory.as_deref()
        } else {
            here.as_deref()
        },
        is_job: options.supervised.is_some(),
        is_uploaded: if is_of_a_job {
            options.live_log
        } else {
            is_live(setup)
        },
        host: &host,
        uid: setup.outside.own_uid,
    };
    let Some(place) = Place::of(&setup.config.job_log, &setup.outside.environment, marks) else {
        return (Journal::default(), None);
    };
    let id = options.log_id.clone().unwrap_or_else(new_id);
    let gap = {
        let (clock, id) = (setup.outside.clock.clone(), id.clone());
        move |lost| journal::gap(&clock, &id, lost)
    };
    let stage = SharedStage::new(Stage::Running);
    let is_first = options.restarts == 0 && !beginning.is_decided();
    let file = {
        let (stage, gap) = (stage.clone(), gap.clone());
        move || JobFile::new(place, is_first, stage, gap)
    };
    let lossy = Lossy::start(file, gap);
    let writer = lossy.clone();
    let clock = setup.outside.clock.clone();
    let journal = Journal::new(clock, id, move |line| writer.take(line));
    let log = Log(lossy);
    (journal, Some(AgentLog { log, stage }))
}

impl AgentLog {
    /// Writes the last lines, but does not wait long. `stage`: what is known of COMMAND at last.
    pub(super) fn end(&self, stage: Stage) {
        self.stage.set(stage);
        self.log.flush();
    }
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
