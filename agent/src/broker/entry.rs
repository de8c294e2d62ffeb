//! One key's state: what is held, what was tried, and every decision about it, as functions of a given moment.

use std::sync::Arc;
use std::time::Duration;

use jobcred_wire::{ErrorCode, TokenStatus, UpstreamError};
use tokio::time::Instant;

use super::flight::{Airborne, Flight, Landing};
use super::refresh::{SHORTEST_PAUSE, back_off, first_pause, refresh_plan};
use super::{CachedToken, Key, Want};
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::token::{AccessToken, Identity};

/// How long a refusal is remembered that a role or identity assignment can heal.
const REMEMBER_REFUSAL: Duration = Duration::from_secs(30);
/// How long a refusal is remembered that only another request can heal.
const REMEMBER_MALFORMED: Duration = Duration::from_secs(10 * 60);
/// How long an issuer's wish to be left alone holds for callers without a valid token.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long it holds for the background, at most; half of the life left when that is longer.
const MOST_RETRY_AFTER_BACKGROUND: Duration = Duration::from_secs(60);
/// One claims challenge per key goes upstream in this time.
const CLAIMS_PAUSE: Duration = Duration::from_secs(30);
/// Without a valid token the background waits no longer than this between tries, so that a pause that was planned for a
/// long life cannot outlast a clock jump or a suspend.
const LONGEST_WAIT_WITHOUT: Duration = Duration::from_secs(60);
/// A key that could not be had is kept this long after it was last asked for: renewed in the background when it had a
/// token before, shown in the status otherwise.
const KEEP_WITHOUT: Duration = Duration::from_secs(10 * 60);

/// Both clocks, read once per decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// What expiry is measured in.
    pub wall: UnixTime,
    /// What pauses are measured in.
    pub runtime: Instant,
}

/// What a caller gets.
#[derive(Debug)]
pub(super) enum Demand {
    /// This token.
    Serve(Arc<CachedToken>),
    /// This error, from memory.
    Refuse(TokenError),
    /// What the fetch under way brings.
    Join(Flight),
    /// What a fetch brings that is to be started.
    Start,
}

/// What the background does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nobody needs it any more.
    LetGo,
    /// Renew it now.
    Refresh,
    /// Look again after this time.
    Wait(Duration),
}

/// How useful an entry at rest is: the least gives way first. Entries without a valid token come first, then those that
/// were got and never asked for again, then the longest unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Usefulness {
    is_valid: bool,
    is_used: bool,
    last_asked: Instant,
}

/// One key's state. At most one fetch of it is under way.
pub(super) struct Entry {
    is_declared: bool,
    held: Option<Held>,
    airborne: Option<Airborne>,
    /// Whether the fetch under way has a caller waiting for it.
    is_demanded: bool,
    /// Asked for since the last refresh: the reason to renew it.
    is_asked: bool,
    /// Asked for in the time of the token before, so that a renewed token still counts as in use.
    was_asked: bool,
    last_asked: Instant,
    /// When the last fetch began and ended.
    last_start: Option<Instant>,
    last_end: Option<Instant>,
    /// Fetches in a row that brought nothing newer.
    tries: u32,
    /// The end of the background's back-off.
    not_before: Instant,
    refusal: Option<Refusal>,
    claims: Option<ClaimsTry>,
    hits: u64,
    fetches: u64,
    failures: u64,
    last_error: Option<UpstreamError>,
}

struct Held {
    token: Arc<CachedToken>,
    /// When the background renews it, on both clocks: whichever comes first. A wall clock that was set back would
    /// otherwise postpone the renewal past the real end.
    refresh_on: UnixTime,
    refresh_at: Instant,
}

/// A failure that is answered again, without a fetch, to who has no valid token.
struct Refusal {
    error: TokenError,
    until: Instant,
}

struct ClaimsTry {
    at: Instant,
    error: Option<TokenError>,
}

impl Entry {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            is_declared: false,
            held: None,
            airborne: None,
            is_demanded: false,
            is_asked: false,
            was_asked: false,
            last_asked: now.runtime,
            last_start: None,
            last_end: None,
            tries: 0,
            not_before: now.runtime,
            refusal: None,
            claims: None,
            hits: 0,
            fetches: 0,
            failures: 0,
            last_error: None,
        }
    }

    pub(super) fn declare(&mut self) {
        self.is_declared = true;
    }

    pub(super) fn is_declared(&self) -> bool {
        self.is_declared
    }

    /// Whether it had a token once or is declared: no stranger.
    pub(super) fn is_known(&self) -> bool {
        self.is_declared || self.held.is_some()
    }

    /// The token held, when it may be handed out.
    pub(super) fn valid(&self, now: UnixTime) -> Option<&Arc<CachedToken>> {
        let held = self.held.as_ref()?;
        held.token.is_valid(now).then_some(&held.token)
    }

    /// Serves the token held when it has life enough.
    pub(super) fn hit(&mut self, now: Moment, min_validity: Duration) -> Option<Arc<CachedToken>> {
        let token = self.valid(now.wall)?;
        if token.life_left(now.wall) < min_validity {
            return None;
        }
        let token = Arc::clone(token);
        self.hits += 1;
        self.is_asked = true;
        self.last_asked = now.runtime;
        Some(token)
    }

    /// Whether the background should start a fetch now.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.plan(now) == Plan::Refresh
    }

    /// Decides what a caller gets.
    pub(super) fn demand(&mut self, now: Moment, want: Want<'_>) -> Demand {
        self.last_asked = now.runtime;
        if want.claims.is_some() {
            return self.demand_claims(now);
        }
        if let Some(token) = self.hit(now, want.min_validity) {
            return Demand::Serve(token);
        }
        if let Some(airborne) = &self.airborne {
            return Demand::Join(airborne.flight.clone());
        }
        let left = self.valid(now.wall).map(|token| token.life_left(now.wall));
        match left {
            // The caller wants more life than there is. Just tried: what is held is the best the platform has.
            Some(left)
                if self.was_tried_within(first_pause(left), now)
                    || self.refusing(now).is_some() =>
            {
                self.hit(now, Duration::ZERO)
                    .map_or(Demand::Start, Demand::Serve)
            }
            Some(_) => Demand::Start,
            None => self.refusing(now).map_or(Demand::Start, Demand::Refuse),
        }
    }

    fn demand_claims(&mut self, now: Moment) -> Demand {
        if let Some(airborne) = &self.airborne {
            return Demand::Join(airborne.flight.clone());
        }
        match &self.claims {
            Some(claims) if now.runtime < claims.at + CLAIMS_PAUSE => {
                if let Some(error) = &claims.error {
                    return Demand::Refuse(error.clone());
                }
                if let Some(token) = self.hit(now, Duration::ZERO) {
                    return Demand::Serve(token);
                }
            }
            _ => {}
        }
        self.refusing(now).map_or(Demand::Start, Demand::Refuse)
    }

    /// Plans the background's next step.
    pub(super) fn plan(&self, now: Moment) -> Plan {
        if self.airborne.is_some() {
            return Plan::Wait(LONGEST_WAIT_WITHOUT);
        }
        let pause = self.not_before.saturating_duration_since(now.runtime);
        let (wait, most) = match &self.held {
            Some(held) if held.token.is_valid(now.wall) => {
                let left = held.token.life_left(now.wall);
                if !self.is_wanted() {
                    return Plan::Wait(left);
                }
                (held.due_in(now).max(pause), left)
            }
            _ if self.is_worth_retrying(now) => {
                let since = self
                    .last_end
                    .map_or(now.runtime, |end| end + LONGEST_WAIT_WITHOUT);
                let most = since.saturating_duration_since(now.runtime);
                let refused = self.refusal.as_ref().map_or(Duration::ZERO, |refusal| {
                    refusal.until.saturating_duration_since(now.runtime)
                });
                (pause.min(most).max(refused), LONGEST_WAIT_WITHOUT)
            }
            // An expired secret that nobody wants goes at once, an error when it is of no more use.
            Some(_) => return Plan::LetGo,
            None => {
                let kept = (self.last_asked + KEEP_WITHOUT).saturating_duration_since(now.runtime);
                let refused = self.refusing(now).is_some();
                return if kept.is_zero() && !refused {
                    Plan::LetGo
                } else {
                    Plan::Wait(kept.max(SHORTEST_PAUSE))
                };
            }
        };
        if wait.is_zero() {
            Plan::Refresh
        } else {
            Plan::Wait(wait.min(most))
        }
    }

    /// How useful the entry is; `None` when it must not give way.
    pub(super) fn usefulness(&self, now: Moment) -> Option<Usefulness> {
        (!self.is_declared && self.airborne.is_none()).then(|| Usefulness {
            is_valid: self.valid(now.wall).is_some(),
            is_used: self.hits > 0,
            last_asked: self.last_asked,
        })
    }

    /// Notes the start of a fetch and says when it may begin: a key that is asked for, forgotten and asked for again in
    /// a loop goes upstream once a second.
    pub(super) fn takes_off(
        &mut self,
        now: Moment,
        is_demanded: bool,
        has_claims: bool,
    ) -> Option<Instant> {
        let earliest = self.last_start.map(|start| start + SHORTEST_PAUSE);
        let not_before = earliest.filter(|time| *time > now.runtime && !has_claims);
        self.last_start = Some(not_before.unwrap_or(now.runtime));
        self.is_demanded = is_demanded;
        self.fetches += 1;
        not_before
    }

    /// Keeps hold of the fetch under way.
    pub(super) fn airborne(&mut self, airborne: Airborne) {
        self.airborne = Some(airborne);
    }

    /// Takes the end of the fetch under way.
    pub(super) fn land(
        &mut self,
        key: &Key,
        now: Moment,
        result: Result<AccessToken, TokenError>,
        jitter: u16,
        had_claims: bool,
    ) -> Landing {
        self.airborne = None;
        self.last_end = Some(now.runtime);
        let mut is_unchanged = false;
        let result = result.and_then(|token| {
            let token = check(token, now.wall)?;
            let token = match self.valid(now.wall) {
                Some(held) if held.token.secret == token.secret => {
                    is_unchanged = true;
                    self.keep(key, now, &token, jitter)
                }
                _ => self.replace(key, now, token, jitter),
            };
            token.ok_or_else(|| {
                TokenError::new(ErrorCode::Internal, "the answer could not be rendered")
            })
        });
        match &result {
            Ok(_) => {
                self.refusal = None;
                self.last_error = None;
            }
            Err(error) => self.fail(now, error, jitter),
        }
        if had_claims {
            self.claims = Some(ClaimsTry {
                at: now.runtime,
                error: match &result {
                    Ok(_) => is_unchanged.then(unchanged),
                    Err(error) => Some(error.clone()),
                },
            });
        }
        Landing {
            result,
            is_unchanged,
            had_claims,
        }
    }

    /// Nothing newer. The token stays as it is; callers are told to come back when the background has tried again.
    fn keep(
        &mut self,
        key: &Key,
        now: Moment,
        again: &AccessToken,
        jitter: u16,
    ) -> Option<Arc<CachedToken>> {
        self.tries = self.tries.saturating_add(1);
        let held = self.held.as_mut()?;
        let mut token = held.token.token.clone();
        // One token with two ends: a relative lifetime that is repeated from a cache makes it look longer each time.
        token.expires_on = token.expires_on.min(again.expires_on);
        let pause = back_off(token.expires_on.since(now.wall), self.tries, jitter);
        self.not_before = now.runtime + pause;
        let told = held.token.refresh_on.max(now.wall + pause);
        let kept = CachedToken::new(key, token, held.token.obtained_on, told)?;
        held.token = Arc::new(kept);
        Some(Arc::clone(&held.token))
    }

    fn replace(
        &mut self,
        key: &Key,
        now: Moment,
        token: AccessToken,
        jitter: u16,
    ) -> Option<Arc<CachedToken>> {
        let plan = refresh_plan(now.wall, token.expires_on, token.refresh_on, jitter);
        let token = Arc::new(CachedToken::new(key, token, now.wall, plan.told)?);
        self.held = Some(Held {
            token: Arc::clone(&token),
            refresh_on: plan.refresh_on,
            refresh_at: now.runtime + plan.refresh_on.since(now.wall),
        });
        self.tries = 0;
        self.not_before = now.runtime;
        self.was_asked = self.is_asked || self.is_demanded;
        self.is_asked = false;
        Some(token)
    }

    /// A failed fetch takes nothing away; it only says when to try again, and what to answer until then.
    fn fail(&mut self, now: Moment, error: &TokenError, jitter: u16) {
        self.tries = self.tries.saturating_add(1);
        self.failures += 1;
        self.last_error = Some(upstream_error(error, now.wall));
        let left = self
            .valid(now.wall)
            .map_or(Duration::ZERO, |token| token.life_left(now.wall));
        let asked = error.retry_after().unwrap_or_default();
        let pause = back_off(left, self.tries, jitter)
            .max(asked.min(MOST_RETRY_AFTER_BACKGROUND.max(left / 2)));
        self.not_before = now.runtime + pause;
        let remember = match error.kind() {
            ErrorCode::Transient | ErrorCode::Internal | ErrorCode::Unknown => {
                asked.clamp(SHORTEST_PAUSE, MOST_RETRY_AFTER)
            }
            _ if error.is_healable() => REMEMBER_REFUSAL,
            _ => REMEMBER_MALFORMED,
        };
        self.refusal = Some(Refusal {
            error: error.clone(),
            until: now.runtime + remember,
        });
    }

    /// Drops the token, and nothing that keeps a caller from hammering upstream.
    pub(super) fn forget(&mut self) {
        self.held = None;
    }

    /// Ends the fetch under way.
    pub(super) fn abort(&self) {
        if let Some(airborne) = &self.airborne {
            airborne.abort();
        }
    }

    /// How long this key lasts without upstream; `None` when it is not in use.
    pub(super) fn runway(&self, now: UnixTime) -> Option<Duration> {
        match self.valid(now) {
            Some(token) if self.is_wanted() || self.was_asked => Some(token.life_left(now)),
            None if self.is_declared => Some(Duration::ZERO),
            _ => None,
        }
    }

    pub(super) fn status(&self, key: &Key) -> TokenStatus {
        let token = self.held.as_ref().map(|held| &held.token);
        TokenStatus {
            kind: key.kind().to_owned(),
            identity: match key.identity() {
                Identity::Job => Identity::Job.to_string(),
                Identity::ClientId(id) | Identity::ObjectId(id) | Identity::ResourceId(id) => {
                    id.clone()
                }
            },
            resource: key.subject().to_owned(),
            obtained_on: token.map(|token| token.obtained_on.as_secs()),
            expires_on: token.map(|token| token.expires_on().as_secs()),
            refresh_on: self.held.as_ref().map(|held| held.refresh_on.as_secs()),
            hits: self.hits,
            fetches: self.fetches,
            failures: self.failures,
            last_error: self.last_error.clone(),
        }
    }

    /// Whether the background renews it while it is valid.
    fn is_wanted(&self) -> bool {
        self.is_declared || self.is_asked
    }

    /// Whether the background tries to get it back when it has none: for declared keys always; for one that expired in
    /// use once (the machine slept), and as long as somebody keeps asking.
    fn is_worth_retrying(&self, now: Moment) -> bool {
        let is_recent = now.runtime < self.last_asked + KEEP_WITHOUT;
        self.is_declared || (self.held.is_some() && self.is_asked && (self.tries == 0 || is_recent))
    }

    fn was_tried_within(&self, pause: Duration, now: Moment) -> bool {
        self.last_end.is_some_and(|end| now.runtime < end + pause)
    }

    /// The failure to repeat, with the time that is left of its pause where waiting helps.
    fn refusing(&self, now: Moment) -> Option<TokenError> {
        let refusal = self.refusal.as_ref()?;
        let left = refusal.until.saturating_duration_since(now.runtime);
        if left.is_zero() {
            return None;
        }
        let error = refusal.error.clone();
        Some(if error.is_transient() {
            error.with_retry_after(left.max(SHORTEST_PAUSE))
        } else {
            error
        })
    }
}

impl Held {
    fn due_in(&self, now: Moment) -> Duration {
        self.refresh_on
            .since(now.wall)
            .min(self.refresh_at.saturating_duration_since(now.runtime))
    }
}

/// What the status shows of a failure. Messages are made for readers outside; the cause stays in the log.
pub(super) fn upstream_error(error: &TokenError, at: UnixTime) -> UpstreamError {
    UpstreamError {
        code: error.kind(),
        message: error.message().to_owned(),
        at: at.as_secs(),
    }
}

/// The answer to a claims challenge that brought nothing newer.
pub(super) fn unchanged() -> TokenError {
    TokenError::new(
        ErrorCode::Rejected,
        "the platform answered the claims challenge with the same token again",
    )
    .with_hint(
        "the platform keeps an identity's tokens for up to 24 hours and cannot be made to issue a newer one; \
         wait for it, or lift the condition that asks for a newer token",
    )
}

/// Refuses what must never be handed out, so that no blank or expired answer takes a good token's place.
fn check(token: AccessToken, now: UnixTime) -> Result<AccessToken, TokenError> {
    if token.secret.is_empty() {
        return Err(TokenError::new(
            ErrorCode::Internal,
            "the source gave an empty token",
        ));
    }
    if token.expires_on <= now {
        return Err(TokenError::new(
            ErrorCode::Transient,
            "the token that arrived has ended already by this machine's clock",
        )
        .with_hint("check that this machine's clock is right"));
    }
    Ok(token)
}
