//! Witnesses: how a signal to the whole process group is told from one to this process alone.
//!
//! The kernel does not say which of the two a signal was, and COMMAND has got the first kind already: passed on as well, it
//! would come twice, and a second `SIGTERM` often means "give up saving". So two processes of ours watch along. Every signal is
//! blocked in both, so what is sent to them stays with them until they are asked. They do nothing else.
//!
//! ```text
//! jobcred run            asks both when a signal has come
//!   +- COMMAND
//!   +- inside            in our process group: what is sent to the group is sent to it
//!   +- outside           in a session of its own: no signal to the group reaches it
//! ```
//!
//! A signal that `inside` has from the same sender, and `outside` has not, was sent to the group. The kernel walks a group from its
//! newest member to its oldest, and both are newer than this process: when a signal comes here, `inside` has it. One that both
//! have was sent to every process there is, as service managers, `kill -1` and container runtimes do it, to one after the other:
//! COMMAND is one of them. So that `killall jobcred` is something else, the witnesses have a name of their own. Whoever looks for
//! our file instead of our name finds them all the same, and COMMAND not: that is what [`passing`](super::passing) decides on.
//!
//! Every doubt ends in passing on: a signal that comes twice is better than one that never comes. Both witnesses are our
//! children, so COMMAND's own waiting never sees them; both end with this process, when their line to it closes, so they keep no
//! group, session or terminal alive; and neither wakes up unless it is asked.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, send, socketpair, sockopt,
};
use nix::unistd::{getppid, setsid};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::signals::{Received, Signals};

/// Their name in lists of processes, where nobody looks for `jobcred`: as long as one can be.
const NAME: &CStr = c"signal-witness";
/// The word on the command line. It is no subcommand: without a line to a supervisor there is nothing to do.
const WORD: &str = "witness";
const INSIDE: &str = "inside";
const OUTSIDE: &str = "outside";
/// The longest wait for both answers, and for an end, in milliseconds. On a machine this busy a signal may come twice.
const PATIENCE: u16 = 100;
/// What one answer holds: the number of the question, then this many signals at most. Later ones are told the next time.
const MOST: usize = 200;
/// The bytes of one signal in an answer: its number, and the sender's pid in the machine's own order.
const RECORD: usize = 5;
const LONGEST: usize = 1 + MOST * RECORD;

/// Both witnesses.
#[derive(Debug)]
pub(super) struct Witnesses {
    inside: Witness,
    outside: Witness,
    question: u8,
}

/// One of them, as the supervisor has it.
#[derive(Debug)]
struct Witness {
    line: OwnedFd,
    /// By its number alone somebody else could be ended: it may have been taken in with the other children by then. `None`
    /// on kernels before 5.3; then it ends when the line closes.
    process: Option<OwnedFd>,
}

/// Who was sent a signal that this process was sent, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Our process group.
    Group,
    /// Every process, or every one of our file.
    Everybody,
}

/// What was sent to more than this process since the last time this was asked for: numbers and senders.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<(i32, i32, Reach)>);

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this signal was among it. Each counts once: who sends twice is told twice.
    pub(super) fn take(&mut self, received: &Received) -> Option<Reach> {
        let wanted = (received.number, received.sender);
        let is_it = |seen: &(i32, i32, Reach)| (seen.0, seen.1) == wanted;
        let place = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(place).2)
    }

    /// Adds what was told later.
    pub(super) fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    #[cfg(test)]
    pub(super) fn told(seen: impl IntoIterator<Item = (i32, i32, Reach)>) -> Self {
        Self(seen.into_iter().collect())
    }

    fn of(inside: Vec<(i32, i32)>, outside: &[(i32, i32)]) -> Self {
        let reach = |seen| {
            if outside.contains(&seen) {
                Reach::Everybody
            } else {
                Reach::Group
            }
        };
        Self(
            inside
                .into_iter()
                .map(|seen| (seen.0, seen.1, reach(seen)))
                .collect(),
        )
    }
}

impl Witnesses {
    /// Starts both. To be called once COMMAND is there, with every signal blocked. Without them, all is passed on.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self {
            inside: Witness::start(INSIDE)?,
            outside: Witness::start(OUTSIDE)?,
            question: 0,
        })
    }

    /// What was sent to the whole group since the last time. Nothing when one of the two does not answer.
    pub(super) fn ask(&mut self) -> Seen {
        self.question = self.question.wrapping_add(1);
        // Both first, so that they work side by side.
        if !self.inside.ask(self.question) || !self.outside.ask(self.question) {
            return Seen::default();
        }
        let inside = self.inside.answer(self.question);
        let outside = self.outside.answer(self.question);
        match (inside, outside) {
            (Some(inside), Some(outside)) => Seen::of(inside, &outside),
            _ => Seen::default(),
        }
    }
}

impl Witness {
    fn start(place: &str) -> io::Result<Self> {
        let kind = SockType::SeqPacket;
        let (line, its) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        let child = Command::new("/proc/self/exe")
            .arg0(OsStr::from_bytes(NAME.to_bytes()))
            .args([WORD, place, &std::process::id().to_string()])
            .env_clear()
            // All three streams, so that it holds nothing else, and works where there is no /dev/null.
            .stdin(Stdio::from(its.try_clone()?))
            .stdout(Stdio::from(its.try_clone()?))
            .stderr(Stdio::from(its))
            .spawn()?;
        let process = rustix::process::Pid::from_raw(child.id().cast_signed());
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { line, process })
    }

    fn ask(&self, question: u8) -> bool {
        // A full line is one that nobody reads: stopped, or gone.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.line.as_raw_fd(), &[question], flags).is_ok()
    }

    /// The answer to this question; earlier ones came too late and are left out, for what they tell was decided.
    fn answer(&self, question: u8) -> Option<Vec<(i32, i32)>> {
        let mut bytes = [0; LONGEST];
        loop {
            is_ready(self.line.as_fd()).then_some(())?;
            let length = recv(self.line.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
            let message = bytes.get(..length.ok()?)?;
            let (number, records) = message.split_first()?;
            if *number == question {
                return records.chunks_exact(RECORD).map(read).collect();
            }
        }
    }
}

impl Drop for Witness {
    /// Ends it and takes it in: PID 1 of a container may be a program that never does.
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            let _ = pidfd_send_signal(process, rustix::process::Signal::KILL);
            // It may hang in the kernel, on a dead network file system, say. COMMAND's status does not wait for that.
            is_ready(process.as_fd());
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let _ = waitid(WaitId::PidFd(process.as_fd()), how);
        }
    }
}

fn is_ready(descriptor: BorrowedFd<'_>) -> bool {
    let mut wait = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut wait, PollTimeout::from(PATIENCE)).is_ok_and(|ready| ready > 0)
}

fn read(record: &[u8]) -> Option<(i32, i32)> {
    let (number, sender) = record.split_first()?;
    Some((
        i32::from(*number),
        i32::from_ne_bytes(sender.try_into().ok()?),
    ))
}

fn write(received: Received) -> Option<[u8; RECORD]> {
    let [a, b, c, d] = received.sender.to_ne_bytes();
    Some([u8::try_from(received.number).ok()?, a, b, c, d])
}

/// Serves as a witness, when that is what this process was started for; returns at its end. False when it was not.
pub fn serve_as_witness(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let mut words = arguments.into_iter().skip(1).take(4);
    if words.next().is_none_or(|word| word != WORD) {
        return false;
    }
    let place = words.next();
    let supervisor = words.next().and_then(|word| word.to_str()?.parse().ok());
    let line = io::stdin();
    let is_line =
        getsockopt(&line, sockopt::SockType).is_ok_and(|kind| kind == SockType::SeqPacket);
    let (Some(place), Some(supervisor), None, true) = (place, supervisor, words.next(), is_line)
    else {
        return false;
    };
    serve(line.as_fd(), place == OUTSIDE, supervisor);
    true
}

fn serve(line: BorrowedFd<'_>, outside: bool, supervisor: i32) {
    // They are blocked already: inherited, so that none was lost since the fork.
    let Ok(signals) = Signals::block_all() else {
        return;
    };
    // The line closes when the supervisor ends; this is for one that is kept open by somebody who copied the descriptor.
    let _ = set_pdeathsig(Signal::SIGKILL);
    // Started by way of /proc/self/exe, it would be listed as "exe".
    let _ = set_name(NAME);
    if outside && setsid().is_err() {
        return;
    }
    if getppid().as_raw() != supervisor {
        return;
    }
    let mut question = [0; 1];
    loop {
        match recv(line.as_raw_fd(), &mut question, MsgFlags::empty()) {
            Ok(1) => {}
            Err(Errno::EINTR) => continue,
            _ => return,
        }
        let mut answer = question.to_vec();
        while answer.len() < LONGEST
            && let Some(received) = signals.next()
        {
            // What the kernel raised for a terminal is known to have gone to the group.
            if !received.from_kernel
                && let Some(record) = write(received)
            {
                answer.extend(record);
            }
        }
        if send(line.as_raw_fd(), &answer, MsgFlags::MSG_NOSIGNAL).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reach, Received, Seen, read, write};

    const TERM: i32 = 15;

    fn sent(number: i32, sender: i32) -> Received {
        Received {
            number,
            from_kernel: false,
            sender,
        }
    }

    #[test]
    fn a_signal_is_the_groups_when_the_one_inside_alone_has_it_from_the_same_sender() {
        let mut seen = Seen::of(vec![(TERM, 7), (TERM, 8), (1, 7)], &[(TERM, 8)]);
        assert_eq!(seen.take(&sent(TERM, 8)), Some(Reach::Everybody));
        assert_eq!(seen.take(&sent(TERM, 9)), None, "somebody else sent it");
        assert_eq!(seen.take(&sent(2, 7)), None);
        assert_eq!(seen.take(&sent(TERM, 7)), Some(Reach::Group));
        assert_eq!(seen.take(&sent(TERM, 7)), None, "to us alone after it");
        assert_eq!(seen.take(&sent(1, 7)), Some(Reach::Group));
    }

    #[test]
    fn signals_cross_the_line_unchanged() {
        for (number, sender) in [(1, 0), (64, 1), (TERM, i32::MAX)] {
            let record = write(sent(number, sender)).unwrap();
            assert_eq!(read(&record), Some((number, sender)));
        }
    }
}
