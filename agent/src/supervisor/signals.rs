//! Which signals are passed on to COMMAND, and how they arrive.
//!
//! All signals are blocked and read from a descriptor. What was ignored when we were started (by `nohup`, say) stays
//! ignored, so that COMMAND inherits it; a handler is not inherited, `exec` resets it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getsid};
use rustix_libc_wrappers::process::SignalExt as _;
use signal_hook::consts::FORBIDDEN;

use super::Entry;

/// The last signal there is: `SIGRTMAX`.
const LAST: i32 = 64;

/// Signals as they come.
pub(super) struct Signals(SignalFd);

/// A signal and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Its number; beyond the named ones for realtime signals.
    pub(super) number: i32,
    /// Whether the kernel raised it (for a terminal, say) rather than a process.
    pub(super) from_kernel: bool,
    /// The sender, where there is one; 0 when it lives outside our pid namespace.
    pub(super) sender: i32,
}

/// How COMMAND is related to us at the moment a signal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) own_pid: i32,
    pub(super) command: i32,
    /// Whether COMMAND is in our process group, so that it has got a terminal's signals already.
    pub(super) same_group: bool,
    /// Whether we lead the session: then a hang-up of the terminal comes to us alone.
    pub(super) leads_session: bool,
}

impl Signals {
    /// Blocks every signal in this thread, the only one, and opens the descriptor they are read from.
    pub(super) fn block_all() -> nix::Result<Self> {
        let all = SigSet::all();
        all.thread_set_mask()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&all, flags)?))
    }

    /// Does `work` with the signal mask that we were given, for a child inherits it. Signals that come meanwhile are told
    /// afterwards instead of doing their default, which for most is to end this process.
    pub(super) fn with_entry_mask<T>(entry: &Entry, work: impl FnOnce() -> T) -> (T, Vec<i32>) {
        let flags: Vec<(i32, Arc<AtomicBool>)> = (1..=LAST)
            .filter(|number| is_caught(*number, entry))
            .map(|number| (number, Arc::default()))
            .collect();
        for (number, flag) in &flags {
            // Fails for the numbers that the C library keeps for itself, and else only when memory is out; then the signal
            // keeps its default.
            let _ = signal_hook::flag::register(*number, Arc::clone(flag));
        }
        let _ = entry.blocked.thread_set_mask();
        let result = work();
        let _ = SigSet::all().thread_set_mask();
        let caught = flags
            .into_iter()
            .filter(|(_, flag)| flag.load(Ordering::SeqCst))
            .map(|(number, _)| number)
            .collect();
        (result, caught)
    }

    /// The next signal that waits, if any.
    pub(super) fn next(&self) -> Option<Received> {
        let info = self.0.read_signal().ok()??;
        Some(Received {
            number: info.ssi_signo.cast_signed(),
            from_kernel: info.ssi_code == libc::SI_KERNEL,
            sender: info.ssi_pid.cast_signed(),
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal, by its number: realtime signals have no name.
pub(super) fn send(pid: i32, number: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    let signal = rustix::process::Signal::from_raw(number);
    if let (Some(pid), Some(signal)) = (pid, signal) {
        // Whoever has ended meanwhile gets none.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether a signal gets a handler while it is not blocked. An ignored one must stay ignored in COMMAND, with one exception:
/// while `SIGCHLD` is ignored the kernel reaps COMMAND and nobody ever learns its status; COMMAND gets the default for it then.
fn is_caught(number: i32, entry: &Entry) -> bool {
    let ignored = entry.ignores(number);
    if number == Signal::SIGCHLD as i32 {
        return ignored;
    }
    // SIGPIPE is the standard library's business: ignored in Rust, the default in its children. The others are those that
    // cannot be caught, and those that mean a fault of this very process.
    number != Signal::SIGPIPE as i32 && !ignored && !FORBIDDEN.contains(&number)
}

impl Relation {
    pub(super) fn to(command: i32) -> Self {
        let own = getpid();
        Self {
            own_pid: own.as_raw(),
            command,
            same_group: getpgid(Some(Pid::from_raw(command))).is_ok_and(|group| group == getpgrp()),
            leads_session: getsid(None).is_ok_and(|session| session == own),
        }
    }
}

/// The signal to send to COMMAND for one that came here, if any.
///
/// - What a process sends to us is meant for COMMAND, unless COMMAND sent it itself (to its whole group).
/// - What the kernel sends for a terminal (`^C`, `^Z`, a new size) goes to the whole foreground group: COMMAND has it already
///   and must not get it twice, as a second `^C` often means "give up cleaning up". Two exceptions: COMMAND has left our group,
///   or we lead the session, which alone is told of a hang-up.
pub(super) fn to_forward(received: Received, relation: Relation) -> Option<i32> {
    let number = received.number;
    if number == Signal::SIGCHLD as i32 {
        return None;
    }
    if received.from_kernel {
        let signal = Signal::try_from(number).ok()?;
        let hang_up = matches!(signal, Signal::SIGHUP | Signal::SIGCONT);
        let terminal = hang_up
            || matches!(
                signal,
                Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP | Signal::SIGWINCH
            );
        let missed = !relation.same_group || (hang_up && relation.leads_session);
        return (terminal && missed).then_some(number);
    }
    // Our own: a write to a closed stderr raises SIGPIPE.
    let own = received.sender == relation.own_pid;
    let from_command = received.sender == relation.command;
    (!own && !from_command).then_some(number)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::{LAST, Received, Relation, to_forward};

    const RELATION: Relation = Relation {
        own_pid: 10,
        command: 11,
        same_group: true,
        leads_session: false,
    };

    fn from_process(number: i32, sender: i32) -> Received {
        Received {
            number,
            from_kernel: false,
            sender,
        }
    }

    fn from_kernel(signal: Signal) -> Received {
        Received {
            number: signal as i32,
            from_kernel: true,
            sender: 0,
        }
    }

    #[test]
    fn every_signal_a_process_sends_is_passed_on() {
        for number in (1..=LAST).filter(|number| *number != Signal::SIGCHLD as i32) {
            for sender in [0, 1, 12] {
                let forwarded = to_forward(from_process(number, sender), RELATION);
                assert_eq!(forwarded, Some(number));
            }
            assert_eq!(to_forward(from_process(number, 10), RELATION), None);
            assert_eq!(to_forward(from_process(number, 11), RELATION), None);
        }
    }

    #[test]
    fn what_the_terminal_sends_to_the_group_is_not_sent_twice() {
        for signal in [Signal::SIGINT, Signal::SIGWINCH, Signal::SIGTSTP] {
            assert_eq!(to_forward(from_kernel(signal), RELATION), None);
            let apart = Relation {
                same_group: false,
                ..RELATION
            };
            assert_eq!(to_forward(from_kernel(signal), apart), Some(signal as i32));
        }
    }

    #[test]
    fn a_session_leader_passes_on_the_hang_up() {
        let leader = Relation {
            leads_session: true,
            ..RELATION
        };
        let hang_up = from_kernel(Signal::SIGHUP);
        assert_eq!(to_forward(hang_up, leader), Some(Signal::SIGHUP as i32));
        assert_eq!(to_forward(hang_up, RELATION), None);
        assert_eq!(to_forward(from_kernel(Signal::SIGINT), leader), None);
    }

    #[test]
    fn our_own_timers_and_children_stay_here() {
        let child = from_process(Signal::SIGCHLD as i32, 12);
        assert_eq!(to_forward(child, RELATION), None);
        assert_eq!(to_forward(from_kernel(Signal::SIGALRM), RELATION), None);
    }
}
