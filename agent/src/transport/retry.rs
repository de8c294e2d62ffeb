//! When a request is sent again: the only place that decides it.

use std::time::Duration;

use super::error::{FailureKind, TransportError};
use super::response::Response;

/// How one kind of endpoint wants to be asked again.
///
/// Waits double from `first_wait`, are jittered by a quarter either way, and are never shorter than what `Retry-After` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    statuses: Statuses,
    first_wait: Duration,
    longest_wait: Duration,
    most_tries: u32,
    budget: Duration,
    gone: Option<Gone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statuses {
    /// 404, 410, 429 and 5xx.
    Imds,
    /// 408, 429 and 5xx.
    Common,
}

/// The rule for 410, which IMDS sends while it is being updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    wait: Duration,
    budget: Duration,
}

/// One attempt that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attempt {
    /// How many were made, this one included.
    pub tries: u32,
    /// Since the first one began.
    pub elapsed: Duration,
    /// Whether any of them was answered with 410.
    pub saw_gone: bool,
    /// How this one ended.
    pub outcome: Outcome,
    /// What the answer said about waiting.
    pub retry_after: Option<Duration>,
    /// A random number from 0 up to 1.
    pub jitter: f64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Status(u16),
    /// Without one.
    Failure(FailureKind),
}

impl Outcome {
    pub(super) fn of(result: &Result<Response, TransportError>) -> Self {
        match result {
            Ok(response) => Self::Status(response.status().as_u16()),
            Err(error) => Self::Failure(error.kind()),
        }
    }
}

impl RetryPolicy {
    /// For IMDS. Source: its documentation of retries (404, 410, 429, 5xx, time-outs; others never; at least a second after a
    /// 5xx, no fast first retry, suggested waits of about 2, 4, 8 s; 410 is over within 70 s).
    pub const IMDS: Self = Self {
        statuses: Statuses::Imds,
        first_wait: Duration::from_secs(2),
        longest_wait: Duration::from_secs(16),
        most_tries: 5,
        budget: Duration::from_secs(30),
        gone: Some(Gone {
            wait: Duration::from_secs(9),
            budget: Duration::from_secs(75),
        }),
    };
    /// For the endpoints on loopback (Azure ML, on-behalf-of, App Service). Source: the statuses of the SDKs' default policy;
    /// its waits of 0.8 s and up, cut to a budget, since the SDKs' own ten tries of 300 s can block for an hour.
    pub const LOOPBACK: Self = Self {
        statuses: Statuses::Common,
        first_wait: Duration::from_millis(800),
        longest_wait: Duration::from_secs(8),
        most_tries: 5,
        budget: Duration::from_secs(30),
        gone: None,
    };
    /// For Entra and registries.
    pub const REMOTE: Self = Self {
        statuses: Statuses::Common,
        first_wait: Duration::from_millis(800),
        longest_wait: Duration::from_secs(8),
        most_tries: 4,
        budget: Duration::from_secs(30),
        gone: None,
    };

    /// The same with waits a thousand times shorter, for tests with real sockets.
    #[cfg(test)]
    pub(crate) fn quick(self) -> Self {
        let quick = |wait: Duration| wait / 1000;
        Self {
            first_wait: quick(self.first_wait),
            longest_wait: quick(self.longest_wait),
            gone: self.gone.map(|gone| Gone {
                wait: quick(gone.wait),
                ..gone
            }),
            ..self
        }
    }

    /// How long all attempts together may take.
    #[must_use]
    pub fn budget(&self, saw_gone: bool) -> Duration {
        match self.gone {
            Some(gone) if saw_gone => gone.budget,
            _ => self.budget,
        }
    }

    /// How long to wait before the next attempt; `None` when this was the last one.
    #[must_use]
    pub fn next(&self, attempt: &Attempt) -> Option<Duration> {
        if !self.may_heal(attempt.outcome) {
            return None;
        }
        let gone = self.gone.filter(|_| attempt.saw_gone);
        let wait = match gone {
            // Back within 70 s at most: ask every few seconds until then, and count by time instead of tries.
            Some(gone) => gone.wait.mul_f64(1.0 + spread(attempt.jitter) / 4.0),
            None if attempt.tries >= self.most_tries => return None,
            None => {
                let doublings = attempt.tries.saturating_sub(1).min(16);
                self.first_wait
                    .saturating_mul(1 << doublings)
                    .min(self.longest_wait)
                    .mul_f64(1.0 + spread(attempt.jitter) / 4.0)
            }
        };
        let wait = wait.max(attempt.retry_after.unwrap_or_default());
        let left = self
            .budget(attempt.saw_gone)
            .saturating_sub(attempt.elapsed);
        (wait < left).then_some(wait)
    }

    fn may_heal(&self, outcome: Outcome) -> bool {
        match (outcome, self.statuses) {
            (Outcome::Status(404 | 410), Statuses::Imds)
            | (Outcome::Status(408), Statuses::Common)
            | (Outcome::Status(429 | 500..=599), _) => true,
            (Outcome::Status(_), _) => false,
            (Outcome::Failure(kind), _) => kind.is_transient(),
        }
    }
}

/// From 0..1 to -1..1; anything that is no such number counts as the middle.
fn spread(jitter: f64) -> f64 {
    if (0.0..=1.0).contains(&jitter) {
        jitter.mul_add(2.0, -1.0)
    } else {
        0.0
    }
}

/// A random number from 0 up to 1; the middle when there is no randomness to be had.
pub(super) fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / 4_294_967_296.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Attempt, Outcome, RetryPolicy};
    use crate::transport::FailureKind;

    /// The waits when every attempt ends at once with `outcome`.
    fn schedule(policy: &RetryPolicy, outcome: Outcome, jitter: f64) -> Vec<Duration> {
        let mut waits = Vec::new();
        let mut elapsed = Duration::ZERO;
        while let Some(wait) = policy.next(&Attempt {
            tries: u32::try_from(waits.len()).unwrap() + 1,
            elapsed,
            saw_gone: outcome == Outcome::Status(410),
            outcome,
            retry_after: None,
            jitter,
        }) {
            elapsed += wait;
            waits.push(wait);
        }
        waits
    }

    fn seconds(waits: &[Duration]) -> Vec<f64> {
        waits.iter().map(Duration::as_secs_f64).collect()
    }

    #[test]
    fn what_is_tried_again() {
        use FailureKind::{
            BadUrl, Broken, Connect, OutOfDate, Proxy, ProxySetting, Redirect, Roots, Timeout, Tls,
            TooLarge,
        };
        use Outcome::{Failure, Status};
        for (outcome, imds, loopback, remote) in [
            (Status(200), false, false, false),
            (Status(400), false, false, false),
            (Status(401), false, false, false),
            (Status(403), false, false, false),
            (Status(404), true, false, false),
            (Status(408), false, true, true),
            (Status(410), true, false, false),
            (Status(429), true, true, true),
            (Status(500), true, true, true),
            (Status(502), true, true, true),
            (Status(504), true, true, true),
            (Status(599), true, true, true),
            (Failure(Connect), true, true, true),
            (Failure(Timeout), true, true, true),
            (Failure(Broken), true, true, true),
            (Failure(Proxy), true, true, true),
            (Failure(ProxySetting), false, false, false),
            (Failure(TooLarge), false, false, false),
            (Failure(Redirect), false, false, false),
            (Failure(Tls), false, false, false),
            (Failure(OutOfDate), false, false, false),
            (Failure(Roots), false, false, false),
            (Failure(BadUrl), false, false, false),
        ] {
            for (policy, expected) in [
                (RetryPolicy::IMDS, imds),
                (RetryPolicy::LOOPBACK, loopback),
                (RetryPolicy::REMOTE, remote),
            ] {
                let again = !schedule(&policy, outcome, 0.5).is_empty();
                assert_eq!(again, expected, "{outcome:?} {policy:?}");
            }
        }
    }

    #[test]
    fn the_schedules() {
        let busy = Outcome::Status(503);
        assert_eq!(
            seconds(&schedule(&RetryPolicy::IMDS, busy, 0.5)),
            [2.0, 4.0, 8.0]
        );
        assert_eq!(
            seconds(&schedule(&RetryPolicy::LOOPBACK, busy, 0.5)),
            [0.8, 1.6, 3.2, 6.4]
        );
        assert_eq!(
            seconds(&schedule(&RetryPolicy::REMOTE, busy, 0.5)),
            [0.8, 1.6, 3.2]
        );
    }

    #[test]
    fn a_410_is_waited_out_for_its_seventy_seconds() {
        for jitter in [0.0, 0.5, 0.999] {
            let waits = schedule(&RetryPolicy::IMDS, Outcome::Status(410), jitter);
            let total: Duration = waits.iter().sum();
            assert!(total >= Duration::from_secs(60), "{waits:?}");
            assert!(total <= Duration::from_secs(75), "{waits:?}");
            let last = total + waits[0];
            assert!(
                last > Duration::from_secs(70),
                "gives up too early: {waits:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_respect_retry_after(
            tries in 1..100_u32,
            elapsed in 0..200_000_u64,
            retry_after in proptest::option::of(0..200_000_u64),
            status in 100..600_u16,
            saw_gone in any::<bool>(),
            jitter in any::<f64>(),
        ) {
            for policy in [RetryPolicy::IMDS, RetryPolicy::LOOPBACK, RetryPolicy::REMOTE] {
                let attempt = Attempt {
                    tries,
                    elapsed: Duration::from_millis(elapsed),
                    saw_gone,
                    outcome: Outcome::Status(status),
                    retry_after: retry_after.map(Duration::from_millis),
                    jitter,
                };
                if let Some(wait) = policy.next(&attempt) {
                    prop_assert!(wait >= Duration::from_millis(600));
                    prop_assert!(wait >= attempt.retry_after.unwrap_or_default());
                    prop_assert!(attempt.elapsed + wait <= policy.budget(saw_gone));
                    prop_assert!(status == 404 || status == 408 || status == 410 || status == 429 || status >= 500);
                }
            }
        }
    }
}
