//! `jobcred explain`: gets the explanation, from the agent that runs here or by deciding; `explain` turns it into text.

use std::io::IsTerminal as _;
use std::time::Duration;

use jobcred_client::ErrorKind;
use jobcred_wire::{Explanation, Notice, ProbeError, Target, TokenRequest};

use super::arguments::{ColorChoice, ExplainOptions, GlobalOptions};
use super::explain::{Form, explain_text, is_bypass, wants_color, width};
use super::output::{plain, print};
use super::probe::storage_token;
use super::setup::{Setup, runtime};
use super::{exit, seek};
use crate::agent::{Chosen, Outside, choose};
use crate::error::TokenError;
use crate::principal::{Pin, Principal, jwt_issued};
use crate::resource::Cloud;
use crate::strategy::{
    Facts, clock_wrong, promise_broken, reason, roots_not_found, select, token_of_earlier,
};
use crate::supervisor::say;
use crate::token::Identity;

/// For all that an agent is asked; its own patience with the identity endpoint is shorter.
const AGENT_LIMIT: Duration = Duration::from_secs(30);

/// Says what the agent that runs here has decided; else decides as one started here and now would, and says that.
pub(super) fn explain(global: &GlobalOptions, options: &ExplainOptions) -> i32 {
    let setup = match Setup::read(global) {
        Ok(setup) => setup,
        Err(report) => {
            say(&report);
            return exit::USAGE;
        }
    };
    setup.say_ignored();
    // Whoever names a strategy or a configuration does not mean the agent's.
    let anew =
        options.anew || global.sandbox || global.strategy.is_some() || global.config.is_some();
    let asked = if anew {
        Ok(None)
    } else {
        ask(global, options.probe, &setup)
    };
    let found = match asked {
        Ok(Some(found)) => Ok(found),
        Ok(None) => runtime().map(|runtime| runtime.block_on(decide(&setup, options.probe))),
        Err(code) => Err(code),
    };
    let (explanation, outcome) = match found {
        Ok(found) => found,
        Err(code) => return code,
    };
    let outside = &setup.outside;
    let form = form(options, &setup);
    print(&explain_text(
        &explanation,
        form,
        outside.clock.now(),
        &outside.files,
    ));
    match outcome {
        Ok(()) => exit::OK,
        Err(Refusal::NoIdentity) => exit::NO_IDENTITY,
        Err(Refusal::Probe(error)) => {
            say(&format!("no token: {}", plain(&error.message)));
            if let Some(hint) = &error.hint {
                say(&plain(hint));
            }
            exit::of(error.code)
        }
    }
}

/// Why the answer is no.
enum Refusal {
    /// The explanation says it.
    NoIdentity,
    /// The token that was asked for was refused.
    Probe(ProbeError),
}

/// What there is to say, and whether it is good.
type Found = (Explanation, Result<(), Refusal>);

/// Asks the agent that runs here; `None` where none does. An agent that cannot be asked is said, with the code to end with: what
/// another one would decide is no answer to what this one does.
fn ask(global: &GlobalOptions, probe: bool, setup: &Setup) -> Result<Option<Found>, i32> {
    let client = seek::impatient_client(global, AGENT_LIMIT);
    let mut explanation = match client.explain() {
        Ok(explanation) => explanation,
        Err(error) => {
            return match error.kind() {
                ErrorKind::AgentNotFound => Ok(None),
                ErrorKind::AgentGone => {
                    say(&plain(error.message()));
                    say("this is what one started here would decide");
                    Ok(None)
                }
                _ => {
                    let code = seek::report(&error);
                    say("`jobcred explain --anew` says what an agent started here would decide");
                    Err(code)
                }
            };
        }
    };
    // By which ways jobcred is passed by is a matter of the processes here; the agent may be a sidecar's.
    let outside = &setup.outside;
    let here = Facts::gather(&outside.environment, &outside.files);
    for notice in select(&here, &setup.config).explanation.notices {
        let is_known = |known: &Notice| known.code == notice.code;
        if is_bypass(&notice) && !explanation.notices.iter().any(is_known) {
            explanation.notices.push(notice);
        }
    }
    if explanation.strategy == "none" {
        return Ok(Some((explanation, Err(Refusal::NoIdentity))));
    }
    let outcome = if probe {
        let storage = Target::Resource(Cloud::storage().as_str().to_owned());
        match client.token(&TokenRequest::new(storage)) {
            Ok(token) => {
                look_at(token.access_token.expose(), &mut explanation, outside);
                Ok(())
            }
            Err(error) => Err(ProbeError {
                code: error.code(),
                message: error.message().to_owned(),
                hint: error.hint().map(str::to_owned),
                issuer_code: None,
            }),
        }
    } else {
        Ok(())
    };
    explanation.probe_error = outcome.as_ref().err().cloned();
    if outside.clock.fault().is_some() {
        tell_of_clock(&mut explanation, outside);
    }
    Ok(Some((explanation, outcome.map_err(Refusal::Probe))))
}

/// Whose the token is, and whether it is an old one.
fn look_at(token: &str, explanation: &mut Explanation, outside: &Outside) {
    let clock = &outside.clock;
    if let Some(issued) = jwt_issued(token) {
        clock.hear_issued(issued);
        let old = token_of_earlier(issued, clock.now());
        explanation.notices.extend(old);
    }
    explanation.principal = Some(
        Principal::from_token(token)
            .map(|principal| principal.to_wire())
            .unwrap_or_default(),
    );
}

/// Whether the clock is wrong, as it is known by now: a token may have told by how much.
fn tell_of_clock(explanation: &mut Explanation, outside: &Outside) {
    explanation
        .notices
        .retain(|notice| notice.code != reason::CLOCK_WRONG);
    let fault = outside.clock.fault();
    explanation.notices.extend(fault.map(clock_wrong));
}

async fn decide(setup: &Setup, probe: bool) -> Found {
    let Chosen {
        selection,
        transport,
        ..
    } = choose(&setup.config, &setup.outside, None).await;
    let mut explanation = selection.explanation.clone();
    let missing = transport.iter().flat_map(|it| it.missing_roots());
    explanation
        .notices
        .extend(missing.map(|missing| roots_not_found(&missing)));
    if selection.outcome.is_err() {
        return (explanation, Err(Refusal::NoIdentity));
    }
    if !probe {
        return (explanation, Ok(()));
    }
    let outcome = match (&selection.outcome, transport) {
        (Ok(choice), Some(transport)) => {
            let token = storage_token(setup, choice, &transport).await;
            token.and_then(|(identity, token)| {
                look_at(token.secret.expose(), &mut explanation, &setup.outside);
                // An application is promised by the configuration, and the pin holds its tokens to that.
                if identity == Identity::Job
                    && let Some(claims) = &explanation.principal
                {
                    explanation.notices.extend(promise_broken(choice, claims));
                }
                // What the agent would say to this token.
                Pin::new(choice, &setup.config.expect)
                    .check(&identity, None, &token)
                    .map(|_| ())
            })
        }
        _ => Ok(()),
    };
    tell_of_clock(&mut explanation, &setup.outside);
    let outcome = outcome.map_err(|error: TokenError| ProbeError {
        code: error.kind(),
        message: error.message().to_owned(),
        hint: error.hint().map(str::to_owned),
        issuer_code: error.issuer_code().map(str::to_owned),
    });
    explanation.probe_error = outcome.as_ref().err().cloned();
    (explanation, outcome.map_err(Refusal::Probe))
}

fn form(options: &ExplainOptions, setup: &Setup) -> Form {
    if options.json {
        return Form::Json;
    }
    if options.report {
        return Form::Report;
    }
    let asked = match options.color {
        ColorChoice::Auto => None,
        ColorChoice::Always => Some(true),
        ColorChoice::Never => Some(false),
    };
    let environment = &setup.outside.environment;
    Form::Text {
        width: width(environment, None),
        color: wants_color(asked, environment, std::io::stdout().is_terminal()),
    }
}
