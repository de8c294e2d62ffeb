//! The state of the agent as Prometheus text.

use std::fmt::Write as _;

use jobcred_wire::Status;

use crate::platform::UnixTime;

/// Renders `status`. Label values are escaped; keys are bounded by the broker's store.
#[must_use]
pub fn render(status: &Status, now: UnixTime) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, i64)>| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let per_token = |value: fn(&jobcred_wire::TokenStatus) -> Option<i64>| {
        status
            .tokens
            .iter()
            .filter_map(|token| Some((labels(token), value(token)?)))
            .collect()
    };
    family(
        "jobcred_info",
        "gauge",
        "The agent's version and strategy.",
        vec![(
            format!(
                "{{version=\"{}\",strategy=\"{}\"}}",
                escape(&status.version),
                escape(&status.strategy)
            ),
            1,
        )],
    );
    family(
        "jobcred_ready",
        "gauge",
        "1 when every declared token exists.",
        vec![(String::new(), i64::from(status.ready))],
    );
    family(
        "jobcred_hits_total",
        "counter",
        "Answers given from memory.",
        per_token(|token| i64::try_from(token.hits).ok()),
    );
    family(
        "jobcred_fetches_total",
        "counter",
        "Fetches begun upstream.",
        per_token(|token| i64::try_from(token.fetches).ok()),
    );
    family(
        "jobcred_fetch_failures_total",
        "counter",
        "Fetches that failed.",
        per_token(|token| i64::try_from(token.failures).ok()),
    );
    family(
        "jobcred_token_expiry_seconds",
        "gauge",
        "When the token held ends, in unix seconds.",
        per_token(|token| token.expires_on),
    );
    let rows = status.runway.map(|runway| (String::new(), runway));
    family(
        "jobcred_runway_seconds",
        "gauge",
        "Seconds until the first token in use ends, if nothing could be renewed from now on.",
        rows.into_iter().collect(),
    );
    family(
        "jobcred_uptime_seconds",
        "counter",
        "Seconds since the agent started.",
        vec![(
            String::new(),
            now.as_secs().saturating_sub(status.started_on),
        )],
    );
    out
}

fn labels(token: &jobcred_wire::TokenStatus) -> String {
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
}
