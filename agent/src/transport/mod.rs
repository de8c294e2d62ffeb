//! The one outbound HTTP seam (hyper and rustls), the one owner of retries, and the gate in front of identity endpoints.
//!
//! Every request gets a connection of its own: a fetch happens once an hour at most, so a kept connection would be dead
//! by the next one more often than not, and a retry on a dead connection is one more rule to get wrong.

mod connect;
mod error;
mod exchange;
mod exemptions;
mod gate;
mod proxy;
mod reach;
mod request;
mod response;
mod retry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use crate::journal::{Event, Journal};
use crate::platform::{Clock, Environment};

pub use self::error::{FailureKind, TransportError};
pub(crate) use self::exemptions::{LOOPBACK, entries};
pub use self::proxy::ProxyVariable;
pub use self::reach::{NoAddress, Reached, TlsProblem, addresses};
pub use self::request::{Endpoint, InvalidSecret, Limits, Request, Route};
pub use self::response::Response;
pub use self::retry::{Attempt, Outcome, RetryPolicy};
pub use self::tls::NamedRoots;

use self::gate::Gates;
use self::proxy::Proxy;
use self::tls::Tls;

/// What the transport is made with.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Roots to trust besides the system's.
    pub roots: NamedRoots,
    /// The proxy for Entra and registries, by http or https. Never used for identity endpoints.
    pub https_proxy: Option<ProxyVariable>,
    /// Hosts, domains and networks that are reached without the proxy, as curl, Python and Go spell them.
    pub no_proxy: Option<String>,
    /// The clock that turns a date in `Retry-After` into a wait.
    pub clock: Clock,
}

impl TransportConfig {
    /// Takes proxies and roots from the environment. As in curl, lower-case names come first, and empty is unset.
    #[must_use]
    pub fn from_environment(
        environment: &Environment,
        ca_file: Option<PathBuf>,
        clock: Clock,
    ) -> Self {
        let no_proxy = ["no_proxy", "NO_PROXY"].into_iter();
        Self {
            roots: NamedRoots::of(environment, ca_file),
            https_proxy: ProxyVariable::of(environment),
            no_proxy: no_proxy
                .filter_map(|name| environment.get(name))
                .map(str::to_owned)
                .next(),
            clock,
        }
    }
}

/// Sends requests. One per agent; cheap until the first `https` request, which loads the roots.
#[derive(Debug)]
pub struct Transport {
    tls: Tls,
    proxy: Proxy,
    gates: Gates,
    clock: Clock,
    /// Answers that said "too many requests".
    throttles: AtomicU64,
    /// Why a request is being sent again, while one is.
    trouble: Mutex<Option<String>>,
    journal: Journal,
}

impl Transport {
    /// Roots are read with the first `https` request.
    #[must_use]
    pub fn new(config: TransportConfig) -> Self {
        Self {
            tls: Tls::new(config.roots),
            proxy: Proxy::new(config.https_proxy.as_ref(), config.no_proxy.as_deref()),
            gates: Gates::default(),
            clock: config.clock,
            throttles: AtomicU64::new(0),
            trouble: Mutex::default(),
            journal: Journal::default(),
        }
    }

    /// The same, with a place where it is written down that an endpoint had too many requests.
    #[must_use]
    pub fn with_journal(self, journal: Journal) -> Self {
        Self { journal, ..self }
    }

    /// What is named as roots and is not there, a sentence each. Requests go on with the other roots.
    ///
    /// Looks at the file system, and waits if that hangs. So only `explain` calls it.
    #[must_use]
    pub fn missing_roots(&self) -> Vec<String> {
        self.tls.missing()
    }

    /// Answers so far that said "too many requests" (429).
    #[must_use]
    pub fn throttles(&self) -> u64 {
        self.throttles.load(Ordering::Relaxed)
    }

    /// How the last attempt failed of a request that is being sent again; `None` while there is none.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Sends one request once. A redirect is an error; any other status is an answer.
    ///
    /// Dropping the future closes the connection.
    pub async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let _entry = match request.route() {
            Route::Direct => self.gates.enter(request.url()).await,
            Route::Proxied => None,
        };
        let result = self.exchange(request).await;
        if let Ok(response) = &result
            && response.status() == StatusCode::TOO_MANY_REQUESTS
        {
            self.throttles.fetch_add(1, Ordering::Relaxed);
            self.journal.note(&Event::Throttled {
                endpoint: &request.endpoint().to_string(),
                retry_after: response.retry_after().map(|wait| wait.as_secs()),
            });
        }
        result
    }

    /// Sends a request as often as `policy` says, each attempt within the request's limits and all of them within the
    /// policy's budget. The last answer or failure is the result.
    pub async fn send_with_retries(
        &self,
        request: &Request,
        policy: &RetryPolicy,
    ) -> Result<Response, TransportError> {
        let start = tokio::time::Instant::now();
        let mut tries = 0;
        let mut saw_gone = false;
        loop {
            let left = policy
                .budget(saw_gone)
                .saturating_sub(start.elapsed())
                .max(Duration::from_secs(1));
            let result = match tokio::time::timeout(left, self.send(request)).await {
                Ok(result) => result,
                Err(_) => Err(TransportError::timeout(&request.endpoint(), left)),
            };
            tries += 1;
            let outcome = Outcome::of(&result);
            saw_gone |= outcome == Outcome::Status(410);
            let wait = policy.next(&Attempt {
                tries,
                elapsed: start.elapsed(),
                saw_gone,
                outcome,
                retry_after: result.as_ref().ok().and_then(Response::retry_after),
                jitter: retry::jitter(),
            });
            let Some(wait) = wait else {
                if tries > 1 {
                    self.note_trouble(None);
                }
                return result;
            };
            let endpoint = request.endpoint();
            self.note_trouble(Some(match &result {
                Ok(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS => {
                    format!("{endpoint} says that it has too many requests (429)")
                }
                Ok(answer) => format!(
                    "{endpoint} answers with status {}",
                    answer.status().as_u16()
                ),
                Err(error) => error.to_string(),
            }));
            tracing::debug!(%endpoint, tries, ?outcome, wait_ms = wait.as_millis(), "trying again");
            tokio::time::sleep(wait).await;
        }
    }
}
