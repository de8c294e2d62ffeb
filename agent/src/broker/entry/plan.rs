//! What the background does about an entry.

use std::time::Duration;

use super::{Entry, Held, Moment};
use crate::broker::refresh::{Freshness, SHORTEST_PAUSE, freshness};

/// Without a valid token the background waits no longer than this between tries, so that a pause that was planned for a
/// long life cannot outlast a clock jump or a suspend.
const LONGEST_WAIT_WITHOUT: Duration = Duration::from_secs(60);
/// A key that could not be had is kept this long after it was last asked for: renewed in the background when it had a
/// token before, shown in the status otherwise.
const KEEP_WITHOUT: Duration = Duration::from_secs(10 * 60);

/// What the background does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Plan {
    /// Nobody needs it any more.
    LetGo,
    /// Renew it now.
    Refresh,
    /// Look again after this time.
    Wait(Duration),
}

impl Entry {
    /// Plans the background's next step.
    pub(in crate::broker) fn plan(&self, now: Moment) -> Plan {
        if self.under_way().is_some() {
            return Plan::Wait(LONGEST_WAIT_WITHOUT);
        }
        if self.ended.is_some() {
            return self.plan_ended(now);
        }
        let pause = self.not_before.saturating_duration_since(now.runtime);
        let wait = match &self.held {
            None if self.is_declared => self.wait_without(now, pause),
            None => return self.plan_unknown(now),
            Some(held) => {
                let left = held.left(now);
                match held.freshness(now) {
                    // A look when it is due, since by then somebody may have asked, and one at its end, to let go of it.
                    Freshness::Fresh | Freshness::RefreshSoon if !self.is_wanted() => {
                        let due = held.due_in(now);
                        return Plan::Wait(if due.is_zero() { left } else { due.min(left) });
                    }
                    Freshness::Fresh => held.due_in(now).max(pause).min(left),
                    Freshness::RefreshSoon => pause.min(left),
                    Freshness::Expired if self.is_worth_retrying(now) => {
                        self.wait_without(now, pause)
                    }
                    Freshness::Expired => return Plan::LetGo,
                }
            }
        };
        if wait.is_zero() {
            Plan::Refresh
        } else {
            Plan::Wait(wait)
        }
    }

    /// Whether the background should start a fetch now.
    pub(in crate::broker) fn is_due(&self, now: Moment) -> bool {
        self.plan(now) == Plan::Refresh
    }

    /// Whether the background renews it while it is valid.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_declared || self.is_asked
    }

    /// The background's pause without a valid token. A refusal holds for it as it holds for callers.
    fn wait_without(&self, now: Moment, pause: Duration) -> Duration {
        let most = self.last_end.map_or(Duration::ZERO, |end| {
            (end + LONGEST_WAIT_WITHOUT).saturating_duration_since(now.runtime)
        });
        let refused = self.refusal.as_ref().map_or(Duration::ZERO, |refusal| {
            refusal.until.saturating_duration_since(now.runtime)
        });
        pause.min(most).max(refused)
    }

    /// An undeclared key without a token: only callers fetch it.
    fn plan_unknown(&self, now: Moment) -> Plan {
        let kept = (self.last_asked + KEEP_WITHOUT).saturating_duration_since(now.runtime);
        if kept.is_zero() && self.refusing(now).is_none() {
            Plan::LetGo
        } else {
            Plan::Wait(kept.max(SHORTEST_PAUSE))
        }
    }

    /// After the end of the user's grant the background asks nobody: the token held is served to its end, and then only a
    /// caller's demand goes upstream.
    fn plan_ended(&self, now: Moment) -> Plan {
        match self.valid(now) {
            Some(_) => Plan::Wait(self.left(now).max(SHORTEST_PAUSE)),
            None if self.is_declared => Plan::Wait(LONGEST_WAIT_WITHOUT),
            None => self.plan_unknown(now),
        }
    }

    /// Whether the background tries to get an expired token back: for declared keys always; for one that ended in use
    /// once (the machine slept), and as long as somebody keeps asking.
    fn is_worth_retrying(&self, now: Moment) -> bool {
        let is_recent = now.runtime < self.last_asked + KEEP_WITHOUT;
        self.is_declared || (self.is_asked && (self.tries == 0 || is_recent))
    }
}

impl Held {
    /// How long until it is to be renewed, by the clock that gets there first.
    fn due_in(&self, now: Moment) -> Duration {
        self.refresh_on
            .since(now.wall)
            .min(self.refresh_at.saturating_duration_since(now.runtime))
    }

    /// The life left, by the clock that gets there first.
    pub(super) fn left(&self, now: Moment) -> Duration {
        let left = self.ends_at.saturating_duration_since(now.runtime);
        self.token.life_left(now.wall).min(left)
    }

    fn freshness(&self, now: Moment) -> Freshness {
        if self.left(now).is_zero() {
            return Freshness::Expired;
        }
        freshness(now.wall, self.refresh_on, self.token.expires_on())
    }
}
