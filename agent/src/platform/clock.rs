//! Wall time, which issuers and other processes speak. Waiting is the runtime's time (`tokio::time`), never this.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ClockJumps;
use super::told::{ClockFault, Told};

/// A point in wall time, in milliseconds since the unix epoch. Arithmetic saturates, so no input can overflow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The latest point there is.
    pub const MAX: Self = Self(i64::MAX);

    /// From whole unix seconds.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// From unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Whole unix seconds, rounded down, as the wires speak them.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The whole second this is in: what is left of it does not count.
    #[must_use]
    pub const fn to_second(self) -> Self {
        Self::from_secs(self.as_secs())
    }

    /// The next whole second, itself when it is one.
    #[must_use]
    pub fn to_next_second(self) -> Self {
        (self + Duration::from_millis(999)).to_second()
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for UnixTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where the wall time comes from. Take `now` once per decision and pass it down.
///
/// Clones share what others were heard to say of the time.
#[derive(Clone)]
pub struct Clock {
    kind: Kind,
    told: Arc<Mutex<Told>>,
}

#[derive(Clone)]
enum Kind {
    System,
    /// Derived from tokio's (pausable) instant, so that one `advance` moves both; `shift` makes a clock jump.
    Runtime {
        origin: UnixTime,
        start: tokio::time::Instant,
        shift: Arc<AtomicI64>,
    },
}

impl Clock {
    /// The machine's wall clock.
    #[must_use]
    pub fn system() -> Self {
        Self::of(Kind::System)
    }

    /// A clock that starts at `origin` and moves with tokio's time. Needs a runtime.
    #[must_use]
    pub fn with_runtime(origin: UnixTime) -> Self {
        Self::of(Kind::Runtime {
            origin,
            start: tokio::time::Instant::now(),
            shift: Arc::new(AtomicI64::new(0)),
        })
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            told: Arc::default(),
        }
    }

    /// The wall time.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        match &self.kind {
            Kind::System => system_now(),
            Kind::Runtime {
                origin,
                start,
                shift,
            } => UnixTime(
                (*origin + start.elapsed())
                    .0
                    .saturating_add(shift.load(Ordering::SeqCst)),
            ),
        }
    }

    /// Takes in what a server says the time is.
    pub fn hear(&self, date: UnixTime) {
        self.lock().note_date(date, tokio::time::Instant::now());
        self.say_fault();
    }

    /// Takes in that a token was issued at `issued`: it cannot be earlier now.
    pub fn hear_issued(&self, issued: UnixTime) {
        self.lock().note_issued(issued, tokio::time::Instant::now());
        self.say_fault();
    }

    /// What is wrong with this clock, by itself or by what was heard.
    #[must_use]
    pub fn fault(&self) -> Option<ClockFault> {
        self.lock().fault(self.now(), tokio::time::Instant::now())
    }

    /// Says in the log what is wrong, once, and when it has come right.
    pub fn say_fault(&self) {
        let mut told = self.lock();
        match told.fault(self.now(), tokio::time::Instant::now()) {
            Some(fault) if !told.is_said => {
                told.is_said = true;
                tracing::warn!("{fault}");
            }
            None if told.is_said => {
                told.is_said = false;
                tracing::warn!("this machine's clock is right again");
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // No code that holds the lock can panic half-way through a change.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who tells of jumps of this clock, where there is somebody. Needs a tokio runtime.
    pub(crate) fn jumps(&self) -> Option<ClockJumps> {
        match &self.kind {
            Kind::System => ClockJumps::watch().ok(),
            Kind::Runtime { .. } => None,
        }
    }

    /// Jumps a clock made by [`Clock::with_runtime`] by `millis`, backwards when negative; the runtime's time stays.
    /// The system clock is left alone.
    pub fn jump(&self, millis: i64) {
        if let Kind::Runtime { shift, .. } = &self.kind {
            shift.fetch_add(millis, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::System => "Clock(system)",
            Kind::Runtime { .. } => "Clock(runtime)",
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the wall clock is read"
)]
fn system_now() -> UnixTime {
    // A clock before 1970 is taken as 1970: tokens then look long-lived, and the issuer's answer decides.
    UnixTime(millis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, UnixTime};

    #[tokio::test(start_paused = true)]
    async fn one_advance_moves_both_times_and_a_jump_only_one() {
        let clock = Clock::with_runtime(UnixTime::from_secs(1_000));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), UnixTime::from_secs(4_600));
        clock.jump(-600_000);
        assert_eq!(clock.now(), UnixTime::from_secs(4_000));
    }

    #[test]
    fn whole_seconds() {
        for (millis, down, up) in [(5_000, 5, 5), (5_001, 5, 6), (-1, -1, 0)] {
            let time = UnixTime::from_millis(millis);
            assert_eq!(time.to_second(), UnixTime::from_secs(down), "{millis}");
            assert_eq!(time.to_next_second(), UnixTime::from_secs(up), "{millis}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixTime::MAX + Duration::MAX, UnixTime::MAX);
        assert_eq!(UnixTime::from_secs(i64::MAX), UnixTime::MAX);
        assert_eq!(
            UnixTime::from_secs(5).since(UnixTime::from_secs(9)),
            Duration::ZERO
        );
    }
}
