//! Declared resources are fetched before COMMAND starts: the agent is asked how they stand until that is settled or time is over.
//! Where there are none and COMMAND may not run without an agent, it is asked only whether it is there.
//!
//! Only what is refused for good keeps COMMAND from starting. Everything else, jobcred's own faults before all, is said aloud
//! and COMMAND starts as it would have without us.

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use jobcred_wire::{ErrorCode, ErrorDetail, HEALTH_PATH, READY_PATH, Readiness};
use nix::poll::{PollFd, PollFlags};
use tokio::time::Instant;

use super::ask::{Answer, Question};
use super::say;
use super::timer::Timer;

/// The longest that one question stays open: after that the reason so far is known and can be said.
const LONGEST_QUESTION: Duration = Duration::from_secs(3);
/// Before another question when one could not be asked, or was answered too early.
const PAUSE: Duration = Duration::from_millis(100);
/// Said where there can be no agent.
pub(super) const NOT_WITHOUT: &str = "COMMAND is not started, because an agent is required";

/// What to wait for.
#[derive(Clone, Debug)]
pub struct PrefetchPlan {
    /// Before COMMAND starts.
    pub wanted: Wanted,
    /// Where the agent answers.
    pub socket: PathBuf,
    /// The longest wait.
    pub limit: Duration,
    /// Whether COMMAND must not start without it.
    pub required: bool,
    /// How `run` ends when COMMAND is not started for an error of this kind; `transient` when time is over.
    pub code_of: fn(ErrorCode) -> i32,
}

/// See [`PrefetchPlan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An agent that answers.
    Agent,
    /// Tokens for all of the declared resources.
    Resources,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// COMMAND starts.
    Start,
    /// COMMAND does not start, and `run` ends with this code. It has been said why.
    Stop(i32),
}

/// The wait, as far as it has come.
pub(super) struct Prefetch {
    plan: PrefetchPlan,
    began: Instant,
    /// Wakes when there is something to do besides reading.
    timer: Timer,
    question: Option<Question>,
    /// Why it is not ready, as the agent said last.
    reason: Option<ErrorDetail>,
}

impl Prefetch {
    /// Begins to wait.
    pub(super) fn begin(plan: PrefetchPlan) -> io::Result<Self> {
        let mut prefetch = Self {
            plan,
            began: Instant::now(),
            timer: Timer::new()?,
            question: None,
            reason: None,
        };
        prefetch.ask();
        Ok(prefetch)
    }

    /// What to poll for besides one's own.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = PollFd<'_>> {
        let question = self.question.as_ref().map(Question::as_fd);
        std::iter::once(self.timer.as_fd())
            .chain(question)
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
    }

    /// Goes on after any of the descriptors has something. The verdict, once there is one.
    pub(super) fn go_on(&mut self) -> Option<Verdict> {
        self.timer.clear();
        match self.question.as_mut().map(Question::answer) {
            Some(Ok(None)) => {}
            Some(Ok(Some(answer))) => {
                self.question = None;
                if let Some(verdict) = self.take(&answer) {
                    return Some(verdict);
                }
            }
            // It died, most likely, and is started again.
            Some(Err(_)) => self.question = None,
            None => self.ask(),
        }
        if self.left().is_zero() {
            return Some(self.over());
        }
        let pause = if self.question.is_some() {
            self.left()
        } else {
            PAUSE.min(self.left())
        };
        self.timer.start(pause);
        None
    }

    /// What it comes to when the agent cannot be started, for `why`.
    pub(super) fn give_up(&self, why: &str) -> Verdict {
        match self.plan.wanted {
            Wanted::Agent => say(why),
            Wanted::Resources => say(&format!(
                "the declared resources could not be fetched before COMMAND: {why}"
            )),
        }
        self.without(ErrorCode::Internal)
    }

    fn ask(&mut self) {
        let wait = self.left().min(LONGEST_QUESTION).as_secs();
        let what = match self.plan.wanted {
            Wanted::Agent => format!("GET {HEALTH_PATH}"),
            Wanted::Resources => format!("GET {READY_PATH}?wait={wait}"),
        };
        // One that cannot be asked now is asked again after a pause.
        self.question = Question::ask(&self.plan.socket, &what).ok();
        self.timer.start(PAUSE.min(self.left()));
        if self.question.is_some() {
            self.timer.start(self.left());
        }
    }

    fn take(&mut self, answer: &Answer) -> Option<Verdict> {
        if answer.status == 200 {
            return Some(Verdict::Start);
        }
        // An answer that says nothing of itself is like none.
        let error = serde_json::from_slice::<Readiness>(&answer.body)
            .ok()?
            .error?;
        if error.code.is_final() {
            say(&format!(
                "COMMAND is not started: {}",
                plain(&error.message)
            ));
            say_hint(&error);
            return Some(Verdict::Stop((self.plan.code_of)(error.code)));
        }
        if error.code != ErrorCode::Transient {
            say(&format!(
                "the declared resources could not be fetched before COMMAND: {}",
                plain(&error.message)
            ));
            say_hint(&error);
            return Some(self.without(error.code));
        }
        if self.reason.is_none() && !self.left().is_zero() && self.began.elapsed() > PAUSE {
            say(&format!(
                "COMMAND waits for its declared resources, {} s at most: {}",
                self.plan.limit.as_secs(),
                plain(&error.message)
            ));
        }
        self.reason = Some(error);
        None
    }

    fn over(&self) -> Verdict {
        let limit = self.plan.limit.as_secs();
        match (&self.reason, self.plan.wanted) {
            (Some(error), _) => {
                say(&format!(
                    "not all declared resources could be fetched within {limit} s: {}",
                    plain(&error.message)
                ));
                say_hint(error);
            }
            (None, Wanted::Agent) => say(&format!("the agent did not answer within {limit} s")),
            (None, Wanted::Resources) => say(&format!(
                "the agent did not say within {limit} s whether the declared resources can be fetched"
            )),
        }
        self.without(ErrorCode::Transient)
    }

    fn without(&self, why: ErrorCode) -> Verdict {
        if self.plan.required {
            say(match self.plan.wanted {
                Wanted::Agent => NOT_WITHOUT,
                Wanted::Resources => "COMMAND is not started, because they are required",
            });
            return Verdict::Stop((self.plan.code_of)(why));
        }
        say("COMMAND starts all the same; the agent goes on trying");
        Verdict::Start
    }

    fn left(&self) -> Duration {
        self.plan.limit.saturating_sub(self.began.elapsed())
    }
}

fn say_hint(error: &ErrorDetail) {
    if let Some(hint) = &error.hint {
        hint.lines().for_each(|line| say(&plain(line)));
    }
}

/// Text from elsewhere, fit for a terminal and for one line.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}
