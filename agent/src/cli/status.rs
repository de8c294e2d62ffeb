//! `jobcred status`: what the agent holds and how it fares.

use std::fmt::Write as _;

use jobcred_wire::{Status, TokenStatus, UpstreamError};

use super::arguments::{GlobalOptions, JsonOption};
use super::output::{aligned, plain, print, span};
use super::{exit, seek};
use crate::platform::Clock;

pub(super) fn status(global: &GlobalOptions, options: &JsonOption) -> i32 {
    let status = match seek::client(global).status() {
        Ok(status) => status,
        Err(error) => return seek::report(&error),
    };
    if options.json {
        return match serde_json::to_string_pretty(&status) {
            Ok(text) => {
                print(&format!("{text}\n"));
                exit::OK
            }
            Err(_) => exit::INTERNAL,
        };
    }
    print(&render(&status, Clock::system().now().as_secs()));
    exit::OK
}

/// The status for people, at `now` in unix seconds.
fn render(status: &Status, now: i64) -> String {
    let mut rows = vec![
        (
            "agent",
            format!(
                "{}, pid {}, up {}",
                plain(&status.version),
                status.pid,
                span(now.saturating_sub(status.started_on))
            ),
        ),
        ("strategy", plain(&status.strategy)),
    ];
    if let Some(principal) = &status.principal {
        let id = principal.object_id.as_deref().unwrap_or("unknown");
        rows.push(("object id", plain(id)));
    }
    rows.push((
        "ready",
        match (
            status.ready,
            &status.endpoint,
            status.tokens.iter().any(|token| token.declared),
        ) {
            (false, Some(why), _) => format!("no: {}", plain(why)),
            (true, _, true) => "yes: every declared token is there".to_owned(),
            (true, _, false) => "yes: no token is declared, so none is waited for".to_owned(),
            (false, None, true) => "no: a declared token is missing".to_owned(),
            (false, None, false) => {
                "no: this agent gives no tokens; `jobcred explain` says why".to_owned()
            }
        },
    ));
    if let Some(seconds) = status.runway {
        rows.push((
            "runway",
            if seconds > 0 {
                format!("{}: so long an outage would go unnoticed", span(seconds))
            } else {
                "none: a declared token is missing".to_owned()
            },
        ));
    }
    rows.push(("leases", leases(status.leases)));
    rows.push(("callers", callers(status)));
    for (name, count) in [
        ("throttled", status.throttles),
        ("denied", status.denials),
        ("restarts", u64::from(status.restarts)),
    ] {
        if count > 0 {
            rows.push((name, format!("{count} {}", times(count))));
        }
    }
    if let Some(fault) = &status.clock {
        rows.push(("clock", plain(fault)));
    }
    if let Some(error) = &status.last_upstream_error {
        rows.push(("last error", failure(error, now)));
    }
    let mut out = aligned(&rows);
    for token in &status.tokens {
        let _ = write!(
            out,
            "\n{} {}\n{}",
            plain(&token.kind),
            plain(&token.resource),
            entry(token, now)
        );
    }
    out
}

fn entry(token: &TokenStatus, now: i64) -> String {
    let until = |time: Option<i64>| match time {
        None => "not yet got".to_owned(),
        Some(time) if time <= now => "ended".to_owned(),
        Some(time) => span(time.saturating_sub(now)),
    };
    let mut rows = vec![
        ("  as", plain(&token.identity)),
        ("  life left", until(token.expires_on)),
    ];
    if let Some(time) = token.refresh_on {
        rows.push(("  renewed in", span(time.saturating_sub(now))));
    }
    rows.push((
        "  answered",
        format!(
            "{} {} from memory; {} fetched, {} failed",
            token.hits,
            times(token.hits),
            token.fetches.saturating_sub(token.failures),
            token.failures
        ),
    ));
    if let Some(error) = &token.last_error {
        rows.push(("  last error", failure(error, now)));
    }
    aligned(&rows)
}

fn times(count: u64) -> &'static str {
    if count == 1 { "time" } else { "times" }
}

/// Who counts on the agent and keeps it alive. A sidecar lives without.
fn leases(count: u64) -> String {
    match count {
        0 => "none: nobody's end is the end of this agent".to_owned(),
        1 => "1 run, or program that has joined, counts on this agent".to_owned(),
        _ => format!("{count} runs, and programs that have joined, share this agent"),
    }
}

/// How many, and the ranks among them: who looks for the one that asks too often finds it with `top`.
fn callers(status: &Status) -> String {
    let ranks = status
        .callers
        .iter()
        .filter(|caller| !caller.ranks.is_empty())
        .count();
    match (status.callers.len(), ranks) {
        (all, 0) => all.to_string(),
        (all, ranks) => format!("{all}, {ranks} of them with a rank; see `jobcred top`"),
    }
}

fn failure(error: &UpstreamError, now: i64) -> String {
    format!(
        "{} ago: {} ({})",
        span(now.saturating_sub(error.at)),
        plain(&error.message),
        error.code
    )
}

#[cfg(test)]
mod tests {
    use jobcred_wire::{ErrorCode, Status, TokenStatus, UpstreamError};

    use super::render;

    #[test]
    fn a_status_reads_well_and_cannot_move_the_cursor() {
        let status = Status {
            version: "1.2.3".to_owned(),
            pid: 7,
            strategy: "compute-identity".to_owned(),
            started_on: 1_000,
            leases: 3,
            ready: true,
            runway: Some(7_260),
            tokens: vec![TokenStatus {
                kind: "token".to_owned(),
                identity: "default".to_owned(),
                resource: "https://storage.azure.com".to_owned(),
                expires_on: Some(8_320),
                hits: 3,
                fetches: 1,
                last_error: Some(UpstreamError {
                    code: ErrorCode::Transient,
                    message: "busy\u{1b}[2J".to_owned(),
                    at: 1_000,
                    hint: None,
                    issuer_code: None,
                    resource: None,
                }),
                ..TokenStatus::default()
            }],
            clock: Some("this machine's clock says 1970\u{1b}[2J".to_owned()),
            ..Status::default()
        };
        let text = render(&status, 1_060);
        for part in [
            "agent     1.2.3, pid 7, up 1 min\n",
            "ready     yes: no token is declared, so none is waited for\n",
            "runway    2 h 1 min: ",
            "leases    3 runs, and programs that have joined, share this agent\n",
            "clock     this machine's clock says 1970 [2J\n",
            "token https://storage.azure.com\n",
            "  life left   2 h 1 min\n",
            "3 times from memory; 1 fetched, 0 failed",
            "1 min ago: busy [2J (transient)",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
    #[test]
    fn an_agent_without_tokens_misses_none() {
        let text = render(&Status::default(), 1_060);
        for part in ["ready     no: this agent gives no tokens", "leases    none"] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let alone = Status {
            leases: 1,
            ..Status::default()
        };
        assert!(render(&alone, 0).contains("leases    1 run, or program"));
    }

    #[test]
    fn s3_an_endpoint_that_is_not_open_is_why_the_agent_is_not_ready() {
        let status = Status {
            endpoint: Some("there is no identity endpoint at 127.0.0.1:8460: taken".to_owned()),
            ..Status::default()
        };
        let text = render(&status, 1_060);
        let part = "ready     no: there is no identity endpoint at 127.0.0.1:8460: taken\n";
        assert!(text.contains(part), "{text}");
    }
}
