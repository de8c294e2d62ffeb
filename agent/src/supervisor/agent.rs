//! The agent child: started with the listener, started again when it dies, ended after COMMAND.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Recipe;

/// The descriptor number the `LISTEN_FDS` convention begins with.
const FIRST_LISTENER: i32 = 3;
/// Where the agent finds its supervisor's lease, which that convention counts too.
pub(crate) const LEASE: i32 = 4;
/// Where it finds the record, which it does not count.
const RECORD: i32 = 5;
/// All that an agent is given.
pub(crate) const GIVEN: [i32; 3] = [FIRST_LISTENER, LEASE, RECORD];
/// What the agent says over it: that others count on it too, that nobody else does, and, once the supervisor has taken its
/// leave, that it stays for them.
pub const OTHERS: u8 = b'+';
/// See [`OTHERS`].
pub const ALONE: u8 = b'-';
/// See [`OTHERS`].
pub const STAYS: u8 = b'=';
/// What the supervisor says over it before it takes its leave, unless it was killed: COMMAND has ended.
pub const ENDED: u8 = b'.';
/// The same of a COMMAND that has failed.
pub const FAILED: u8 = b'!';
/// Why an agent refuses: the ones before it kept ending.
pub const KEEPS_ENDING: &str = "keeps-ending";
/// Why it refuses: what the ones before it decided is not known any more.
pub const LOST: &str = "lost";
/// An agent that lived this long was healthy: its death is a new story.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// The longest wait before another try.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// After this many deaths in a row, or starts that failed, COMMAND is not held back any longer.
const TROUBLE: u32 = 3;
/// After this many deaths in a row it is said that something is wrong for good.
const GIVING_UP_HOPE: u32 = 6;

/// The agent process, alive or not.
pub(super) struct Agent {
    /// What it answers on; `None` while somebody else starts agents here.
    listener: Option<UnixListener>,
    record: Option<OwnedFd>,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    pid: Option<i32>,
    /// Our lease on it. It sees the end of this when we are gone, however we went.
    lease: Option<UnixStream>,
    /// The last that it said over that.
    said: u8,
    deaths: u32,
    /// How often it was started.
    starts: u32,
    /// What was started last, or is to be started next.
    kind: Kind,
    /// Whether an agent may have decided here before. Without a record the next one does not know what.
    is_decided: bool,
}

/// What an agent is started for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Serving,
    /// It only answers that there are no tokens: better than callers who wait for an agent that never stays up.
    Refusing,
    /// A refusing one that was told to end, so that serving is tried again.
    Leaving,
    /// It refuses for good: what was decided is not known, and it must not decide otherwise.
    Lost,
}

impl Agent {
    /// An agent that is not started yet, and has no socket.
    pub(super) fn new(recipe: Recipe) -> Self {
        Self {
            listener: None,
            record: recipe.record,
            arguments: recipe.arguments,
            variables: recipe.variables,
            pid: None,
            lease: None,
            said: ALONE,
            deaths: 0,
            starts: 0,
            kind: Kind::Serving,
            is_decided: false,
        }
    }

    /// Gives it the socket it shall answer on.
    pub(super) fn listen(&mut self, listener: UnixListener) {
        self.listener = Some(listener);
    }

    /// Takes it away again.
    pub(super) fn hush(&mut self) {
        self.listener = None;
    }

    /// Takes note that another agent has served here, somebody else's.
    pub(super) fn note_other(&mut self) {
        self.is_decided = true;
    }

    /// Whether it has one, so that it is ours to start.
    pub(super) fn is_ours(&self) -> bool {
        self.listener.is_some()
    }

    /// What agents go by.
    pub(super) fn record(&self) -> Option<&OwnedFd> {
        self.record.as_ref()
    }

    /// Its pid while it lives.
    pub(super) fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Starts it.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let mut command = words(&self.arguments, &self.variables)?;
        command.args(["--restarts", &self.starts.to_string()]);
        if self.is_decided && self.record.is_none() {
            self.kind = Kind::Lost;
        }
        let refusal = match self.kind {
            Kind::Serving | Kind::Leaving => None,
            Kind::Refusing => Some(KEEPS_ENDING),
            Kind::Lost => Some(LOST),
        };
        let mut record = self.record.as_ref();
        if let Some(reason) = refusal {
            command.args(["--refuse", reason]);
            record = None;
        }
        hand_over(&mut command, listener, Some(theirs), record)?;
        let child = command.spawn()?;
        self.pid = Some(child.id().cast_signed());
        self.starts = self.starts.saturating_add(1);
        self.lease = Some(ours);
        self.said = ALONE;
        self.is_decided = true;
        Ok(())
    }

    /// Takes note of its death. The wait before the next start.
    pub(super) fn note_death(&mut self) -> Duration {
        self.pid = None;
        self.lease = None;
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
            Kind::Serving | Kind::Lost => self.deaths = 0,
            Kind::Refusing => {
                self.kind = Kind::Leaving;
                self.signal(Signal::SIGTERM);
            }
            Kind::Leaving => {}
        }
    }

    /// Our lease on it, where it says something now and then.
    pub(super) fn lease(&self) -> Option<&UnixStream> {
        self.lease.as_ref()
    }

    /// Takes in what it says over the lease.
    pub(super) fn listen_to_it(&mut self) {
        let mut buffer = [0; 64];
        let Some(mut lease) = self.lease.as_ref() else {
            return;
        };
        match lease.read(&mut buffer) {
            // It is ending: its death is told by the kernel.
            Ok(0) => self.lease = None,
            Ok(count) => self.said = buffer.get(count - 1).copied().unwrap_or(self.said),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.lease = None,
        }
    }

    /// Whether others count on it, as far as it has said.
    pub(super) fn has_others(&self) -> bool {
        self.said != ALONE
    }

    /// Whether it has said that it stays without us.
    pub(super) fn stays(&self) -> bool {
        self.said == STAYS
    }

    /// Gives up the lease on it, with a last `word` on COMMAND. It ends, unless others count on it; then it says so.
    pub(super) fn leave(&mut self, word: Option<u8>) {
        let told = self.lease.as_ref().is_some_and(|mut lease| {
            if let Some(word) = word {
                // Does not block, and there is room for a byte.
                let _ = lease.write(&[word]);
            }
            lease.shutdown(Shutdown::Write).is_ok()
        });
        if !told {
            self.signal(Signal::SIGTERM);
        }
        // A stopped process ends only when it goes on.
        self.signal(Signal::SIGCONT);
    }

    /// How often it was started again.
    pub(super) fn restarts(&self) -> u32 {
        self.starts.saturating_sub(1)
    }

    /// Whether it ends so often that nobody should wait for it.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.deaths >= TROUBLE || self.kind != Kind::Serving
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

/// Starts an agent that nobody supervises: it is on its own, and ends with the last lease.
///
/// # Errors
/// When it cannot be started.
pub fn start_detached(recipe: &Recipe, listener: &UnixListener) -> io::Result<u32> {
    let mut command = words(&recipe.arguments, &recipe.variables)?;
    // Whoever reads our stderr to its end must not wait for the agent's.
    command.stderr(null_device(true)?);
    hand_over(&mut command, listener, None, recipe.record.as_ref())?;
    Ok(command.spawn()?.id())
}

/// A call of this program.
fn words(arguments: &[OsString], variables: &[(String, OsString)]) -> io::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("jobcred")
        .args(arguments)
        // This process may still be in COMMAND's.
        .current_dir("/")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        // The convention wants the child's own pid here, which nobody knows yet; left over from somebody else it would be wrong.
        .env_remove("LISTEN_PID")
        .stdin(null_device(false)?)
        .stdout(null_device(true)?);
    Ok(command)
}

/// Leaves these open for an agent, where it finds them, and nothing else.
fn hand_over(
    command: &mut Command,
    listener: &UnixListener,
    lease: Option<UnixStream>,
    record: Option<&OwnedFd>,
) -> io::Result<()> {
    let count = if lease.is_some() { "2" } else { "1" };
    let mut mappings = vec![FdMapping {
        parent_fd: OwnedFd::from(listener.try_clone()?),
        child_fd: FIRST_LISTENER,
    }];
    mappings.extend(lease.map(|lease| FdMapping {
        parent_fd: lease.into(),
        child_fd: LEASE,
    }));
    if let Some(record) = record {
        mappings.push(FdMapping {
            parent_fd: record.try_clone()?,
            child_fd: RECORD,
        });
        command.args(["--record", &RECORD.to_string()]);
    }
    command
        .env("LISTEN_FDS", count)
        .fd_mappings(mappings)
        .map_err(io::Error::other)?;
    Ok(())
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
