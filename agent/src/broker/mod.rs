//! Cache, single flight and refresh together: what is asked for, what is held, when it is renewed.
//!
//! ```text
//! get/peek -> entry (decides) -> flight (one task per key) -> Fetch
//!                ^                  |
//!             schedule (renews)  <--+ lands
//! ```
//! All state is behind one lock that is held for decisions only, never over an await. Expiry is wall time, read once per
//! decision; pauses and waiting are the runtime's time, so that a clock that jumps can stall nothing.
//!
//! What the rules come to for a caller:
//! - A valid token is served at once, also while it is being renewed or cannot be.
//! - `min_validity` that the token held does not meet is one try for a newer one. When the platform has none, or fails,
//!   or needs more than five seconds, the token held is served: its holder is better off with the life that is left than
//!   with an error or a wait. Such tries keep the pause of [`refresh::first_pause`] between them.
//! - Without a valid token the caller waits for the one fetch of the key. A failure is answered again, without a fetch,
//!   until a pause is over: about a second for what may heal by itself, up to 30 s for a refusal that a role or an
//!   assignment can heal, up to 10 min for a request that is itself wrong. Never longer.
//! - A claims challenge says that the token held was refused by a resource. It is one fetch past the cache, at most every
//!   30 s per key; in between its outcome is repeated. A platform that answers with the same token again (managed
//!   identities keep tokens for up to 24 hours) makes it a `rejected` error that says so: the caller would only come back
//!   with the same challenge.

mod cached;
mod counters;
mod entry;
mod flight;
mod key;
pub mod refresh;
mod schedule;
mod store;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use jobcred_wire::{DeclaredResource, ErrorCode, TokenStatus, UpstreamError};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

pub use self::cached::CachedToken;
pub use self::counters::Counters;
use self::entry::{Demand, Moment};
use self::flight::Landing;
pub use self::key::Key;
pub use self::refresh::Freshness;
use self::store::Store;
use crate::error::TokenError;
use crate::journal::Journal;
use crate::platform::Clock;
use crate::token::AccessToken;

/// How often one call of [`Broker::get`] looks again after a fetch that was not what it waited for: a claims challenge
/// that joined an ordinary fetch, a token that ended before its waiter ran.
const MOST_ROUNDS: u32 = 3;

/// How long a caller that could do with the token held waits for a newer one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many of the last errors upstream are kept.
pub const RECENT_ERRORS: usize = 8;

/// Gets what a key stands for from upstream. The broker calls it in a task of its own, one call per key at a time.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// One fetch. `claims` is a claims challenge that the caller was given by a resource.
    async fn fetch(&self, key: &Key, claims: Option<&str>) -> Result<AccessToken, TokenError>;
}

/// What a caller wants of a token beyond its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want<'a> {
    /// The life the token should still have. Met where the platform can; see the module documentation.
    pub min_validity: Duration,
    /// A claims challenge from a resource, as JSON text.
    pub claims: Option<&'a str>,
}

/// Sizes and bounds of a broker. The defaults are meant for every real use; tests set others.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// How many undeclared keys are held at most. At least one more than `max_in_flight` is taken, so that there is
    /// always an entry at rest to give way.
    pub capacity: usize,
    /// How many fetches run at once at most. Keys that never had a token share half of them, so that a flood of new
    /// keys cannot keep known ones from being renewed.
    pub max_in_flight: usize,
    /// How long one fetch may take in all, whatever its source does.
    pub fetch_bound: Duration,
    /// Where jitter comes from: a fraction in 65536ths.
    pub jitter: fn() -> u16,
    /// Where what happens is written down.
    pub journal: Journal,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            capacity: 1_000,
            max_in_flight: 256,
            fetch_bound: Duration::from_secs(120),
            jitter: random,
            journal: Journal::default(),
        }
    }
}

/// Holds tokens, renews them, and lets one fetch serve all who wait for it.
pub struct Broker {
    /// Itself, for the tasks it starts: none of them keeps it alive.
    me: Weak<Self>,
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    options: BrokerOptions,
    state: Mutex<State>,
    /// One for each fetch that may be under way; a task gives its own back however it ends.
    permits: Arc<Semaphore>,
    /// Wakes the scheduler. Apart from the broker, so that a waiting scheduler does not keep it alive.
    wake: Arc<Notify>,
    /// Wakes who waits for any fetch to end, whatever its key.
    landed: Notify,
    scheduler: AbortHandle,
}

/// What the lock guards.
struct State {
    store: Store,
    counters: Counters,
    /// The last things that went wrong upstream, oldest first; at most [`RECENT_ERRORS`].
    recent_errors: VecDeque<UpstreamError>,
    /// After a shutdown nothing is stored or started any more.
    is_closed: bool,
}

impl Broker {
    /// A broker that fetches with `fetch` and renews in the background. Needs a tokio runtime around it; dropping the
    /// broker ends its tasks.
    #[must_use]
    pub fn new(fetch: Arc<dyn Fetch>, clock: Clock, options: BrokerOptions) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        Arc::new_cyclic(|me| {
            let task = schedule::run(Weak::clone(me), Arc::clone(&wake), clock.jumps());
            Self {
                me: Weak::clone(me),
                fetch,
                clock,
                state: Mutex::new(State {
                    store: Store::new(options.capacity.max(options.max_in_flight + 1)),
                    counters: Counters::default(),
                    recent_errors: VecDeque::new(),
                    is_closed: false,
                }),
                permits: Arc::new(Semaphore::new(options.max_in_flight)),
                options,
                wake,
                landed: Notify::new(),
                scheduler: tokio::spawn(task).abort_handle(),
            }
        })
    }

    /// The token held for `key` when it is valid for at least `min_validity`; a hit. Never waits and never fetches.
    #[must_use]
    pub fn peek(&self, key: &Key, min_validity: Duration) -> Option<Arc<CachedToken>> {
        let now = self.now();
        let mut state = self.lock();
        let State {
            store, counters, ..
        } = &mut *state;
        let entry = store.get_mut(key)?;
        let token = entry.hit(now, min_validity)?;
        counters.hits += 1;
        let is_due = entry.is_due(now);
        drop(state);
        if is_due {
            self.wake.notify_one();
        }
        Some(token)
    }

    /// A token for `key`, from memory or by the key's one fetch. Dropping the returned future cancels nothing.
    ///
    /// # Errors
    /// What the source said, at once or remembered; `transient` when too much is in flight; `rejected` when a claims
    /// challenge brought nothing newer.
    pub async fn get(&self, key: &Key, want: Want<'_>) -> Result<Arc<CachedToken>, TokenError> {
        for _ in 0..MOST_ROUNDS {
            let mut flight = match self.demand(key, want)? {
                Ok(token) => return Ok(token),
                Err(flight) => flight,
            };
            let landing = if want.claims.is_none() && self.held(key).is_some() {
                match timeout(PATIENCE, flight.landing()).await {
                    Ok(landing) => landing,
                    Err(_) => match self.held(key) {
                        Some(token) => return Ok(token),
                        None => flight.landing().await,
                    },
                }
            } else {
                flight.landing().await
            };
            if let Some(result) = self.judge(key, want, landing) {
                return result;
            }
        }
        Err(TokenError::new(
            ErrorCode::Transient,
            "the tokens that arrived had ended before they could be handed out",
        )
        .with_hint("check that this machine's clock is right")
        .with_retry_after(Duration::from_secs(1)))
    }

    /// Declares keys that are to be held from now on, whether somebody asks for them or not.
    pub fn declare(&self, keys: impl IntoIterator<Item = Key>) {
        let now = self.now();
        let mut state = self.lock();
        if !state.is_closed {
            for key in keys {
                state.store.entry(&key, now).declare();
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Drops the token held for `key`. A declared key is fetched anew; so is any key when it is next asked for. A fetch
    /// that is under way goes on, and what was refused stays remembered: forgetting is no way to hammer upstream.
    pub fn forget(&self, key: &Key) {
        if let Some(entry) = self.lock().store.get_mut(key) {
            entry.forget();
        }
        self.wake.notify_one();
    }

    /// Every entry without its secret, ordered by key.
    #[must_use]
    pub fn status(&self) -> Vec<TokenStatus> {
        let now = self.now();
        let state = self.lock();
        let mut entries: Vec<_> = state.store.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
            .into_iter()
            .map(|(key, entry)| entry.status(key, now))
            .collect()
    }

    /// How long an outage could last unnoticed: until the first of the tokens in use ends. Zero when a declared one is
    /// missing, `None` when none is in use.
    #[must_use]
    pub fn runway(&self) -> Option<Duration> {
        let now = self.now();
        let state = self.lock();
        let entries = state.store.iter();
        entries.filter_map(|(_, entry)| entry.runway(now)).min()
    }

    /// Whether every declared token exists and is valid. Never after a shutdown.
    #[must_use]
    pub fn ready(&self) -> bool {
        let now = self.now();
        let state = self.lock();
        let mut declared = state.store.iter().filter(|(_, entry)| entry.is_declared());
        !state.is_closed && declared.all(|(_, entry)| entry.valid(now).is_some())
    }

    /// The last thing that went wrong upstream, also after it has healed.
    #[must_use]
    pub fn last_upstream_error(&self) -> Option<UpstreamError> {
        self.lock().recent_errors.back().cloned()
    }

    /// The last few things that went wrong upstream, oldest first, also after they have healed.
    #[must_use]
    pub fn recent_errors(&self) -> Vec<UpstreamError> {
        self.lock().recent_errors.iter().cloned().collect()
    }

    /// How each declared resource stands, ordered by key.
    #[must_use]
    pub fn declared(&self) -> Vec<DeclaredResource> {
        let now = self.now();
        let state = self.lock();
        let mut declared: Vec<_> = state
            .store
            .iter()
            .filter(|(_, entry)| entry.is_declared())
            .collect();
        declared.sort_by_key(|(key, _)| *key);
        declared
            .into_iter()
            .map(|(key, entry)| entry.standing(key, now))
            .collect()
    }

    /// Resolves when the next fetch ends, whatever its key. One that ends after this was called is not missed.
    pub fn landing(&self) -> Notified<'_> {
        self.landed.notified()
    }

    /// What happened so far, for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().counters.clone()
    }

    /// Ends all tasks and drops all tokens. Who waits gets a `transient` error, as does every later call.
    pub fn shutdown(&self) {
        let store = {
            let mut state = self.lock();
            state.is_closed = true;
            state.store.take()
        };
        self.scheduler.abort();
        for (_, entry) in store {
            entry.abort();
        }
        self.landed.notify_waiters();
    }

    /// Decides what a caller gets now: a token, an error, or a flight to wait for.
    fn demand(
        &self,
        key: &Key,
        want: Want<'_>,
    ) -> Result<Result<Arc<CachedToken>, flight::Flight>, TokenError> {
        let now = self.now();
        let mut state = self.lock();
        if state.is_closed {
            return Err(flight::closed());
        }
        let entry = state.store.entry(key, now);
        match entry.demand(now, want) {
            Demand::Serve(token) => {
                let is_due = entry.is_due(now);
                state.counters.hits += 1;
                drop(state);
                if is_due {
                    self.wake.notify_one();
                }
                Ok(Ok(token))
            }
            Demand::Refuse(error) => {
                state.counters.refusals_repeated += 1;
                Err(error)
            }
            Demand::Join(flight) => Ok(Err(flight)),
            Demand::Start => {
                let held = entry.valid(now).cloned();
                match (self.start(&mut state, key, want.claims, true), held) {
                    (Ok(flight), _) => Ok(Err(flight)),
                    (Err(_), Some(token)) if want.claims.is_none() => Ok(Ok(token)),
                    (Err(error), _) => Err(error),
                }
            }
        }
    }

    /// What a landing means for one who waited for it; `None` to look again.
    fn judge(
        &self,
        key: &Key,
        want: Want<'_>,
        landing: Landing,
    ) -> Option<Result<Arc<CachedToken>, TokenError>> {
        let now = self.now().wall;
        if want.claims.is_some() {
            // An ordinary fetch that brought the token held before is no answer to a challenge of that token.
            return match landing.result {
                Ok(_) if landing.is_unchanged && landing.had_claims => {
                    Some(Err(entry::unchanged()))
                }
                Ok(_) if landing.is_unchanged => None,
                Ok(token) => token.is_valid(now).then_some(Ok(token)),
                Err(error) => Some(Err(error)),
            };
        }
        match landing.result {
            Ok(token) => token.is_valid(now).then_some(Ok(token)),
            Err(error) => match self.held(key) {
                Some(token) => Some(Ok(token)),
                // Somebody else's challenge was refused, not this request.
                None if landing.had_claims => None,
                None => Some(Err(error)),
            },
        }
    }

    /// The token held, whatever life it has left; no hit.
    fn held(&self, key: &Key) -> Option<Arc<CachedToken>> {
        let now = self.now();
        self.lock().store.get(key)?.valid(now).cloned()
    }

    fn now(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            runtime: Instant::now(),
        }
    }

    /// The state is whole between any two statements that can panic, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.scheduler.abort();
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("clock", &self.clock)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn random() -> u16 {
    // Jitter only spreads load: without randomness the middle will do.
    let bits = getrandom::u32().unwrap_or(1 << 15);
    u16::try_from(bits & 0xffff).unwrap_or(0)
}
