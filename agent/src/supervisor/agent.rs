//! The agent child: started with the listener, started again when it dies, ended after COMMAND.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::AgentPlan;
use crate::front::socket::SocketFile;

/// The descriptor number the `LISTEN_FDS` convention begins with.
const FIRST_LISTENER: i32 = 3;
/// Where the agent finds the record: after the listener, which alone is counted by that convention.
const RECORD: i32 = 4;
/// An agent that lived this long was healthy: its death is a new story.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// The longest wait before another try.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// After this many deaths in a row it is said that something is wrong for good.
const GIVING_UP_HOPE: u32 = 6;

/// The agent process, alive or not.
pub(super) struct Agent {
    listener: UnixListener,
    record: Option<OwnedFd>,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    pid: Option<i32>,
    deaths: u32,
    /// What was started last, or is to be started next.
    kind: Kind,
}

/// What an agent is started for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Serving,
    /// It only answers that there are no tokens: better than callers who wait for an agent that never stays up.
    Refusing,
    /// A refusing one that was told to end, so that serving is tried again.
    Leaving,
}

impl Agent {
    /// An agent that is not started yet, and the guard of its socket's file.
    pub(super) fn new(plan: AgentPlan) -> (Self, SocketFile) {
        let (listener, file) = plan.socket.into_parts();
        let agent = Self {
            listener,
            record: plan.record,
            arguments: plan.arguments,
            variables: plan.variables,
            pid: None,
            deaths: 0,
            kind: Kind::Serving,
        };
        (agent, file)
    }

    /// Its pid while it lives.
    pub(super) fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Starts it.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let mut mappings = vec![FdMapping {
            parent_fd: OwnedFd::from(self.listener.try_clone()?),
            child_fd: FIRST_LISTENER,
        }];
        let mut command = Command::new("/proc/self/exe");
        command.arg0("jobcred").args(&self.arguments);
        if self.kind == Kind::Refusing {
            command.arg("--refuse");
        } else if let Some(record) = &self.record {
            mappings.push(FdMapping {
                parent_fd: record.try_clone()?,
                child_fd: RECORD,
            });
            command.args(["--record", &RECORD.to_string()]);
        }
        command
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("LISTEN_FDS", "1")
            // The convention wants the child's own pid here, which nobody knows yet; left over from somebody else it would be wrong.
            .env_remove("LISTEN_PID")
            .stdin(null_device(false)?)
            .stdout(null_device(true)?)
            .fd_mappings(mappings)
            .map_err(io::Error::other)?;
        let child = command.spawn()?;
        self.pid = Some(child.id().cast_signed());
        Ok(())
    }

    /// Takes note of its death. The wait before the next start.
    pub(super) fn note_death(&mut self) -> Duration {
        self.pid = None;
        if self.kind == Kind::Leaving {
            self.kind = Kind::Serving;
            return Duration::ZERO;
        }
        self.deaths = self.deaths.saturating_add(1);
        if self.kind == Kind::Serving && self.deaths >= GIVING_UP_HOPE {
            self.kind = Kind::Refusing;
            return Duration::ZERO;
        }
        back_off(self.deaths)
    }

    /// Takes note that it has lived for [`HEALTHY_AFTER`]. One that only refuses makes place for another try then.
    pub(super) fn on_age(&mut self) {
        match self.kind {
            Kind::Serving => self.deaths = 0,
            Kind::Refusing => {
                self.kind = Kind::Leaving;
                self.signal(Signal::SIGTERM);
            }
            Kind::Leaving => {}
        }
    }

    /// Whether it was told to end, to be replaced: its end is no news.
    pub(super) fn is_being_replaced(&self) -> bool {
        self.kind == Kind::Leaving
    }

    /// Whether now is the moment to say that it keeps dying. True once per bad series.
    pub(super) fn is_hopeless_now(&self) -> bool {
        self.deaths == GIVING_UP_HOPE
    }

    /// Whether single deaths are still worth a line each.
    pub(super) fn is_newsworthy(&self) -> bool {
        self.deaths < GIVING_UP_HOPE
    }

    /// Sends it a signal, if it lives.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

fn null_device(write: bool) -> io::Result<Stdio> {
    // A container without /dev must still get its agent: a directory carries nothing either way.
    match File::options().read(!write).write(write).open("/dev/null") {
        Ok(file) => Ok(file.into()),
        Err(_) => fs::File::open("/").map(Into::into),
    }
}

/// Not at all after the first death, then growing from a tenth of a second.
fn back_off(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        many => Duration::from_millis(100)
            .saturating_mul(1 << (many - 2).min(16))
            .min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST_WAIT, back_off};

    #[test]
    fn one_death_costs_nothing_and_many_do_not_spin() {
        assert_eq!(back_off(1), Duration::ZERO);
        assert_eq!(back_off(2), Duration::from_millis(100));
        assert_eq!(back_off(u32::MAX), LONGEST_WAIT);
        for deaths in 1..40 {
            assert!(back_off(deaths) <= back_off(deaths + 1));
        }
    }
}
