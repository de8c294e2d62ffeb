//! A text that can be pasted into a public bug report: what was decided by which codes, from which variables, on which
//! system. No value of a variable, no id, no address, no message (messages may quote values).

use std::path::Path;

use jobcred_wire::{Explanation, Outcome, PrincipalClaims, Severity};

use super::text::life_left;
use crate::cli::layout::{Look, Page};
use crate::cli::output::span;
use crate::platform::{Files, UnixTime};
use crate::strategy::reason;

/// Wide enough that nothing is wrapped: reports are pasted.
const WIDTH: usize = 200;
/// The largest system file read, in bytes; real ones are below 1 KiB.
const MAX_FILE_BYTES: u64 = 16 * 1024;
/// The longest name of a system that is kept, in characters.
const MAX_NAME_CHARS: usize = 80;

pub(super) fn render(explanation: &Explanation, now: UnixTime, files: &Files) -> String {
    let mut page = Page::new(WIDTH, false);
    let row = |page: &mut Page, name: &str, value: &str| {
        page.line(&[(Look::Plain, &format!("{name:10}{value}"))]);
    };
    row(&mut page, "jobcred", &explanation.version);
    row(&mut page, "system", &system(files));
    row(&mut page, "kernel", &kernel(files));
    row(&mut page, "machine", std::env::consts::ARCH);
    row(
        &mut page,
        "strategy",
        &format!("{} ({})", explanation.strategy, explanation.reason),
    );
    let decided = match &explanation.agent {
        Some(agent) => {
            let age = now.as_secs().saturating_sub(agent.started_on).max(0);
            format!("by a running agent, {} ago", span(age))
        }
        None => "anew, for this report".to_owned(),
    };
    row(&mut page, "decided", &decided);
    if let Some(upstream) = &explanation.upstream {
        row(&mut page, "asks", kind_of(upstream));
    }
    if let Some(claims) = &explanation.principal {
        row(&mut page, "token", &token(claims, now));
    }
    if let Some(error) = &explanation.probe_error {
        // The issuer's code is a word of its own, and public; the message may quote ids and addresses.
        let code = error.issuer_code.as_deref().filter(|code| is_word(code));
        let value = format!("failed: {} {}", error.code, code.unwrap_or_default());
        row(&mut page, "probe", value.trim_end());
    }
    page.blank();
    for candidate in &explanation.candidates {
        let outcome = match candidate.outcome {
            Outcome::Chosen => "chosen",
            Outcome::Failed => "failed",
            Outcome::PassedOver => "passed over",
            Outcome::Unknown => "unknown",
        };
        page.line(&[(
            Look::Plain,
            &format!("{}: {outcome}, {}", candidate.strategy, candidate.reason),
        )]);
        for fact in &candidate.evidence {
            page.line(&[(Look::Plain, "    "), (Look::Plain, &without_value(fact))]);
        }
    }
    if !explanation.notices.is_empty() {
        page.blank();
    }
    for notice in &explanation.notices {
        let severity = match notice.severity {
            Severity::Warning => "warning",
            Severity::Info | Severity::Unknown => "info",
        };
        let meaning = reason::meaning(&notice.code).unwrap_or_default();
        page.line(&[(
            Look::Plain,
            &format!("{severity}: {}: {meaning}", notice.code),
        )]);
    }
    page.finish()
}

/// Whether a text of the issuer is one short code, and no sentence that may name somebody.
fn is_word(text: &str) -> bool {
    text.len() <= 40
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A fact without the value in it: names of variables, and what the probe of IMDS gave without its particulars.
fn without_value(fact: &str) -> String {
    match (fact.split_once(" = "), fact.split_once(" (")) {
        (Some((name, _)), _) => format!("{name} is set"),
        (None, Some((front, _))) => front.to_owned(),
        (None, None) => fact.to_owned(),
    }
}

/// What is asked, up to where its address begins.
fn kind_of(upstream: &str) -> &str {
    let end = ["http://", "https://", ","]
        .into_iter()
        .filter_map(|mark| upstream.find(mark))
        .min()
        .unwrap_or(upstream.len());
    let kind = upstream[..end].trim_end();
    let kind = kind.strip_suffix(" at").unwrap_or(kind);
    if kind.is_empty() { "an issuer" } else { kind }
}

fn token(claims: &PrincipalClaims, now: UnixTime) -> String {
    let kind = match claims.kind.as_deref() {
        _ if claims.sandbox => "sandbox",
        Some("user") => "user",
        Some("app") => "application",
        _ => "kind not said",
    };
    let has = |value: &Option<String>| if value.is_some() { "yes" } else { "no" };
    format!(
        "{kind}; object id: {}; client id: {}; tenant: {}; life left: {}",
        has(&claims.object_id),
        has(&claims.app_id),
        has(&claims.tenant_id),
        life_left(claims, now)
    )
}

fn system(files: &Files) -> String {
    files
        .read_text(Path::new("/etc/os-release"), MAX_FILE_BYTES)
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("PRETTY_NAME="))
                .map(|name| short(name.trim_matches('"')))
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn kernel(files: &Files) -> String {
    files
        .read_text(Path::new("/proc/sys/kernel/osrelease"), MAX_FILE_BYTES)
        .map_or_else(|_| "unknown".to_owned(), |text| short(text.trim()))
}

fn short(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::{kind_of, without_value};

    #[test]
    fn facts_lose_their_values() {
        for (fact, kept) in [
            ("MSI_ENDPOINT = http://10.1.2.3/x", "MSI_ENDPOINT is set"),
            ("MSI_SECRET is set", "MSI_SECRET is set"),
            ("OBO_ENDPOINT is unset", "OBO_ENDPOINT is unset"),
            (
                "IMDS probe: no answer (proxy.contoso.com refused)",
                "IMDS probe: no answer",
            ),
        ] {
            assert_eq!(without_value(fact), kept);
        }
    }

    #[test]
    fn what_is_asked_loses_its_address() {
        for (upstream, kept) in [
            (
                "Azure ML endpoint http://127.0.0.1:46808/MSI/auth, client id x",
                "Azure ML endpoint",
            ),
            (
                "workload identity at https://login.contoso.com, tenant t",
                "workload identity",
            ),
            ("https://login.contoso.com, tenant t", "an issuer"),
            (
                "nobody: tokens are made up here",
                "nobody: tokens are made up here",
            ),
        ] {
            assert_eq!(kind_of(upstream), kept);
        }
    }
}
