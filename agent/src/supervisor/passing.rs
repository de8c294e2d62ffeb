//! Passing signals on: those that wait here, less those that COMMAND has got already.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::entry::handles;
use super::signals::{Received, Relation, Signals, to_forward};
use super::witness::{Reach, Seen, Witnesses};

/// What the kernel sends about children: never to a group.
const CHILD: i32 = Signal::SIGCHLD as i32;
const CONTINUE: i32 = Signal::SIGCONT as i32;
/// Those that stop who does not catch them. `SIGSTOP` never comes here: it stops this process, too.
const STOPS: [i32; 3] = [
    Signal::SIGTSTP as i32,
    Signal::SIGTTIN as i32,
    Signal::SIGTTOU as i32,
];
/// How long to wait for a signal that a witness has and this process has not, or the other way round, in milliseconds.
const MIDDLE: u8 = 2;

/// What became of the signals that waited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// The numbers of all of them, for what they mean to this process itself.
    pub(super) received: Vec<i32>,
    /// The numbers to send to COMMAND.
    pub(super) to_send: Vec<i32>,
}

/// Takes in every signal that waits.
pub(super) fn take_in(
    signals: &Signals,
    witnesses: Option<&mut Witnesses>,
    command: i32,
) -> Passed {
    let next = || signals.next();
    match witnesses {
        Some(witnesses) => decide(
            next,
            || witnesses.ask(),
            || Relation::to(command),
            |received| swept(received, command),
            || wait_shortly(signals),
        ),
        None => decide(
            next,
            Seen::default,
            || Relation::to(command),
            |_| false,
            || (),
        ),
    }
}

/// Whether COMMAND has a signal that both witnesses have. It was sent to every process, and so to COMMAND; or to every one of our
/// file (`kill $(pidof jobcred)`), and COMMAND is not among those. To be sent once more is what harms a COMMAND that handles it:
/// it may give up saving. One that does not has ended by it if it was sent, and is to end by it if not.
fn swept(received: &Received, command: i32) -> bool {
    // `kill -1` by a process of the container spares PID 1: what the witnesses have of that would hide one that is meant for us.
    let may_be_older = received.sender != 0 && nix::unistd::getpid().as_raw() == 1;
    !may_be_older && handles(command, received.number)
}

/// Until one comes, but not long: the kernel is in the middle of telling the group, or there is none to come.
fn wait_shortly(signals: &Signals) {
    let mut wait = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut wait, PollTimeout::from(MIDDLE));
}

fn decide(
    mut next: impl FnMut() -> Option<Received>,
    mut ask: impl FnMut() -> Seen,
    relation: impl Fn() -> Relation,
    swept: impl Fn(&Received) -> bool,
    wait: impl Fn(),
) -> Passed {
    let mut passed = Passed::default();
    let mut take = |passed: &mut Passed| {
        let mut missed = Vec::new();
        while let Some(received) = next() {
            passed.received.push(received.number);
            if let Some(number) = to_forward(received, relation()) {
                missed.push((number, received));
            }
        }
        missed
    };
    let mut undecided = take(&mut passed);
    // Asked after a terminal's signals, too, of which nothing is to be decided: one that stays with the witnesses would hide the
    // next of its number, as signals of one number become one while they wait.
    let mut is_news = passed.received.iter().any(|number| *number != CHILD);
    while is_news || !undecided.is_empty() {
        is_news = false;
        let is_with_us = relation().same_group;
        let mut seen = ask();
        let has_it = |seen: &mut Seen, received: &Received| {
            if received.from_kernel {
                return false;
            }
            match seen.take(received) {
                // What went to our group is no business of a COMMAND that has left it, unless it is told by us.
                Some(Reach::Group) => is_with_us,
                Some(Reach::Everybody) => swept(received),
                None => false,
            }
        };
        undecided.retain(|(_, received)| !has_it(&mut seen, received));
        if undecided.iter().any(|(_, received)| !received.from_kernel) {
            // Whoever sends it to one process after the other may have begun with this one.
            wait();
            seen.extend(ask());
            undecided.retain(|(_, received)| !has_it(&mut seen, received));
        }
        passed
            .to_send
            .extend(undecided.iter().map(|(number, _)| *number));
        // One of which the witnesses told may come here a moment later.
        let mut late = take(&mut passed);
        late.retain(|(_, received)| !has_it(&mut seen, received));
        if !seen.is_empty() {
            wait();
            let mut later = take(&mut passed);
            later.retain(|(_, received)| !has_it(&mut seen, received));
            late.append(&mut later);
        }
        // Those may be the group's all the same, if they came after the answer. What was told beyond that is forgotten: two
        // signals that became one on their way here, of which COMMAND has one.
        undecided = late;
    }
    passed.drop_what_is_undone();
    passed
}

impl Passed {
    /// Leaves out an order to stop that an order to continue came after, and the other way round. The kernel takes the earlier of
    /// the two back from whoever has not acted on it yet: from a witness that is asked too late, so that it seems to have been
    /// meant for this process alone. COMMAND has acted on both, and must not go on, or stop, once more.
    fn drop_what_is_undone(&mut self) {
        let is_order = |number: &&i32| **number == CONTINUE || STOPS.contains(*number);
        let Some(last) = self.received.iter().rev().find(is_order).copied() else {
            return;
        };
        if last == CONTINUE {
            self.to_send.retain(|number| !STOPS.contains(number));
        } else {
            self.to_send.retain(|number| *number != CONTINUE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::{CONTINUE, Passed, STOPS, decide};
    use crate::supervisor::signals::{Received, Relation};
    use crate::supervisor::witness::{Reach, Seen};

    const TERM: i32 = 15;
    const WINCH: i32 = 28;
    const SENDER: i32 = 7;
    const NONE: [i32; 0] = [];

    fn sent(number: i32) -> Received {
        Received {
            number,
            from_kernel: false,
            sender: SENDER,
        }
    }

    /// What is received in one look after the other, and what the witnesses tell in one answer after the other.
    fn passed<const N: usize, const M: usize>(
        looks: [&[Received]; N],
        answers: [&[i32]; M],
        same_group: bool,
    ) -> Passed {
        passed_of(looks, answers, Reach::Group, same_group)
    }

    fn passed_of<const N: usize, const M: usize>(
        looks: [&[Received]; N],
        answers: [&[i32]; M],
        reach: Reach,
        same_group: bool,
    ) -> Passed {
        let looks = RefCell::new(
            looks
                .map(<[Received]>::to_vec)
                .into_iter()
                .collect::<VecDeque<_>>(),
        );
        let mut answers = answers.into_iter();
        let next = || {
            let mut looks = looks.borrow_mut();
            let look = looks.front_mut()?;
            if look.is_empty() {
                looks.pop_front();
                return None;
            }
            Some(look.remove(0))
        };
        let ask = || {
            let told = answers.next().unwrap_or_default();
            Seen::told(told.iter().map(|number| (*number, SENDER, reach)))
        };
        let relation = || Relation {
            own_pid: 10,
            command: 11,
            same_group,
            leads_session: false,
        };
        // COMMAND handles this one alone.
        let swept = |received: &Received| received.number == TERM;
        decide(next, ask, relation, swept, || ())
    }

    #[test]
    fn only_what_the_group_did_not_get_is_sent() {
        let one = passed([&[sent(TERM)]], [&[TERM]], true);
        assert_eq!((one.received, one.to_send), (vec![TERM], NONE.to_vec()));
        let one = passed([&[sent(TERM)]], [&[]], true);
        assert_eq!(one.to_send, [TERM]);
        let both = passed([&[sent(TERM), sent(TERM), sent(1)]], [&[TERM]], true);
        assert_eq!(both.to_send, [TERM, 1]);
    }

    #[test]
    fn a_command_that_left_the_group_is_sent_everything() {
        let one = passed([&[sent(TERM)]], [&[TERM]], false);
        assert_eq!(one.to_send, [TERM]);
    }

    #[test]
    fn one_that_comes_between_look_and_answer_is_the_groups_too() {
        let two = passed([&[sent(1)], &[sent(TERM)]], [&[TERM]], true);
        assert_eq!((two.received, two.to_send), (vec![1, TERM], vec![1]));
        // Or it came after the answer, and the next one tells.
        let two = passed([&[sent(1)], &[sent(TERM)]], [&[], &[TERM]], true);
        assert_eq!(two.to_send, [1]);
        let two = passed([&[sent(1)], &[sent(TERM)]], [&[], &[]], true);
        assert_eq!(two.to_send, [1, TERM]);
    }

    #[test]
    fn what_everybody_got_is_sent_only_where_it_cannot_come_twice() {
        for same_group in [true, false] {
            let looks = [&[sent(TERM), sent(1)][..]];
            let one = passed_of(looks, [&[TERM, 1]], Reach::Everybody, same_group);
            assert_eq!((one.received, one.to_send), (vec![TERM, 1], vec![1]));
            // The witnesses come after us.
            let one = passed_of(
                [&[sent(TERM)]],
                [&[], &[TERM]],
                Reach::Everybody,
                same_group,
            );
            assert_eq!(one.to_send, NONE);
        }
    }

    #[test]
    fn what_was_told_too_much_swallows_nothing_later() {
        // The group's and one to us became one on the way here: COMMAND has it.
        assert_eq!(passed([&[sent(TERM)]], [&[TERM, TERM]], true).to_send, NONE);
        let later = passed([&[sent(TERM)], &[]], [&[]], true);
        assert_eq!(later.to_send, [TERM]);
    }

    #[test]
    fn an_order_that_was_taken_back_is_not_sent() {
        let stop = STOPS[0];
        // The witness had the first one taken back before it was asked.
        let two = passed([&[sent(CONTINUE)], &[sent(stop)]], [&[stop]], true);
        assert_eq!((two.received, two.to_send), (vec![CONTINUE, stop], vec![]));
        let two = passed([&[sent(stop)], &[sent(CONTINUE)]], [&[CONTINUE]], true);
        assert_eq!(two.to_send, NONE);
        // One of the two to us alone.
        assert_eq!(passed([&[sent(stop)]], [&[]], true).to_send, [stop]);
        assert_eq!(passed([&[sent(CONTINUE)]], [&[]], true).to_send, [CONTINUE]);
        let two = passed([&[sent(CONTINUE)], &[sent(stop)]], [&[], &[]], true);
        assert_eq!(two.to_send, [stop]);
    }

    #[test]
    fn the_terminals_signals_are_decided_without_witnesses() {
        let resized = Received {
            number: WINCH,
            from_kernel: true,
            sender: 0,
        };
        assert_eq!(passed([&[resized]], [&[WINCH]], true).to_send, NONE);
        assert_eq!(passed([&[resized]], [&[WINCH]], false).to_send, [WINCH]);
        // They are asked all the same, and what they still have of it is forgotten.
        let later = passed([&[resized, sent(TERM)]], [&[WINCH, TERM]], true);
        assert_eq!(later.to_send, NONE);
    }
}
