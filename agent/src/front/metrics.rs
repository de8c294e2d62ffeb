//! The state of the agent as Prometheus text. Names, types and labels are an interface: docs/metrics.md lists them, and a test
//! keeps the list in step.
//!
//! Labels are few and bounded: keys by the broker's store, kinds by their enumeration. No pid, rank or principal is one.

use std::fmt::Write as _;

use jobcred_wire::{Status, TokenStatus};

use crate::platform::UnixTime;

/// Renders `status`. Label values are escaped; keys are bounded by the broker's store.
#[must_use]
pub fn render(status: &Status, now: UnixTime) -> String {
    let mut text = Text(String::new());
    agent(&mut text, status, now);
    tokens(&mut text, status, now);
    events(&mut text, status);
    text.0
}

/// The text so far.
struct Text(String);

impl Text {
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        rows: impl IntoIterator<Item = (String, i64)>,
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    /// A family without labels.
    fn number(&mut self, name: &str, kind: &str, help: &str, value: impl TryInto<i64>) {
        let value = value.try_into().unwrap_or(i64::MAX);
        self.family(name, kind, help, [(String::new(), value)]);
    }
}

fn agent(text: &mut Text, status: &Status, now: UnixTime) {
    let labels = format!(
        "{{version=\"{}\",strategy=\"{}\"}}",
        escape(&status.version),
        escape(&status.strategy)
    );
    text.family(
        "jobcred_info",
        "gauge",
        "The agent's version and strategy.",
        [(labels, 1)],
    );
    text.number(
        "jobcred_ready",
        "gauge",
        "1 when every declared token exists.",
        status.ready,
    );
    text.family(
        "jobcred_runway_seconds",
        "gauge",
        "Seconds until the first token in use ends, if nothing could be renewed from now on.",
        status.runway.map(|runway| (String::new(), runway)),
    );
    text.number(
        "jobcred_callers",
        "gauge",
        "Processes that have asked for a token, as many as are remembered (512).",
        status.callers.len(),
    );
    text.number(
        "jobcred_uptime_seconds",
        "counter",
        "Seconds since the agent started.",
        now.as_secs().saturating_sub(status.started_on),
    );
}

fn tokens(text: &mut Text, status: &Status, now: UnixTime) {
    let mut family =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&TokenStatus) -> Option<i64>| {
            let rows = status
                .tokens
                .iter()
                .filter_map(|token| Some((labels(token), value(token)?)));
            text.family(name, kind, help, rows);
        };
    family(
        "jobcred_hits_total",
        "counter",
        "Answers given from memory.",
        &|token| i64::try_from(token.hits).ok(),
    );
    family(
        "jobcred_fetches_total",
        "counter",
        "Fetches begun upstream.",
        &|token| i64::try_from(token.fetches).ok(),
    );
    family(
        "jobcred_fetch_failures_total",
        "counter",
        "Fetches that failed.",
        &|token| i64::try_from(token.failures).ok(),
    );
    family(
        "jobcred_token_expiry_seconds",
        "gauge",
        "When the token held ends, in unix seconds.",
        &|token| token.expires_on,
    );
    family(
        "jobcred_token_life_left_seconds",
        "gauge",
        "Seconds until the token held ends; 0 once it has.",
        &|token| Some(token.expires_on?.saturating_sub(now.as_secs()).max(0)),
    );
    family(
        "jobcred_token_runway_seconds",
        "gauge",
        "Seconds that an outage could last before a caller of this token notices; 0 for a declared one that is missing.",
        &|token| token.runway,
    );
}

fn events(text: &mut Text, status: &Status) {
    let by_kind = status.failures.iter().filter_map(|(kind, count)| {
        let label = format!("{{kind=\"{}\"}}", escape(kind));
        Some((label, i64::try_from(*count).ok()?))
    });
    text.family(
        "jobcred_failures_total",
        "counter",
        "Fetches that failed, by the kind of the error.",
        by_kind,
    );
    text.number(
        "jobcred_throttles_total",
        "counter",
        "Answers of upstream that said \"too many requests\".",
        status.throttles,
    );
    text.number(
        "jobcred_denials_total",
        "counter",
        "Requests that were denied, by policy or because of who asked.",
        status.denials,
    );
    text.number(
        "jobcred_agent_restarts_total",
        "counter",
        "How often the job's agent was started again after it had died.",
        status.restarts,
    );
}

fn labels(token: &TokenStatus) -> String {
    format!(
        "{{kind=\"{}\",identity=\"{}\",resource=\"{}\"}}",
        escape(&token.kind),
        escape(&token.identity),
        escape(&token.resource)
    )
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use jobcred_wire::{Status, TokenStatus};

    use super::render;
    use crate::platform::UnixTime;

    #[test]
    fn a_label_cannot_break_out() {
        let status = Status {
            tokens: vec![TokenStatus {
                kind: "token".to_owned(),
                identity: "default".to_owned(),
                resource: "a\"} 1\nevil".to_owned(),
                hits: 3,
                ..TokenStatus::default()
            }],
            ..Status::default()
        };
        let text = render(&status, UnixTime::from_secs(5));
        let line =
            r#"jobcred_hits_total{kind="token",identity="default",resource="a\"} 1\nevil"} 3"#;
        assert!(text.lines().any(|found| found == line), "{text}");
        assert!(
            text.lines()
                .any(|found| found == "jobcred_uptime_seconds 5")
        );
    }

    #[test]
    fn the_documentation_lists_what_there_is() {
        let text = render(&Status::default(), UnixTime::default());
        let there: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .collect();
        let page = include_str!("../../../docs/metrics.md");
        let listed: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split_once("` | "))
            .filter_map(|(name, rest)| Some((name, rest.split_once(' ')?.0)))
            .collect();
        for metric in &there {
            assert!(
                listed.contains(metric),
                "{metric:?} is not in docs/metrics.md"
            );
        }
        assert_eq!(there.len(), listed.len());
    }

    #[test]
    fn time_left_is_never_negative_and_unknown_is_absent() {
        let token = |expires_on| TokenStatus {
            resource: format!("{expires_on:?}"),
            expires_on,
            ..TokenStatus::default()
        };
        let status = Status {
            tokens: vec![token(Some(90)), token(Some(5)), token(None)],
            ..Status::default()
        };
        let text = render(&status, UnixTime::from_secs(30));
        let left: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("jobcred_token_life_left_seconds{"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(left, ["60", "0"]);
        assert!(!text.contains("jobcred_token_runway_seconds{"));
    }
}
