//! The three lines at start: who, why, how long an outage could last.

use crate::strategy::reason;
use crate::strategy::{Choice, Selection, StartError, Strategy, Upstream};
use crate::supervisor::say;

/// Says who, why and how long; only what went wrong when `quiet`, to which it does not count that there is no identity here.
/// `is_held`: whether COMMAND waits for declared resources.
pub(super) fn start(selection: &Selection, quiet: bool, is_held: bool) {
    match &selection.outcome {
        // What becomes of COMMAND is said by who holds it.
        Err(error) if is_held => refusal(error),
        Err(error) if quiet && error.code == reason::NOTHING_FOUND => {}
        Err(error) => {
            in_short(error);
            near_misses(selection);
            say("COMMAND runs all the same; token requests are answered with this reason");
        }
        Ok(_) if quiet => {}
        Ok(choice) => {
            say(&who(choice));
            for notice in &selection.explanation.notices {
                if [reason::FEDERATED_APPLICATION, reason::FEDERATED_REGISTRY]
                    .contains(&notice.code.as_str())
                {
                    say(&format!("who: {}", notice.message));
                }
            }
            say(&format!("why: {}", selection.explanation.message));
            near_misses(selection);
            say(&format!("outages: {}", outage(choice)));
        }
    }
}

/// Says why there are no tokens and what to do about it.
pub(super) fn refusal(error: &StartError) {
    say(&format!("no token can be had: {}", error.message));
    error.hint.lines().for_each(say);
}

/// The same to a person whose COMMAND runs all the same. Where the ways out are many, where to read them.
fn in_short(error: &StartError) {
    if error.code == reason::NOTHING_FOUND {
        say("no token can be had: nothing here leads to an identity");
        say("`jobcred explain` says what was looked for, and what to do");
    } else {
        refusal(error);
    }
}

fn near_misses(selection: &Selection) {
    for notice in selection.near_misses() {
        say(&format!("but: {}", notice.message));
    }
}

fn who(choice: &Choice) -> String {
    let id = match &choice.upstream {
        Upstream::WorkloadIdentity { client_id, .. }
        | Upstream::ServicePrincipal { client_id, .. } => Some(client_id),
        _ => choice.client_id.as_ref(),
    };
    match id {
        Some(id) => format!("who: {} (client id {id})", choice.strategy),
        None => format!("who: {}", choice.strategy),
    }
}

/// How long the issuer can be away before anybody notices: a token is renewed at half its life when it lives two hours or more,
/// else shortly before its end, so what is left then is what an outage can take. Before the first token only the rule is known.
fn outage(choice: &Choice) -> &'static str {
    match choice.strategy {
        Strategy::Sandbox => "none, tokens are made here and worth nothing outside",
        Strategy::UserIdentity
        | Strategy::ComputeInstanceUser
        | Strategy::ServicePrincipal
        | Strategy::AzureCli => {
            "the user's or application's tokens live about an hour: some minutes pass unnoticed; `jobcred status` says how long now"
        }
        Strategy::ComputeIdentity | Strategy::Kubernetes | Strategy::SystemIdentity => {
            "a managed identity's tokens live up to 24 h and are renewed half-way: up to 12 h pass unnoticed; `jobcred status` says how long now"
        }
    }
}
