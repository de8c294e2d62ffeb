//! Facts and configuration in, one selection out. Pure: it reads no environment, no file and no clock.

use jobcred_wire::Explanation;

use super::{Facts, ProbeResult, Selection, StartError, reason};
use crate::config::Config;

/// Chooses the strategy.
#[must_use]
pub fn select(facts: &Facts, config: &Config) -> Selection {
    let _ = (facts, config);
    Selection {
        outcome: Err(StartError {
            code: reason::NOTHING_FOUND,
            message: "nothing in the environment leads to an identity".to_owned(),
            hint: String::new(),
        }),
        explanation: Explanation::default(),
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
