//! One key's state: what is held, what was tried, and every decision about it, as functions of a given moment.

mod landing;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use jobcred_wire::{DeclaredResource, ResourceState, TokenStatus, UpstreamError};
use tokio::time::Instant;

use super::flight::{Airborne, Flight};
use super::refresh::{SHORTEST_PAUSE, first_pause};
use super::{CachedToken, Key, Want};
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::token::Identity;

pub(super) use self::landing::{unchanged, upstream_error};
pub(super) use self::plan::Plan;

/// One claims challenge per key goes upstream in this time.
const CLAIMS_PAUSE: Duration = Duration::from_secs(30);

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
    /// The user's grant has ended: only a caller's demand goes upstream, and rarely, until one brings a token again.
    ended: Option<TokenError>,
    claims: Option<ClaimsTry>,
    hits: u64,
    fetches: u64,
    failures: u64,
    last_error: Option<Failure>,
}

/// A failure, as it is shown.
struct Failure {
    shown: UpstreamError,
    /// Whether no issuer refused anything: see [`TokenError::blocked`].
    is_blocked: bool,
}

struct Held {
    token: Arc<CachedToken>,
    /// When the background renews it, on both clocks: whichever comes first. A wall clock that was set back would
    /// otherwise postpone the renewal past the real end.
    refresh_on: UnixTime,
    refresh_at: Instant,
    /// When it ends for sure, whatever becomes of the wall clock: what it was told to live was measured by the clock of then.
    ends_at: Instant,
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
            is_asked: false,
            was_asked: false,
            last_asked: now.runtime,
            last_start: None,
            last_end: None,
            tries: 0,
            not_before: now.runtime,
            refusal: None,
            ended: None,
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

    /// Whether it has got a token before, valid or not.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The token held, when it may be handed out.
    pub(super) fn valid(&self, now: Moment) -> Option<&Arc<CachedToken>> {
        let held = self.held.as_ref()?;
        (!held.left(now).is_zero()).then_some(&held.token)
    }

    /// The life left of the token held; zero when there is none.
    pub(super) fn left(&self, now: Moment) -> Duration {
        let held = self.held.as_ref();
        held.map_or(Duration::ZERO, |held| held.left(now))
    }

    /// Serves the token held when it has life enough.
    pub(super) fn hit(&mut self, now: Moment, min_validity: Duration) -> Option<Arc<CachedToken>> {
        let token = self.valid(now)?;
        if self.left(now) < min_validity {
            return None;
        }
        let token = Arc::clone(token);
        self.hits += 1;
        self.is_asked = true;
        self.last_asked = now.runtime;
        Some(token)
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
        if let Some(airborne) = self.under_way() {
            return Demand::Join(airborne.flight.clone());
        }
        let left = self.valid(now).map(|_| self.left(now));
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
        if let Some(airborne) = self.under_way() {
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

    /// How useful the entry is; `None` when it must not give way.
    pub(super) fn usefulness(&self, now: Moment) -> Option<Usefulness> {
        (!self.is_declared && self.under_way().is_none()).then(|| Usefulness {
            is_valid: self.valid(now).is_some(),
            is_used: self.hits > 0,
            last_asked: self.last_asked,
        })
    }

    /// Notes the start of a fetch and says when it may begin: a key that is asked for, forgotten and asked for again in
    /// a loop goes upstream once a second.
    pub(super) fn takes_off(&mut self, now: Moment, has_claims: bool) -> Option<Instant> {
        let earliest = self.last_start.map(|start| start + SHORTEST_PAUSE);
        let not_before = earliest.filter(|time| *time > now.runtime && !has_claims);
        self.last_start = Some(not_before.unwrap_or(now.runtime));
        self.fetches += 1;
        not_before
    }

    fn under_way(&self) -> Option<&Airborne> {
        self.airborne.as_ref().filter(|fetch| !fetch.is_lost())
    }

    /// Keeps hold of the fetch under way.
    pub(super) fn airborne(&mut self, airborne: Airborne) {
        self.airborne = Some(airborne);
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
    pub(super) fn runway(&self, now: Moment) -> Option<Duration> {
        match self.valid(now) {
            Some(_) if self.is_wanted() || self.was_asked => Some(self.left(now)),
            None if self.is_declared => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// How it stands, for who waits for it.
    pub(super) fn standing(&self, key: &Key, now: Moment) -> DeclaredResource {
        let refused = self
            .last_error
            .as_ref()
            .filter(|error| error.shown.code.is_final());
        DeclaredResource {
            resource: key.subject().to_owned(),
            state: match self.valid(now) {
                Some(_) => ResourceState::Ready,
                None => match refused {
                    Some(error) if error.is_blocked => ResourceState::Blocked,
                    Some(_) => ResourceState::Refused,
                    None => ResourceState::Trying,
                },
            },
            last_error: self.shown_error(),
        }
    }

    pub(super) fn status(&self, key: &Key, now: Moment) -> TokenStatus {
        let token = self.held.as_ref().map(|held| &held.token);
        TokenStatus {
            kind: key.kind().to_owned(),
            identity: match key.identity() {
                Identity::Job => Identity::Job.to_string(),
                Identity::ClientId(id)
                | Identity::ObjectId(id)
                | Identity::ResourceId(id)
                | Identity::Application { client_id: id, .. } => id.clone(),
            },
            resource: key.subject().to_owned(),
            obtained_on: token.map(|token| token.obtained_on.as_secs()),
            expires_on: token.map(|token| token.expires_on().as_secs()),
            refresh_on: self.held.as_ref().map(|held| held.refresh_on.as_secs()),
            declared: self.is_declared,
            runway: self
                .runway(now)
                .map(|left| i64::try_from(left.as_secs()).unwrap_or(i64::MAX)),
            hits: self.hits,
            fetches: self.fetches,
            failures: self.failures,
            last_error: self.shown_error(),
        }
    }

    fn shown_error(&self) -> Option<UpstreamError> {
        self.last_error.as_ref().map(|error| error.shown.clone())
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
