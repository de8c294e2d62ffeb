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

/// The descriptor number the `LISTEN_FDS` convention begins with.
const FIRST_LISTENER: i32 = 3;
/// An agent that lived this long was healthy: its death is a new story.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// The longest wait before another try.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// After this many deaths in a row it is said that something is wrong for good.
const GIVING_UP_HOPE: u32 = 6;

/// The agent process, alive or not.
pub(super) struct Agent {
    listener: UnixListener,
    arguments: Vec<OsString>,
    pid: Option<i32>,
    deaths: u32,
}

impl Agent {
    pub(super) fn new(listener: UnixListener, arguments: Vec<OsString>) -> Self {
        Self {
            listener,
            arguments,
            pid: None,
            deaths: 0,
        }
    }

    /// Its pid while it lives.
    pub(super) fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Starts it.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let mapping = FdMapping {
            parent_fd: OwnedFd::from(self.listener.try_clone()?),
            child_fd: FIRST_LISTENER,
        };
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("jobcred")
            .args(&self.arguments)
            .env("LISTEN_FDS", "1")
            // The convention wants the child's own pid here, which nobody knows yet; left over from somebody else it would be wrong.
            .env_remove("LISTEN_PID")
            .stdin(null_device(false)?)
            .stdout(null_device(true)?)
            .fd_mappings(vec![mapping])
            .map_err(io::Error::other)?;
        let child = command.spawn()?;
        self.pid = Some(child.id().cast_signed());
        Ok(())
    }

    /// Takes note of its death. The wait before the next start.
    pub(super) fn note_death(&mut self) -> Duration {
        self.pid = None;
        self.deaths = self.deaths.saturating_add(1);
        back_off(self.deaths)
    }

    /// Takes note that it has lived for [`HEALTHY_AFTER`].
    pub(super) fn note_health(&mut self) {
        self.deaths = 0;
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
