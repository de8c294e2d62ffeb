//! The doubles' wall clock, which a test can put forward or back.
//!
//! One clock dates the `Date` header *and* the tokens of a double, as one machine's clock would.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

/// A wall clock with a settable skew. Clones share the skew.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    skew: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that agrees with the machine's.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the clock `seconds` ahead of the machine's (behind, when negative).
    pub fn set_skew(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::SeqCst);
    }

    /// Unix seconds by this clock.
    #[must_use]
    pub fn now(&self) -> i64 {
        unix_milliseconds() / 1000 + self.skew.load(Ordering::SeqCst)
    }

    /// An HTTP date (RFC 9110, IMF-fixdate), `offset` seconds away from [`Clock::now`].
    #[must_use]
    pub fn http_date(&self, offset: i64) -> String {
        let format = format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        at(self.now().saturating_add(offset))
            .format(&format)
            .unwrap_or_default()
    }
}

/// Unix milliseconds by the machine's own clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the doubles stand for other machines: this is their own clock, and the one place that reads it"
)]
pub(crate) fn unix_milliseconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// The moment `unix` seconds after the epoch; the epoch itself when out of range.
pub(crate) fn at(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_moves_the_time_and_the_date() {
        let clock = Clock::new();
        clock.set_skew(-unix_milliseconds() / 1000);
        assert!(clock.now().abs() <= 2);
        assert!(clock.http_date(0).starts_with("Thu, 01 Jan 1970 00:00:0"));
    }
}
