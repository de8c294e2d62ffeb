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
/// What the kernel raises for a write of this very process: one beyond the limit of a file's size, and one to a terminal that
/// stops programs in the background (`stty tostop`).
const OF_WRITES: [Signal; 2] = [Signal::SIGXFSZ, Signal::SIGTTOU];

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

impl Received {
    /// Whether this process, of this pid, has brought it on itself: a write to a closed stream, or beyond the limit of a file's
    /// size. The limit of CPU time is COMMAND's, too, but each process is told of its own use.
    pub(super) fn is_own(self, own_pid: i32) -> bool {
        self.sender == own_pid || (self.from_kernel && self.number == Signal::SIGXCPU as i32)
    }
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

/// What somebody may have arranged before they became this program by `exec`, which keeps timers (`alarm`, `setitimer`) and whom
/// a descriptor tells that it is ready (`F_SETOWN`); a child, as COMMAND is, inherits neither.
const OF_OUR_PLACE: [Signal; 5] = [
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGURG,
];

/// Sees to it that no word of `run` ends or stops it; to be called before the first one. While these signals are blocked, a write
/// that is too much fails, and one to a terminal goes through.
pub fn guard_words() {
    let signals: SigSet = OF_WRITES.into_iter().collect();
    let _ = signals.thread_block();
}

/// The same for an agent, whose children shall not inherit anything blocked: a handler is there until their `exec`.
pub fn outlive_file_limit(entry: &Entry) {
    catch(Signal::SIGXFSZ, entry, false);
}

/// Sees to it that the end of a child is told; to be called before there is one. While `SIGCHLD` is ignored the kernel takes
/// children in by itself, and nobody ever learns how they ended. `exec` puts the default in place of the handler.
pub(super) fn notice_children(entry: &Entry) {
    catch(Signal::SIGCHLD, entry, true);
}

/// A handler that does nothing, if the signal was ignored or not, as wanted.
fn catch(signal: Signal, entry: &Entry, if_ignored: bool) {
    if entry.ignores(signal as i32) == if_ignored {
        // Fails only when memory is out.
        let _ = signal_hook::flag::register(signal as i32, Arc::<AtomicBool>::default());
    }
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

    /// Does `work`, which makes COMMAND of this process, with the signal mask that we were given. Signals that come until then,
    /// and those that have come before (`again`), do what they would do to a COMMAND that has only just begun: their default,
    /// or they wait for COMMAND where they were blocked.
    pub(super) fn with_entry_state<T>(entry: &Entry, again: &[i32], work: impl FnOnce() -> T) -> T {
        let own = getpid().as_raw();
        // The kernel spares PID 1 signals that it has no handler for.
        let spared = own == 1;
        // A word of our own may have raised it.
        outlive_file_limit(entry);
        let ends = |number: &i32| {
            !spared && *number != Signal::SIGXFSZ as i32 && is_caught(*number, entry)
        };
        for number in (1..=LAST).filter(ends) {
            let always = || Arc::new(AtomicBool::new(true));
            // The handlers of an earlier try are still there. Realtime signals are unknown to the first of these.
            let _ =
                signal_hook::flag::register_conditional_default(number, always()).or_else(|_| {
                    signal_hook::flag::register_conditional_shutdown(number, 128 + number, always())
                });
        }
        for number in again {
            send(own, *number);
        }
        let _ = entry.blocked.thread_set_mask();
        let result = work();
        let _ = SigSet::all().thread_set_mask();
        result
    }

    /// The numbers of those that wait, but for what this process has brought on itself. None of them is known to COMMAND, which
    /// is not there yet.
    pub(super) fn early(&self) -> Vec<i32> {
        let own = getpid().as_raw();
        std::iter::from_fn(|| self.next())
            .filter(|received| !received.is_own(own))
            .map(|received| received.number)
            .filter(|number| *number != Signal::SIGCHLD as i32)
            .collect()
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

/// Whether a signal gets a handler while it is not blocked. An ignored one must stay ignored in COMMAND.
fn is_caught(number: i32, entry: &Entry) -> bool {
    // SIGPIPE is the standard library's business: ignored in Rust, the default in its children. The others are those that
    // cannot be caught, and those that mean a fault of this very process.
    let others = [Signal::SIGPIPE as i32, Signal::SIGCHLD as i32];
    !others.contains(&number) && !entry.ignores(number) && !FORBIDDEN.contains(&number)
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
/// - What somebody arranged for the process that was to be COMMAND comes to us in its place.
pub(super) fn to_forward(received: Received, relation: Relation) -> Option<i32> {
    let number = received.number;
    if number == Signal::SIGCHLD as i32 {
        return None;
    }
    if received.is_own(relation.own_pid) {
        return None;
    }
    if received.from_kernel {
        let signal = Signal::try_from(number).ok()?;
        if OF_OUR_PLACE.contains(&signal) {
            return Some(number);
        }
        let hang_up = matches!(signal, Signal::SIGHUP | Signal::SIGCONT);
        let terminal = hang_up
            || matches!(
                signal,
                Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP | Signal::SIGWINCH
            );
        let missed = !relation.same_group || (hang_up && relation.leads_session);
        return (terminal && missed).then_some(number);
    }
    (received.sender != relation.command).then_some(number)
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
    fn our_own_children_and_use_of_the_machine_stay_here() {
        let child = from_process(Signal::SIGCHLD as i32, 12);
        assert_eq!(to_forward(child, RELATION), None);
        assert_eq!(to_forward(from_kernel(Signal::SIGXCPU), RELATION), None);
    }

    #[test]
    fn a_timer_that_was_set_before_exec_is_the_commands() {
        for signal in [Signal::SIGALRM, Signal::SIGVTALRM, Signal::SIGPROF] {
            let forwarded = to_forward(from_kernel(signal), RELATION);
            assert_eq!(forwarded, Some(signal as i32));
        }
    }
}
