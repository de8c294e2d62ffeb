//! Waiting in tests: until something is true, and never for ever.

use std::time::{Duration, Instant};

/// After this long a test hangs. It is not slow.
pub const HUNG: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Looks until `holds` returns true.
///
/// # Panics
/// When [`HUNG`] has passed. The message has `what`, the state that was waited for.
#[track_caller]
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_at_most(HUNG, what, holds);
}

#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the end of a test that hangs: nothing is measured"
)]
pub(crate) fn wait_at_most(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}
