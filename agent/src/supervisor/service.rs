//! This run's part in the agent that serves it: it keeps the agent going, or holds a lease on one that another run keeps going.
//!
//! Either way COMMAND has one path to ask at for as long as it runs, and nobody but agents of the same kind ever listen there:
//! the seat's claim sees to that. A sharer whose lease breaks elects again; its agent goes by its own record then, which it
//! has kept up to date over the lease.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use jobcred_wire::LEASE_PATH;
use nix::sys::signal::Signal;
use rustix::process::WaitStatus;

use super::agent::{Agent, ENDED, FAILED, HEALTHY_AFTER};
use super::ask::ask_within;
use super::lease::LeaseReader;
use super::offer::Offer;
use super::post_mortem::PATIENCE;
use super::record::Record;
use super::timer::Timer;
use super::{AgentPlan, Ending, say};
use crate::front::election::{Again, Part, Seat};
use crate::front::socket::{BoundSocket, SocketFile};

/// How long the agent may take to end once COMMAND has, and again once it is killed: nobody waits for a token any more.
const AGENT_END_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a sharer that was never told what was decided leaves a place to others who may have been.
const UNDECIDED_WAIT: Duration = Duration::from_secs(1);
/// How long a lease may stay without an answer before it is looked whether anybody is there to give one.
const UNANSWERED_WAIT: Duration = Duration::from_secs(3);
/// The longest wait before a sharer tries again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The agent, as this run has to do with it.
pub(super) struct Service {
    timer: Timer,
    seat: Seat,
    agent: Agent,
    /// The file of our own socket, while we keep the agent going.
    file: Option<SocketFile>,
    /// Our lease, while somebody else does.
    lease: Option<LeaseReader>,
    /// Where COMMAND's SDKs ask.
    offer: Offer,
    /// Elections since an agent last told anything.
    tries: u32,
    /// Whether others had their chance to take the place before us.
    waited: bool,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Somebody else's agent answers at our place. Said once.
    Lost,
    /// COMMAND has ended, and the agent was told.
    Leaving,
    Killed,
    Left,
}

impl Service {
    /// Nothing is started yet.
    pub(super) fn new(mut plan: AgentPlan, timer: Timer) -> Self {
        let part = plan.seat.take_part();
        let mut service = Self {
            timer,
            seat: plan.seat,
            agent: Agent::new(plan.recipe),
            file: None,
            lease: None,
            offer: Offer::new(plan.endpoint),
            tries: 0,
            waited: false,
            phase: Phase::Serving,
        };
        match part {
            Part::Owner(socket) => service.own(socket),
            Part::Sharer(Some(stream)) => service.lease = Some(LeaseReader::new(stream)),
            Part::Sharer(None) | Part::Taken => {}
        }
        service
    }

    fn own(&mut self, socket: BoundSocket) {
        let (listener, file) = socket.into_parts();
        self.agent.listen(listener);
        self.file = Some(file);
        self.lease = None;
    }

    /// Starts the agent, where that is ours to do.
    pub(super) fn start(&mut self) {
        if self.agent.is_ours() {
            self.start_agent();
        } else if self.lease.is_some() {
            self.offer.make(self.seat.path());
            self.timer.start(UNANSWERED_WAIT);
        } else {
            self.elect();
        }
    }

    /// The same for a COMMAND that may not run without an agent: an error where it cannot be started.
    pub(super) fn start_required(&mut self) -> std::io::Result<()> {
        if !self.agent.is_ours() {
            self.start();
            return Ok(());
        }
        self.agent.start()?;
        self.offer.make(self.seat.path());
        self.timer.start(HEALTHY_AFTER);
        Ok(())
    }

    /// How often our own agent was started again.
    pub(super) fn restarts(&self) -> u32 {
        self.agent.restarts()
    }

    /// Whether it makes no sense to wait for the agent.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.agent.is_in_trouble() || self.phase != Phase::Serving
    }

    /// What to wait for: the timer, where the agent says something, and where there is news of the offer.
    pub(super) fn descriptors(&self) -> (BorrowedFd<'_>, [Option<BorrowedFd<'_>>; 2]) {
        let lease = self.lease.as_ref().map(LeaseReader::as_fd);
        let talk = lease.or_else(|| self.agent.lease().map(std::os::fd::AsFd::as_fd));
        (self.timer.as_fd(), [talk, self.offer.as_fd()])
    }

    /// There is news of the offer.
    pub(super) fn on_offer(&mut self) {
        self.offer.go_on(self.seat.path());
    }

    /// The timer has fired.
    pub(super) fn on_timer(&mut self) {
        self.timer.clear();
        match self.phase {
            Phase::Serving | Phase::Lost if !self.agent.is_ours() => self.elect(),
            Phase::Serving | Phase::Lost => {
                if self.agent.pid().is_some() {
                    self.agent.on_age();
                } else {
                    self.start_agent();
                }
            }
            // It says nothing, but it lives for others. Whether it hangs is theirs to find out.
            Phase::Leaving if self.agent.has_others() => self.leave_it_to_others(),
            Phase::Leaving => {
                self.phase = Phase::Killed;
                self.agent.signal(Signal::SIGKILL);
                self.timer.start(AGENT_END_TIMEOUT);
            }
            // It hangs in the kernel, on a dead network file system, say. COMMAND's status does not wait for that.
            Phase::Killed => self.phase = Phase::Left,
            Phase::Left => {}
        }
    }

    /// The agent has said something, or is gone.
    pub(super) fn on_talk(&mut self) {
        if let Some(lease) = &mut self.lease {
            let news = lease.read();
            if let Some(told) = news.told {
                self.tries = 0;
                self.timer.stop();
                self.phase = Phase::Serving;
                if let Some(decision) = &told.decision {
                    self.seat.note_decision(decision.fingerprint());
                }
                let kept = self.agent.record().map(|record| {
                    Record::keep(record, told.decision.as_ref(), told.principal.as_ref())
                });
                if let Some(Err(error)) = kept
                    && error.kind() == std::io::ErrorKind::InvalidData
                {
                    say("the agent that this run shares decided otherwise than the one before it");
                }
            }
            if news.ended {
                self.lease = None;
                self.offer.withdraw();
                // At once the first time: callers wait. Not again and again, should it never say anything.
                if self.tries == 0 {
                    self.elect();
                } else {
                    self.timer.start(back_off(self.tries));
                }
            }
            return;
        }
        self.agent.listen_to_it();
        if self.phase == Phase::Leaving && self.agent.stays() {
            self.leave_it_to_others();
        }
    }

    /// Takes in the change of a child. False when it is none of ours.
    pub(super) fn on_child(&mut self, pid: i32, status: WaitStatus) -> bool {
        if self.agent.pid() != Some(pid) {
            return false;
        }
        if status.stopped() || status.continued() {
            // Somebody stopped the agent: theirs to continue.
            return true;
        }
        match self.phase {
            Phase::Serving | Phase::Lost => self.on_death(status),
            Phase::Leaving | Phase::Killed | Phase::Left => {
                self.agent.note_death();
                self.phase = Phase::Left;
            }
        }
        true
    }

    /// Elects: shares the agent that is there now, or keeps one going from here on.
    fn elect(&mut self) {
        let decision = self.agent.record().and_then(Record::decision_of);
        let is_decided = decision.is_some();
        if let Some(decision) = &decision {
            // Also where it was an agent of our own that decided: whoever is shared now has to agree.
            self.seat.note_decision(decision.fingerprint());
        }
        // Others may know whom the job is served as, who never were told to us.
        let may_own = is_decided || self.waited;
        let in_doubt = self.lease.is_some();
        let wait = match self.seat.elect_again(may_own, in_doubt) {
            Again::Part(Part::Owner(socket)) => {
                say(
                    "the agent of another run is gone; this run goes on with one of its own at the same place",
                );
                self.phase = Phase::Serving;
                self.agent.note_other();
                self.own(socket);
                self.start_agent();
                return;
            }
            Again::Part(Part::Sharer(Some(stream))) => {
                self.lease = Some(LeaseReader::new(stream));
                self.offer.make(self.seat.path());
                UNANSWERED_WAIT
                    .saturating_mul(1 << self.tries.min(16))
                    .min(LONGEST_WAIT)
            }
            Again::Part(_) => back_off(self.tries),
            Again::Later if may_own => back_off(self.tries),
            Again::Later => {
                self.waited = true;
                UNDECIDED_WAIT
            }
            Again::Lost(reason) => {
                if self.phase != Phase::Lost {
                    say(&format!(
                        "{reason}, where this run's own agent was: COMMAND cannot be served any more"
                    ));
                }
                self.phase = Phase::Lost;
                // Refused at once is better than waited for without end.
                self.offer.close();
                LONGEST_WAIT
            }
        };
        self.tries = self.tries.saturating_add(1);
        self.timer.start(wait);
    }

    fn start_agent(&mut self) {
        if self.file.as_ref().is_some_and(|file| !file.is_there()) {
            // Another run has taken over while we were stopped, or somebody cleaned up under us: nobody would find our agent.
            self.agent.hush();
            self.file = None;
            self.elect();
            return;
        }
        match self.agent.start() {
            Ok(()) => {
                self.offer.make(self.seat.path());
                self.timer.start(HEALTHY_AFTER);
            }
            Err(error) => {
                let wait = self.agent.note_death();
                if self.agent.is_newsworthy() {
                    say(&format!("cannot start the agent: {error}; trying again"));
                } else {
                    // SDKs had better be refused at once than wait for what may never come.
                    self.offer.close();
                }
                // Unlike a death, a failed start says that the machine lacks something, so even the first try waits.
                self.timer.start(wait.max(Duration::from_secs(1)));
            }
        }
    }

    fn on_death(&mut self, status: WaitStatus) {
        let is_asked_for = self.agent.is_being_replaced();
        let wait = self.agent.note_death();
        if is_asked_for {
            self.timer.start(wait);
            return;
        }
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("ended with code {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
        };
        if self.agent.is_hopeless_now() {
            say(&format!(
                "the agent {how}, as every time so far: token requests are refused until it stays up; it is still tried every half minute"
            ));
        } else if self.agent.is_newsworthy() {
            say(&format!(
                "the agent {how}; it is started again, requests wait"
            ));
        }
        self.timer.start(wait);
    }

    /// The agent may end, unless others count on it. It is told how COMMAND came to its `ending`, if it did; that is known then,
    /// and not kept waiting long.
    pub(super) fn leave(&mut self, ending: Option<Ending>) {
        self.timer.stop();
        self.timer.clear();
        let word = ending.map(|ending| match ending {
            Ending::Exited(0) => ENDED,
            _ => FAILED,
        });
        if self.lease.is_some() && word == Some(FAILED) {
            // Answered before the lease is given back, or the agent might be gone without having read it.
            let _ = ask_within(self.seat.path(), &format!("POST {LEASE_PATH}"), PATIENCE);
        }
        // Before the agent looks whether anybody claims its place.
        self.seat.release();
        self.lease = None;
        self.offer.close();
        if self.agent.pid().is_none() {
            self.phase = Phase::Left;
            return;
        }
        self.phase = Phase::Leaving;
        self.agent.leave(word);
        self.timer.start(AGENT_END_TIMEOUT);
    }

    /// Whether there is nothing left to wait for.
    pub(super) fn has_left(&self) -> bool {
        self.phase == Phase::Left
    }

    fn leave_it_to_others(&mut self) {
        self.phase = Phase::Left;
        if let Some(file) = self.file.take() {
            file.leave();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.seat.clear(file);
        }
    }
}

/// At once at first, then growing from a few milliseconds: many may elect at the same moment, and hold the lock for less.
fn back_off(tries: u32) -> Duration {
    Duration::from_millis(4)
        .saturating_mul(1 << tries.min(16))
        .min(LONGEST_WAIT)
}
