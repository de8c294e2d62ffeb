//! Facts and configuration in, one selection out. Pure: it reads no environment, no file and no clock.

use jobcred_wire::{Candidate, Explanation, Notice, Outcome};

use super::candidate::{Finding, ORDER, Verdict, View, consider};
use super::{
    Choice, Facts, ProbeResult, Selection, StartError, Strategy, bypass, conflict, endpoint,
    evidence, federation, notice, reason, stand_in,
};
use crate::config::Config;

/// The version that decides, for the explanation.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Chooses the strategy: the configured one, else the first of the table that applies. One that applies and cannot serve
/// ends the search, because whoever came next would be somebody else.
#[must_use]
pub fn select(facts: &Facts, config: &Config) -> Selection {
    let view = View::new(facts, config);
    let mut findings: Vec<(Strategy, Finding)> = ORDER
        .into_iter()
        .map(|strategy| {
            let configured = config.strategy == Some(strategy);
            (strategy, consider(&view, strategy, configured))
        })
        .collect();
    let decided = config.strategy.or_else(|| {
        findings
            .iter()
            .find(|(_, finding)| finding.verdict.is_applicable())
            .map(|(strategy, _)| *strategy)
    });
    for (strategy, finding) in &mut findings {
        if decided == Some(*strategy)
            && let Verdict::Applies { choice, .. } = &finding.verdict
            && let Err(error) = federation::check(&facts.environment, config, choice)
        {
            finding.verdict = Verdict::Fails(error);
        }
    }
    let (outcome, code, message) = findings
        .iter()
        .find(|(strategy, _)| decided == Some(*strategy))
        .map_or_else(
            || failed(nothing_found(facts)),
            |(strategy, finding)| decide(*strategy, finding, config.strategy.is_some()),
        );

    let mut notices: Vec<_> = outcome.as_ref().err().map(way_out).into_iter().collect();
    notices.extend(notice::collect(&view, decided, outcome.as_ref().ok()));
    notices.extend(conflict::collect(&view, decided, outcome.as_ref().ok()));
    if let Ok(choice) = &outcome {
        notices.extend(federation::collect(config, choice));
    }
    notices.extend(bypass::collect(&view, outcome.as_ref().ok()));
    let explanation = Explanation {
        version: VERSION.to_owned(),
        strategy: outcome
            .as_ref()
            .map_or("none", |choice| choice.strategy.name())
            .to_owned(),
        reason: code.to_owned(),
        message,
        upstream: outcome.as_ref().ok().map(Choice::upstream_in_words),
        sdks: Some(stand_in::in_words(
            config,
            &facts.environment,
            outcome.as_ref(),
        )),
        candidates: findings
            .into_iter()
            .map(|(strategy, finding)| candidate(strategy, finding, decided, config.strategy))
            .collect(),
        notices,
        principal: None,
        probe_error: None,
        agent: None,
    };
    Selection {
        outcome,
        explanation,
    }
}

impl Selection {
    /// A selection that was not made: every request is answered with the error.
    #[must_use]
    pub fn refused(error: StartError) -> Self {
        Self {
            explanation: Explanation {
                version: VERSION.to_owned(),
                strategy: "none".to_owned(),
                reason: error.code.to_owned(),
                message: sentence(&error.message),
                upstream: None,
                sdks: None,
                candidates: Vec::new(),
                notices: vec![way_out(&error)],
                principal: None,
                probe_error: None,
                agent: None,
            },
            outcome: Err(error),
        }
    }
}

impl Selection {
    /// The notices of variables that are nearly right, and that would have led elsewhere if they were.
    pub fn near_misses(&self) -> impl Iterator<Item = &Notice> {
        let reason_of = |strategy: Strategy| {
            let mut candidates = self.explanation.candidates.iter();
            let found = candidates.find(|candidate| candidate.strategy == strategy.name());
            found.map(|candidate| candidate.reason.as_str())
        };
        let is_configured = self.explanation.reason == reason::CONFIGURED;
        let is_users = reason_of(Strategy::UserIdentity) == Some(reason::OBO_ENABLED);
        let is_placeholder =
            reason_of(Strategy::ComputeIdentity) == Some(reason::CLIENT_ID_PLACEHOLDER);
        let notices = self.explanation.notices.iter();
        notices.filter(move |notice| match notice.code.as_str() {
            reason::OBO_FLAG_NEAR_MISS => !is_configured,
            reason::CLIENT_ID_NEAR_MISS => !is_configured && !is_users && is_placeholder,
            _ => false,
        })
    }
}

/// Whether the probe of IMDS should be made: it may be, and its result would change the choice.
#[must_use]
pub fn wants_probe(facts: &Facts, config: &Config) -> bool {
    if !config.probe || config.strategy.is_some() {
        return false;
    }
    let answered = facts
        .clone()
        .with_probe(ProbeResult::Answered { status: 400, ms: 1 });
    let silent = facts.clone().with_probe(ProbeResult::NoAnswer {
        reason: String::new(),
    });
    select(&answered, config).outcome != select(&silent, config).outcome
}

/// What detection alone would have come to.
pub(super) fn detected(view: &View<'_>) -> Option<Strategy> {
    ORDER
        .into_iter()
        .find(|strategy| consider(view, *strategy, false).verdict.is_applicable())
}

type Decided = (Result<Choice, StartError>, &'static str, String);

fn decide(strategy: Strategy, finding: &Finding, configured: bool) -> Decided {
    match &finding.verdict {
        Verdict::Applies {
            message, choice, ..
        } if configured => (
            Ok(choice.clone()),
            reason::CONFIGURED,
            format!("The configuration names {strategy}. {message}"),
        ),
        Verdict::Applies {
            code,
            message,
            choice,
        } => (Ok(choice.clone()), code, message.clone()),
        Verdict::Fails(error) => failed(error.clone()),
        Verdict::Elsewhere { code, message } => failed(StartError {
            code,
            message: format!(
                "the configuration names {strategy}, which cannot serve here: {message}"
            ),
            hint: "Leave the strategy out of the configuration to have it detected.".to_owned(),
        }),
    }
}

fn failed(error: StartError) -> Decided {
    let (code, message) = (error.code, sentence(&error.message));
    (Err(error), code, message)
}

fn candidate(
    strategy: Strategy,
    finding: Finding,
    decided: Option<Strategy>,
    configured: Option<Strategy>,
) -> Candidate {
    let is_decided = decided == Some(strategy);
    let (outcome, code, message) = match finding.verdict {
        Verdict::Applies { code, message, .. } if is_decided => {
            let code = configured.map_or(code, |_| reason::CONFIGURED);
            (Outcome::Chosen, code, message)
        }
        Verdict::Fails(error) if is_decided => {
            (Outcome::Failed, error.code, sentence(&error.message))
        }
        Verdict::Applies { .. } | Verdict::Fails(_) => match (configured, decided) {
            (Some(other), _) => (
                Outcome::PassedOver,
                reason::CONFIGURATION_DECIDES,
                format!("It would apply, but the configuration names {other}."),
            ),
            (None, Some(other)) => (
                Outcome::PassedOver,
                reason::OUTRANKED,
                format!("It would apply, but {other} comes first."),
            ),
            // Nothing was decided, so nothing applies.
            (None, None) => (Outcome::PassedOver, reason::NOTHING_FOUND, String::new()),
        },
        Verdict::Elsewhere { code, message } => {
            let outcome = if is_decided {
                Outcome::Failed
            } else {
                Outcome::PassedOver
            };
            (outcome, code, message)
        }
    };
    Candidate {
        strategy: strategy.name().to_owned(),
        outcome,
        reason: code.to_owned(),
        message,
        evidence: finding.evidence,
    }
}

/// A start-up error as a notice of the same code: the explanation has no other place for what to do about it.
fn way_out(error: &StartError) -> Notice {
    notice::warning(error.code, sentence(&error.message), &error.hint)
}

/// The error for a machine that is none of ours, with the way out for each that is.
fn nothing_found(facts: &Facts) -> StartError {
    const LOOKED_FOR: [&str; 4] = [
        "AZUREML_OBO_ENABLED",
        "DEFAULT_IDENTITY_CLIENT_ID",
        "MSI_ENDPOINT",
        "IDENTITY_ENDPOINT",
    ];
    let mut looked = evidence::variables(&facts.environment, &LOOKED_FOR);
    looked.push("no Kubernetes markers".to_owned());
    looked.push(endpoint::probe_in_words(facts));
    StartError {
        code: reason::NOTHING_FOUND,
        message: format!(
            "nothing here leads to an identity; looked for: {}",
            looked.join(", ")
        ),
        hint: [
            "Azure ML compute cluster: assign a managed identity to the cluster, or submit with `identity: {type: user_identity}`.",
            "Azure ML compute instance: turn single sign-on on, or assign a managed identity.",
            "Kubernetes compute of Azure ML: attach the compute with an identity.",
            "Other Kubernetes: set up workload identity for the pod's service account.",
            "Continuous integration: configure the strategy `service-principal`.",
            "A laptop: `jobcred run --sandbox -- COMMAND` serves made-up tokens for a storage emulator.",
            "Variables lost on the way (`docker run`, `sudo`, `mpirun`): start jobcred where the platform's variables still are.",
        ]
        .join("\n"),
    }
}

/// A clause as a sentence, unless it starts with a name.
fn sentence(clause: &str) -> String {
    let mut chars = clause.chars();
    let mut text: String = match (chars.next(), clause.split(' ').next()) {
        (Some(first), Some(word))
            if !word.contains(|c: char| c.is_ascii_uppercase() || c == '_') =>
        {
            first.to_uppercase().chain(chars).collect()
        }
        _ => clause.to_owned(),
    };
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}
