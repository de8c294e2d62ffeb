//! The client for threads, on std's Unix socket alone.

use std::sync::{Arc, Condvar, PoisonError};
use std::time::Instant;

use jobcred_wire::{
    EXPLAIN_PATH, Explanation, RegistryRequest, RegistryResponse, STATUS_PATH, Status,
    TokenRequest, TokenResponse,
};

use crate::answer;
use crate::cache::{Cache, Outcome, Slot, Step};
use crate::http::{Answer, Method, encode_request};
use crate::platform;
use crate::settings::{Builder, REFRESH_TIMEOUT, Settings};
use crate::socket::{Pool, later};
use crate::{Error, ErrorKind};

/// A client of the agent. Cheap to clone; clones share the cache and the connections.
///
/// It looks for the agent when it is first needed and again for every new connection, so that it may be made before the
/// agent runs and outlives a restart of it.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    pool: Pool,
    cache: Cache<Condvar>,
}

/// Whatever happens to the thread that asks, the ones that wait for it are woken.
struct Flight<'a> {
    shared: &'a Shared,
    slot: &'a Slot<Condvar>,
    outcome: Option<Outcome>,
}

impl Client {
    /// A client that finds its agent by the environment of this process.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a client that differs from the usual one.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A client with the same settings and nothing else in common: no token, no connection, no lock.
    ///
    /// For a child that a process with several threads has forked: another thread may have held a lock of this client
    /// at that moment, and in the child nobody is left to release it.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self::with(self.shared.settings.clone())
    }

    /// A token, from memory when there is a good one.
    ///
    /// Threads that want the same token at the same time make one request between them. A request with claims always
    /// goes to the agent.
    pub fn token(&self, request: &TokenRequest) -> Result<Arc<TokenResponse>, Error> {
        let shared = &*self.shared;
        if request.claims.is_some() {
            let token = shared.fetch_token(request, later(shared.settings.timeout))?;
            let now = shared.settings.now();
            shared.cache.slot(request, now).keep(&token);
            return Ok(token);
        }
        match shared.cache.hit(request, shared.settings.now()) {
            Some(token) => Ok(token),
            None => shared.miss(request),
        }
    }

    /// The user name and password for a registry, fresh from the agent.
    pub fn registry(&self, server: &str) -> Result<RegistryResponse, Error> {
        let path = registry_path(server);
        answer::parse(&self.shared.call(Method::Get, &path)?)
    }

    /// Makes the agent drop the credential it holds for a registry.
    pub fn erase_registry(&self, server: &str) -> Result<(), Error> {
        let path = registry_path(server);
        self.shared.call(Method::Delete, &path).map(drop)
    }

    /// What the agent holds and how it fares.
    pub fn status(&self) -> Result<Status, Error> {
        answer::parse(&self.shared.call(Method::Get, STATUS_PATH)?)
    }

    /// Which way to tokens the agent chose, and why.
    pub fn explain(&self) -> Result<Explanation, Error> {
        answer::parse(&self.shared.call(Method::Get, EXPLAIN_PATH)?)
    }

    /// The text of any other page, for example `/healthz`, `/readyz` or `/metrics`.
    pub fn get(&self, path: &str) -> Result<String, Error> {
        answer::text(&self.shared.call(Method::Get, path)?)
    }

    fn with(settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                pool: Pool::default(),
                cache: Cache::default(),
            }),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The blocking client.
    #[must_use]
    pub fn build(self) -> Client {
        Client::with(self.settle())
    }
}

impl Shared {
    #[cold]
    fn miss(&self, request: &TokenRequest) -> Result<Arc<TokenResponse>, Error> {
        let deadline = later(self.settings.timeout);
        let slot = self.cache.slot(request, self.settings.now());
        loop {
            let pid = platform::own_pid();
            match slot.enter(request.min_validity, self.settings.now(), pid) {
                Step::Use(token) => return Ok(token),
                Step::Lead(fallback) => return self.lead(&slot, request, fallback, deadline),
                // The one who asked may have needed less life than this caller does, and had less patience.
                Step::Wait(landed) => match wait(&slot, landed, deadline)? {
                    Ok(token) => {
                        if answer::lasts(&token, request.min_validity, self.settings.now()) {
                            return Ok(token);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Timeout => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }

    fn lead(
        &self,
        slot: &Slot<Condvar>,
        request: &TokenRequest,
        fallback: Option<Arc<TokenResponse>>,
        deadline: Instant,
    ) -> Outcome {
        let mut flight = Flight {
            shared: self,
            slot,
            outcome: None,
        };
        let deadline = match fallback {
            Some(_) => deadline.min(later(REFRESH_TIMEOUT)),
            None => deadline,
        };
        let outcome = self.fetch_token(request, deadline);
        flight.outcome = Some(outcome.clone());
        drop(flight);
        match (outcome, fallback) {
            (Err(_), Some(token)) if token.expires_on > self.settings.now() => Ok(token),
            (outcome, _) => outcome,
        }
    }

    fn fetch_token(&self, request: &TokenRequest, deadline: Instant) -> Outcome {
        let answer = self.call_before(Method::Get, &request.to_path_and_query(), deadline)?;
        answer::token(&answer, self.settings.now())
    }

    fn call(&self, method: Method, path: &str) -> Result<Answer, Error> {
        self.call_before(method, path, later(self.settings.timeout))
    }

    fn call_before(&self, method: Method, path: &str, deadline: Instant) -> Result<Answer, Error> {
        let request = encode_request(method, path)?;
        answer::check(self.pool.exchange(&self.settings, &request, deadline)?)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let outcome = self
            .outcome
            .take()
            .unwrap_or_else(|| Err(Error::abandoned()));
        self.slot.land(outcome, self.shared.settings.now());
        self.slot.signal.notify_all();
    }
}

/// Waits for the request of another thread.
fn wait(slot: &Slot<Condvar>, landed: u64, deadline: Instant) -> Result<Outcome, Error> {
    let mut state = slot.lock();
    loop {
        if let Some(outcome) = state.outcome_after(landed) {
            return Ok(outcome);
        }
        let left = deadline
            .checked_duration_since(platform::monotonic_now())
            .ok_or_else(Error::timeout)?;
        (state, _) = slot
            .signal
            .wait_timeout(state, left)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

fn registry_path(server: &str) -> String {
    RegistryRequest {
        server: server.to_owned(),
    }
    .to_path_and_query()
}
