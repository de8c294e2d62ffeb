//! The explanation for a person at a terminal, or reading a log.

use jobcred_wire::{Candidate, Explanation, Notice, Outcome, PrincipalClaims, Severity};

use super::is_bypass;
use crate::cli::layout::{Look, Page};
use crate::cli::output::span;
use crate::platform::UnixTime;
use crate::strategy::reason;

/// Where the values of the short tables begin, in columns.
const LABEL_COLUMN: usize = 13;
/// Where the text about a strategy begins: after the longest name, `compute-instance-user`.
const STRATEGY_COLUMN: usize = 27;
/// Below this width the text about a strategy goes under its name.
const NARROW: usize = 64;
/// What the codes of broken promises begin with.
const PROMISE: &str = "promise_";

pub(super) fn render(
    explanation: &Explanation,
    width: usize,
    color: bool,
    now: UnixTime,
) -> String {
    let mut page = Page::new(width, color);
    outcome(&mut page, explanation, now);
    if let Some(claims) = &explanation.principal {
        page.blank();
        principal(&mut page, claims, now);
    }
    let (around, mut others): (Vec<&Notice>, Vec<&Notice>) = explanation
        .notices
        .iter()
        .filter(|notice| !is_outcome(explanation, notice))
        .partition(|notice| is_bypass(notice));
    // Whose token it is matters most.
    others.sort_by_key(|notice| {
        (
            !notice.code.starts_with(PROMISE),
            notice.severity != Severity::Warning,
        )
    });
    notices(&mut page, "worth knowing", &others);
    notices(&mut page, "ways around jobcred", &around);
    page.blank();
    page.line(&[(Look::Heading, "considered, in this order")]);
    for candidate in &explanation.candidates {
        considered(&mut page, candidate);
    }
    page.finish()
}

/// Whether a notice says what the outcome says, with the way out.
fn is_outcome(explanation: &Explanation, notice: &Notice) -> bool {
    notice.code == explanation.reason
}

/// By whom and when.
fn decided(explanation: &Explanation, now: UnixTime) -> String {
    match &explanation.agent {
        Some(agent) => format!(
            "by the agent that runs here (pid {}), {} ago",
            agent.pid,
            span(now.as_secs().saturating_sub(agent.started_on).max(0))
        ),
        None => "just now, as an agent started here would".to_owned(),
    }
}

fn outcome(page: &mut Page, explanation: &Explanation, now: UnixTime) {
    let fails = explanation.strategy == "none";
    if fails {
        let mark = page.mark("✗ ", "x ");
        page.line(&[(Look::Bad, mark), (Look::Bad, "no token can be had here")]);
    } else {
        let mark = page.mark("✓ ", "* ");
        page.line(&[(Look::Good, mark), (Look::Good, &explanation.strategy)]);
    }
    label(page, "decided", Look::Plain, &decided(explanation, now));
    label(page, "why", Look::Plain, &explanation.message);
    if let Some(upstream) = &explanation.upstream {
        label(page, "asks", Look::Plain, upstream);
    }
    if let Some(sdks) = &explanation.sdks {
        label(page, "sdks", Look::Plain, sdks);
    }
    let fixes = explanation
        .notices
        .iter()
        .filter(|notice| is_outcome(explanation, notice))
        .filter_map(|notice| notice.hint.as_deref());
    for fix in fixes {
        let mut name = "do";
        for line in fix.lines() {
            label(page, name, Look::Strong, line);
            name = "";
        }
    }
    label(page, "code", Look::Faint, &explanation.reason);
    label(page, "version", Look::Faint, &explanation.version);
}

fn principal(page: &mut Page, claims: &PrincipalClaims, now: UnixTime) {
    page.line(&[(Look::Heading, "the token it got")]);
    let kind = match claims.kind.as_deref() {
        _ if claims.sandbox => "made up by the sandbox, worth nothing outside it",
        Some("user") => "a user",
        Some("app") => "an application (a managed identity is one)",
        _ => "the token does not say whether a user or an application",
    };
    label(page, "belongs to", Look::Strong, kind);
    for (name, value) in [
        ("object id", &claims.object_id),
        ("client id", &claims.app_id),
        ("tenant", &claims.tenant_id),
        ("audience", &claims.audience),
    ] {
        let value = value.as_deref().unwrap_or("not in the token");
        label(page, name, Look::Plain, value);
    }
    label(page, "life left", Look::Plain, &life_left(claims, now));
}

/// The life left in words.
pub(super) fn life_left(claims: &PrincipalClaims, now: UnixTime) -> String {
    match claims.expires_on {
        Some(end) if end > now.as_secs() => span(end.saturating_sub(now.as_secs())),
        Some(_) => "none, it has ended".to_owned(),
        None => "not in the token".to_owned(),
    }
}

fn label(page: &mut Page, name: &str, look: Look, value: &str) {
    let lead = format!("  {name}");
    page.paragraph(LABEL_COLUMN, (Look::Faint, &lead), look, value);
}

fn notices(page: &mut Page, heading: &str, notices: &[&Notice]) {
    if notices.is_empty() {
        return;
    }
    page.blank();
    page.line(&[(Look::Heading, heading)]);
    for notice in notices {
        let (mark, look) = match notice.severity {
            Severity::Warning => ("  ! ", Look::Warning),
            Severity::Info | Severity::Unknown => (page.mark("  · ", "  - "), Look::Strong),
        };
        page.line(&[(look, mark), (look, &notice.code)]);
        page.paragraph(4, (Look::Plain, ""), Look::Plain, &notice.message);
        if let Some(hint) = &notice.hint {
            let arrow = page.mark("    → ", "    > ");
            page.paragraph(6, (Look::Faint, arrow), Look::Faint, hint);
        }
    }
}

fn considered(page: &mut Page, candidate: &Candidate) {
    let (mark, look) = match candidate.outcome {
        Outcome::Chosen => (page.mark("  ✓ ", "  * "), Look::Good),
        Outcome::Failed => (page.mark("  ✗ ", "  x "), Look::Bad),
        Outcome::PassedOver | Outcome::Unknown => (page.mark("  · ", "  - "), Look::Plain),
    };
    let column = if page.width() < NARROW {
        page.line(&[(look, mark), (look, &candidate.strategy)]);
        page.paragraph(4, (Look::Plain, ""), Look::Strong, &candidate.reason);
        4
    } else {
        let lead = format!("{mark}{}", candidate.strategy);
        page.paragraph(
            STRATEGY_COLUMN,
            (look, &lead),
            Look::Strong,
            &candidate.reason,
        );
        STRATEGY_COLUMN
    };
    page.paragraph(column, (Look::Plain, ""), Look::Plain, &candidate.message);
    if !candidate.evidence.is_empty() && candidate.reason != reason::ONLY_WHEN_CONFIGURED {
        let facts = candidate.evidence.join("; ");
        page.paragraph(column, (Look::Plain, ""), Look::Faint, &facts);
    }
}
