//! What is known at the moment of drawing.

use jobcred_wire::{CallerStatus, Status};

use super::super::output::plain;
use crate::platform::Environment;

/// The last status, the one before it, and what went wrong since.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) status: Status,
    before: Option<Status>,
    /// Why the last look failed; the status is an old one then.
    pub(super) trouble: Option<String>,
    /// How many callers are scrolled past.
    pub(super) skipped: usize,
    /// Whether the terminal shows more than ASCII.
    pub(super) unicode: bool,
    /// Whether colours are wanted.
    pub(super) colours: bool,
}

impl View {
    /// For the terminal that the environment describes: the locale's character set, and <https://no-color.org>.
    pub(super) fn new(environment: &Environment) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| environment.get(name).filter(|value| !value.is_empty()));
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self {
            unicode,
            colours: environment.get("NO_COLOR").is_none_or(str::is_empty),
            ..Self::default()
        }
    }

    /// Takes in a new status.
    pub(super) fn learn(&mut self, status: Status) {
        let old = std::mem::replace(&mut self.status, status);
        // Another agent counts from zero; comparing with its counts would be nonsense.
        let is_same = old.pid == self.status.pid && old.started_on == self.status.started_on;
        self.before = is_same.then_some(old);
        self.trouble = None;
        self.scroll(0);
    }

    /// Takes in that the agent could not be asked.
    pub(super) fn lose(&mut self, error: &jobcred_client::Error) {
        self.trouble = Some(plain(error.message()));
        self.before = None;
    }

    /// Moves the list of callers.
    pub(super) fn scroll(&mut self, by: isize) {
        let last = self.status.callers.len().saturating_sub(1);
        self.skipped = self.skipped.saturating_add_signed(by).min(last);
    }

    /// Answers from memory for the token at `index` since the look before.
    pub(super) fn new_hits(&self, index: usize) -> Option<u64> {
        let token = self.status.tokens.get(index)?;
        let before = self.before.as_ref()?.tokens.iter().find(|old| {
            old.kind == token.kind
                && old.identity == token.identity
                && old.resource == token.resource
        })?;
        token.hits.checked_sub(before.hits)
    }

    /// Requests of a caller since the look before.
    pub(super) fn new_requests(&self, caller: &CallerStatus) -> Option<u64> {
        let before = self.before.as_ref()?;
        let asked = before
            .callers
            .iter()
            .find(|old| old.uid == caller.uid && old.pid == caller.pid)
            .map_or(0, |old| old.requests);
        caller.requests.checked_sub(asked)
    }
}

#[cfg(test)]
mod tests {
    use jobcred_wire::{CallerStatus, Status, TokenStatus};

    use super::View;
    use crate::platform::Environment;

    fn status(pid: u32, hits: u64) -> Status {
        Status {
            pid,
            tokens: vec![TokenStatus {
                hits,
                ..TokenStatus::default()
            }],
            callers: vec![CallerStatus {
                requests: hits,
                ..CallerStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn rates_are_between_two_looks_at_one_agent() {
        let mut view = View::default();
        view.learn(status(7, 10));
        assert_eq!(view.new_hits(0), None);
        view.learn(status(7, 25));
        assert_eq!(view.new_hits(0), Some(15));
        assert_eq!(view.new_requests(&view.status.callers[0]), Some(15));
        view.learn(status(8, 1));
        assert_eq!(view.new_hits(0), None);
        assert_eq!(view.new_hits(1), None);
    }

    #[test]
    fn scrolling_stops_at_both_ends() {
        let mut view = View::default();
        view.scroll(5);
        assert_eq!(view.skipped, 0);
        view.status.callers = vec![CallerStatus::default(); 3];
        view.scroll(5);
        assert_eq!(view.skipped, 2);
        view.scroll(-9);
        assert_eq!(view.skipped, 0);
    }

    #[test]
    fn the_terminal_is_what_the_environment_says() {
        let of = |name, value| View::new(&Environment::from([(name, value)]));
        assert!(of("LANG", "C.UTF-8").unicode);
        assert!(!of("LANG", "C").unicode);
        assert!(
            !View::new(&Environment::from([
                ("LC_ALL", "POSIX"),
                ("LANG", "de_DE.utf8")
            ]))
            .unicode
        );
        assert!(of("NO_COLOR", "").colours);
        assert!(!of("NO_COLOR", "1").colours);
    }
}
