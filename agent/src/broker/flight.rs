//! One fetch per key, in a task of its own, for all who wait.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use jobcred_wire::ErrorCode;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout};
use tracing::Instrument;

use super::{Broker, CachedToken, Fetch, Key, RECENT_ERRORS, State};
use crate::error::TokenError;
use crate::journal::Event;
use crate::token::AccessToken;

/// How a fetch ended, for everyone who waited.
#[derive(Clone, Debug)]
pub(super) struct Landing {
    /// The token now held, or why there is none newer.
    pub result: Result<Arc<CachedToken>, TokenError>,
    /// Whether the platform gave the token held before once more.
    pub is_unchanged: bool,
    /// Whether the fetch carried a claims challenge.
    pub had_claims: bool,
}

/// A fetch under way, as its waiters hold it. Dropping it cancels nothing.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    landing: watch::Receiver<Option<Landing>>,
}

impl Flight {
    /// Waits for the end of the fetch.
    pub(super) async fn landing(&mut self) -> Landing {
        let landed = self.landing.wait_for(Option::is_some).await;
        landed
            .ok()
            .and_then(|landing| landing.clone())
            .unwrap_or_else(|| Landing {
                // The task was ended from outside: by a shutdown, or with its runtime.
                result: Err(closed()),
                is_unchanged: false,
                had_claims: false,
            })
    }
}

/// A fetch under way, as its entry holds it.
#[derive(Debug)]
pub(super) struct Airborne {
    pub flight: Flight,
    /// Whether a caller waits for it, or waited.
    pub is_demanded: bool,
    task: AbortHandle,
}

impl Airborne {
    pub(super) fn abort(&self) {
        self.task.abort();
    }

    /// Whether its task ended without landing, which takes a panic outside the fetch. Not seen yet, but a key must not
    /// wait for it for ever.
    pub(super) fn is_lost(&self) -> bool {
        self.task.is_finished()
    }
}

impl Broker {
    /// Starts the fetch of a key that has none under way. `is_demanded` tells a caller's from the background's.
    pub(super) fn start(
        &self,
        state: &mut State,
        key: &Key,
        claims: Option<&str>,
        is_demanded: bool,
    ) -> Result<Flight, TokenError> {
        let now = self.now();
        let entry = state.store.entry(key, now);
        let free = self.permits.available_permits();
        let kept_for_known = if entry.is_known() {
            0
        } else {
            self.options.max_in_flight / 2
        };
        let permit = (free > kept_for_known)
            .then(|| Arc::clone(&self.permits).try_acquire_owned().ok())
            .flatten();
        let Some(permit) = permit else {
            state.counters.shed += 1;
            return Err(TokenError::new(
                ErrorCode::Transient,
                "too many token requests are under way already",
            )
            .with_retry_after(Duration::from_secs(1)));
        };
        let (sender, landing) = watch::channel(None);
        let not_before = entry.takes_off(now, claims.is_some());
        let task = {
            let (me, fetch) = (Weak::clone(&self.me), Arc::clone(&self.fetch));
            let (key, claims) = (key.clone(), claims.map(str::to_owned));
            let bound = self.options.fetch_bound;
            async move {
                if let Some(time) = not_before {
                    sleep_until(time).await;
                }
                let result = attempt(&*fetch, &key, claims.as_deref(), bound).await;
                if let Some(broker) = me.upgrade() {
                    let landing = broker.land(&key, result, claims.is_some());
                    // Nobody may be waiting; the entry has it all the same.
                    let _ = sender.send(Some(landing));
                    // Before the scheduler looks for room.
                    drop(permit);
                    broker.wake.notify_one();
                }
            }
        };
        // A caller's fetch is logged under its request, the background's under a span of its own.
        let span = if is_demanded {
            tracing::info_span!("acquire", %key)
        } else {
            tracing::info_span!(parent: None, "refresh", %key)
        };
        let flight = Flight { landing };
        // The task needs the lock to land, so it cannot land before its entry knows of it.
        entry.airborne(Airborne {
            flight: flight.clone(),
            is_demanded,
            task: tokio::spawn(task.instrument(span.or_current())).abort_handle(),
        });
        state.counters.fetches += 1;
        Ok(flight)
    }

    /// Puts the end of a fetch into its entry, which is there: an entry in flight never gives way.
    fn land(
        &self,
        key: &Key,
        result: Result<AccessToken, TokenError>,
        had_claims: bool,
    ) -> Landing {
        let now = self.now();
        let jitter = (self.options.jitter)();
        let mut state = self.lock();
        if state.is_closed {
            return Landing {
                result: Err(closed()),
                is_unchanged: false,
                had_claims,
            };
        }
        let entry = state.store.entry(key, now);
        let is_renewal = entry.is_held();
        let landing = entry.land(key, now, result, jitter, had_claims);
        let left = entry.valid(now).map(|_| entry.left(now));
        match &landing.result {
            Ok(_) if landing.is_unchanged => state.counters.unchanged += 1,
            Ok(_) => {}
            Err(error) => {
                state.counters.count_failure(error.kind());
                if state.recent_errors.len() >= RECENT_ERRORS {
                    state.recent_errors.pop_front();
                }
                let error = super::entry::upstream_error(key, error, now.wall);
                state.recent_errors.push_back(error);
            }
        }
        drop(state);
        self.landed.notify_waiters();
        report(key, &landing, left);
        self.options.journal.note(&match &landing.result {
            Ok(token) => Event::Token {
                key,
                expires_on: token.expires_on(),
                is_renewal,
                is_unchanged: landing.is_unchanged,
            },
            Err(error) => Event::Failure {
                key,
                error,
                life_left: left.unwrap_or_default().as_secs(),
            },
        });
        landing
    }
}

/// The answer of a broker that has been shut down.
pub(super) fn closed() -> TokenError {
    TokenError::new(ErrorCode::Transient, "the agent is shutting down")
        .with_retry_after(Duration::from_secs(1))
}

/// One fetch that ends, whatever the source does: panic, or never answer.
async fn attempt(
    fetch: &dyn Fetch,
    key: &Key,
    claims: Option<&str>,
    bound: Duration,
) -> Result<AccessToken, TokenError> {
    let bounded = async { timeout(bound, fetch.fetch(key, claims)).await };
    match AssertUnwindSafe(bounded).catch_unwind().await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(TokenError::new(
            ErrorCode::Transient,
            format!("no answer from upstream within {} s", bound.as_secs()),
        )),
        Err(_) => Err(TokenError::new(
            ErrorCode::Internal,
            "the source of the token failed in a way it must not",
        )
        .with_hint("report this with the request id and the agent's log")),
    }
}

fn report(key: &Key, landing: &Landing, left: Option<Duration>) {
    let left = left.unwrap_or_default().as_secs();
    match &landing.result {
        Ok(_) if landing.is_unchanged => {
            tracing::info!(%key, life_left = left, "the platform gave the same token again");
        }
        Ok(_) => tracing::info!(%key, life_left = left, "got a token"),
        Err(error) => {
            tracing::warn!(
                %key,
                life_left = left,
                code = %error.kind(),
                issuer_code = error.issuer_code(),
                error = %error,
                cause = error.causes(),
                "got no token"
            );
        }
    }
}
