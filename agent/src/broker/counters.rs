//! What happened since the start, for metrics.

use jobcred_wire::ErrorCode;

/// Counts since the start. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers given from memory.
    pub hits: u64,
    /// Fetches begun.
    pub fetches: u64,
    /// Fetches that brought the token held already.
    pub unchanged: u64,
    /// Errors answered from memory, without a fetch.
    pub refusals_repeated: u64,
    /// Fetches not begun because too many were under way.
    pub shed: u64,
    /// Failed fetches by kind; kinds that never happened are absent.
    failures: Vec<(ErrorCode, u64)>,
}

impl Counters {
    /// Failed fetches of one kind.
    #[must_use]
    pub fn failures_of(&self, kind: ErrorCode) -> u64 {
        self.failures().find(|(k, _)| *k == kind).map_or(0, |f| f.1)
    }

    /// Failed fetches by kind, for the kinds that happened.
    pub fn failures(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        self.failures.iter().copied()
    }

    pub(super) fn count_failure(&mut self, kind: ErrorCode) {
        if let Some((_, count)) = self.failures.iter_mut().find(|(k, _)| *k == kind) {
            *count += 1;
        } else {
            self.failures.push((kind, 1));
        }
    }
}
