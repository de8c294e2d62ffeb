//! Trouble that comes again and again, said once a minute.

use std::time::Duration;

use tokio::time::Instant;

/// How long nothing more is said.
const QUIET: Duration = Duration::from_secs(60);

/// Counts what happens, and says when to speak of it.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
    count: u64,
}

impl Seldom {
    /// Notes that it happened. How often it has since it was last spoken of, this time included, when it is time to again.
    pub(super) fn note(&mut self) -> Option<u64> {
        let now = Instant::now();
        self.count += 1;
        if self.last.is_some_and(|last| now < last + QUIET) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Seldom;

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_said_once_a_minute_with_how_often() {
        let mut seldom = Seldom::default();
        let mut said = Vec::new();
        for _ in 0..130 {
            said.extend(seldom.note());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [1, 60, 60]);
    }
}
