//! Keeps the platform's limits in front of an identity endpoint.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;

/// Requests at once to one endpoint. Source: the limits Azure documents for managed identities per virtual machine.
const AT_ONCE: usize = 5;
/// Requests begun in any second. Same source; beyond it the endpoint answers 429.
const A_SECOND: usize = 20;

/// One gate per scheme, host and port, shared by all sources.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<String, Arc<Gate>>>);

impl Gates {
    /// Waits until a request to `url` may begin. It counts as running until the permit is dropped.
    pub(super) async fn enter(&self, url: &Url) -> Option<OwnedSemaphorePermit> {
        // Endpoints come from the configuration, so there are one or two of them.
        let gate = {
            let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(gates.entry(url.origin().ascii_serialization()).or_default())
        };
        gate.enter().await
    }
}

#[derive(Debug)]
struct Gate {
    running: Arc<Semaphore>,
    /// When the last requests began or will begin, oldest first; at most [`A_SECOND`].
    starts: Mutex<VecDeque<Instant>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            starts: Mutex::new(VecDeque::with_capacity(A_SECOND)),
        }
    }
}

impl Gate {
    async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed; if it were, an open gate is better than none.
        let permit = Arc::clone(&self.running).acquire_owned().await.ok();
        tokio::time::sleep_until(self.reserve(Instant::now())).await;
        permit
    }

    /// The next free start. A request dropped while it waits keeps its slot: that errs on the safe side.
    fn reserve(&self, now: Instant) -> Instant {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = now;
        if starts.len() == A_SECOND
            && let Some(oldest) = starts.pop_front()
        {
            start = start.max(oldest + Duration::from_secs(1));
        }
        starts.push_back(start);
        start
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::Instant;
    use url::Url;

    use super::{A_SECOND, AT_ONCE, Gates};

    fn endpoint(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// Runs `count` visits that each last `stay`; gives their start times and the most there were at once.
    async fn visits(count: usize, stay: Duration) -> (Vec<Duration>, usize) {
        let gates = Arc::new(Gates::default());
        let running = Arc::new(AtomicUsize::new(0));
        let origin = Instant::now();
        let mut visits = JoinSet::new();
        for _ in 0..count {
            let (gates, running) = (Arc::clone(&gates), Arc::clone(&running));
            visits.spawn(async move {
                let _permit = gates.enter(&endpoint("http://169.254.169.254/x")).await;
                let start = origin.elapsed();
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(stay).await;
                running.fetch_sub(1, Ordering::SeqCst);
                (start, now)
            });
        }
        let all = visits.join_all().await;
        let most = all.iter().map(|(_, most)| *most).max().unwrap();
        let mut starts: Vec<_> = all.into_iter().map(|(start, _)| start).collect();
        starts.sort();
        (starts, most)
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_five_at_once() {
        let (_, most) = visits(40, Duration::from_secs(3)).await;
        assert_eq!(most, AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_twenty_starts_in_any_second() {
        let (starts, _) = visits(100, Duration::ZERO).await;
        for window in starts.windows(A_SECOND + 1) {
            assert!(
                window[A_SECOND] >= window[0] + Duration::from_secs(1),
                "{window:?}"
            );
        }
        // And no slower than that: the fifth second's batch is the last.
        assert!(
            starts[99] <= Duration::from_millis(4_100),
            "{:?}",
            starts[99]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_that_goes_away_frees_its_place_and_other_endpoints_are_apart() {
        let gates = Gates::default();
        let here = endpoint("http://127.0.0.1:1/a");
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(gates.enter(&here).await);
        }
        let waiting = tokio::time::timeout(Duration::from_secs(9), gates.enter(&here)).await;
        assert!(waiting.is_err());
        gates.enter(&endpoint("http://127.0.0.1:2/a")).await;
        held.pop();
        gates.enter(&here).await;
    }
}
