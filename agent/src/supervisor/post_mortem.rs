//! What the agent saw, said once when COMMAND has failed: the agent's memory ends with the job, and so would the reason.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use jobcred_wire::{STATUS_PATH, Status, TokenStatus, UpstreamError};

use super::ask::ask_within;
use super::prefetch::plain;
use super::{Ending, say};
use crate::config::PostMortem;
use crate::journal::tame;
use crate::platform::Clock;

/// How long the agent may take to answer: COMMAND's status waits for this.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Tokens named; those that fared worst come first.
const MOST_TOKENS: usize = 4;
/// Errors named, the latest last.
const MOST_ERRORS: usize = 3;

/// Numbers of the signals that came to `run`, whoever sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signalled(u64);

impl Signalled {
    pub(super) fn note(&mut self, number: i32) {
        self.0 |= bit(number);
    }

    /// Whether the ending is what one of these signals does: that is no failure to explain.
    fn explains(self, ending: Ending) -> bool {
        let number = match ending {
            Ending::Killed(number) => number,
            // As a shell, or a program that handles the signal, tells it.
            Ending::Exited(code) => code - 128,
        };
        self.0 & bit(number) != 0
    }
}

fn bit(number: i32) -> u64 {
    u32::try_from(number - 1)
        .ok()
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

/// What to say after COMMAND.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostMortemPlan {
    /// Where the agent answers.
    pub socket: PathBuf,
    /// When it is said.
    pub when: PostMortem,
    /// Whether only what went wrong is worth a word.
    pub quiet: bool,
}

/// Says it, if there is a reason to: asks the agent, for half a second at most. `restarts` is how often it was started again.
pub(super) fn post_mortem(
    plan: &PostMortemPlan,
    ending: Ending,
    signalled: Signalled,
    restarts: u32,
) {
    let is_failure = ending != Ending::Exited(0) && !signalled.explains(ending);
    let is_wanted = match plan.when {
        PostMortem::Auto => is_failure,
        PostMortem::Always => true,
        PostMortem::Off => false,
    };
    if !is_wanted {
        return;
    }
    let asked = ask_within(&plan.socket, &format!("GET {STATUS_PATH}"), PATIENCE)
        .ok()
        .filter(|answer| answer.status == 200)
        .and_then(|answer| serde_json::from_slice::<Status>(&answer.body).ok());
    let how = match ending {
        Ending::Exited(code) => format!("COMMAND ended with code {code}"),
        Ending::Killed(signal) => format!("COMMAND was killed by signal {signal}"),
    };
    let Some(status) = asked else {
        let again = match restarts {
            0 => String::new(),
            count => format!(", after it was started again {count} times"),
        };
        say(&format!("{how}; the agent did not answer{again}"));
        return;
    };
    if plan.quiet && !has_news(&status, restarts) {
        return;
    }
    // One write, so that lines of several ranks do not mix.
    let lines = summary(&status, restarts, Clock::system().now().as_secs());
    say(&format!("{how}. What jobcred saw:\n{}", lines.join("\n")));
}

/// Whether anything went wrong.
fn has_news(status: &Status, restarts: u32) -> bool {
    restarts > 0
        || status.throttles > 0
        || status.denials > 0
        || !status.recent_errors.is_empty()
        || status.last_upstream_error.is_some()
}

/// The lines, at `now` in unix seconds.
fn summary(status: &Status, restarts: u32, now: i64) -> Vec<String> {
    let mut lines = vec![identity(status)];
    let mut tokens: Vec<&TokenStatus> = status.tokens.iter().collect();
    tokens.sort_by_key(|token| (token.last_error.is_none(), token.expires_on));
    lines.extend(
        tokens
            .iter()
            .take(MOST_TOKENS)
            .map(|token| life(token, now)),
    );
    if tokens.len() > MOST_TOKENS {
        lines.push(format!("and {} more tokens", tokens.len() - MOST_TOKENS));
    }
    let errors: &[UpstreamError] = match (&status.recent_errors, &status.last_upstream_error) {
        (recent, Some(last)) if recent.is_empty() => std::slice::from_ref(last),
        (recent, _) => recent,
    };
    let skipped = errors.len().saturating_sub(MOST_ERRORS);
    lines.extend(errors.iter().skip(skipped).map(|error| {
        let about = match &error.resource {
            Some(resource) => format!("{}: ", tame(resource)),
            None => String::new(),
        };
        format!(
            "error {} ago ({}): {about}{}",
            span(now - error.at),
            error.code,
            tame(&error.message)
        )
    }));
    let counts: Vec<String> = [
        (status.throttles, "too many requests (429)"),
        (status.denials, "requests denied"),
        (u64::from(restarts), "agent started again"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{what}: {count}"))
    .collect();
    if !counts.is_empty() {
        lines.push(counts.join(", "));
    }
    let asked: u64 = status.callers.iter().map(|caller| caller.requests).sum();
    if status.tokens.is_empty() && asked > 0 {
        lines.push(format!(
            "tokens were asked for {asked} times, and none was given"
        ));
    } else if status.tokens.is_empty() && status.denials == 0 {
        lines.push("no token was asked for".to_owned());
    } else if !has_news(status, restarts) {
        lines.push("no request failed".to_owned());
    }
    lines
        .iter()
        .map(|line| format!("jobcred:   {}", plain(line)))
        .collect()
}

/// By ids alone: logs are read by many.
fn identity(status: &Status) -> String {
    let mut text = format!("identity: {}", status.strategy);
    let Some(principal) = &status.principal else {
        text.push_str(", whose is not known: no token came");
        return text;
    };
    for (name, id) in [
        ("object id", &principal.object_id),
        ("app id", &principal.app_id),
    ] {
        if let Some(id) = id {
            // Writing to a String cannot fail.
            let _ = write!(text, ", {name} {id}");
        }
    }
    if principal.kind.as_deref() == Some("user") {
        text.push_str(", a user");
    }
    text
}

fn life(token: &TokenStatus, now: i64) -> String {
    let held = match (token.obtained_on, token.expires_on) {
        (Some(from), Some(to)) if to > now => {
            format!("{} old, {} left", span(now - from), span(to - now))
        }
        (_, Some(to)) => format!("ended {} ago", span(now - to)),
        _ => "never got".to_owned(),
    };
    let failed = match token.failures {
        0 => String::new(),
        failures => format!(", {failures} of {} fetches failed", token.fetches),
    };
    format!("{} {}: {held}{failed}", token.kind, tame(&token.resource))
}

/// A span of time as people say it, in its largest unit or two.
fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use jobcred_wire::{
        CallerStatus, ErrorCode, PrincipalClaims, Status, TokenStatus, UpstreamError,
    };

    use super::{Signalled, has_news, summary};
    use crate::supervisor::Ending;

    fn token(resource: &str, expires_on: Option<i64>) -> TokenStatus {
        TokenStatus {
            kind: "token".to_owned(),
            resource: resource.to_owned(),
            obtained_on: expires_on.map(|_| 1_000),
            expires_on,
            fetches: 3,
            ..TokenStatus::default()
        }
    }

    fn error(message: &str) -> UpstreamError {
        UpstreamError {
            code: ErrorCode::Transient,
            message: message.to_owned(),
            at: 1_000,
            hint: None,
            issuer_code: None,
            resource: Some("https://r".to_owned()),
        }
    }

    #[test]
    fn a_good_agent_needs_three_lines() {
        let status = Status {
            strategy: "compute-identity".to_owned(),
            principal: Some(PrincipalClaims {
                object_id: Some("oid-1".to_owned()),
                app_id: Some("app-1".to_owned()),
                ..PrincipalClaims::default()
            }),
            tokens: vec![token("https://storage.azure.com", Some(8_260))],
            ..Status::default()
        };
        assert_eq!(
            summary(&status, 0, 1_060),
            [
                "jobcred:   identity: compute-identity, object id oid-1, app id app-1",
                "jobcred:   token https://storage.azure.com: 60 s old, 2 h 0 min left",
                "jobcred:   no request failed",
            ]
        );
        assert!(!has_news(&status, 0));
        assert!(has_news(&status, 1));
    }

    #[test]
    fn who_asked_in_vain_is_not_said_to_have_asked_for_nothing() {
        let mut status = Status::default();
        assert!(summary(&status, 0, 0)[1].ends_with("no token was asked for"));
        status.callers = vec![CallerStatus {
            requests: 2,
            ..CallerStatus::default()
        }];
        let said = summary(&status, 0, 0);
        assert_eq!(
            said[1],
            "jobcred:   tokens were asked for 2 times, and none was given"
        );
    }

    #[test]
    fn a_long_story_is_cut_to_twelve_lines_with_the_worst_kept() {
        let mut tokens: Vec<_> = (0..20)
            .map(|number| token(&format!("https://{number}"), Some(9_000)))
            .collect();
        tokens.push(TokenStatus {
            failures: 3,
            last_error: Some(error("x")),
            ..token("https://bad", None)
        });
        let status = Status {
            strategy: "kubernetes".to_owned(),
            tokens,
            recent_errors: (0..8).map(|number| error(&number.to_string())).collect(),
            throttles: 4,
            denials: 2,
            ..Status::default()
        };
        let lines = summary(&status, 1, 1_060);
        assert!(lines.len() <= 12, "{lines:#?}");
        assert_eq!(
            lines[1],
            "jobcred:   token https://bad: never got, 3 of 3 fetches failed"
        );
        let text = lines.join("\n");
        for part in [
            "whose is not known",
            "and 17 more tokens",
            "error 60 s ago (transient): https://r: 7",
            "too many requests (429): 4, requests denied: 2, agent started again: 1",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains(": 4\n") && !text.contains("no request failed"));
    }

    #[test]
    fn an_end_that_was_asked_for_is_no_failure() {
        let mut told = Signalled::default();
        assert!(!told.explains(Ending::Killed(15)));
        told.note(15);
        assert!(told.explains(Ending::Killed(15)));
        assert!(told.explains(Ending::Exited(143)));
        for other in [Ending::Killed(9), Ending::Exited(1), Ending::Exited(-200)] {
            assert!(!told.explains(other), "{other:?}");
        }
    }
}
