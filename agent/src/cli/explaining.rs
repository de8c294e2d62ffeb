//! `jobcred explain`: gets the explanation; `explain` turns it into text.

use std::io::IsTerminal as _;

use jobcred_wire::{Explanation, ProbeError};

use super::arguments::{ColorChoice, ExplainOptions, GlobalOptions};
use super::exit;
use super::explain::{Form, explain_text, wants_color, width};
use super::output::{plain, print};
use super::probe::storage_token;
use super::setup::Setup;
use crate::agent::{Chosen, choose};
use crate::error::TokenError;
use crate::principal::{Pin, Principal, jwt_issued};
use crate::strategy::{clock_wrong, promise_broken, reason, token_of_earlier};
use crate::supervisor::say;
use crate::token::Identity;

/// Decides as an agent started here and now would, and says so.
pub(super) fn explain(global: &GlobalOptions, options: &ExplainOptions) -> i32 {
    let setup = match Setup::read(global) {
        Ok(setup) => setup,
        Err(report) => {
            say(&report);
            return exit::USAGE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("cannot start: {error}"));
            return exit::INTERNAL;
        }
    };
    let (explanation, outcome) = runtime.block_on(decide(&setup, options.probe));
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
            say(&format!("no token: {}", plain(error.message())));
            if let Some(hint) = error.hint() {
                say(&plain(hint));
            }
            exit::of(error.kind())
        }
    }
}

/// Why the answer is no.
enum Refusal {
    /// The explanation says it.
    NoIdentity,
    /// The token that was asked for was refused.
    Probe(TokenError),
}

async fn decide(setup: &Setup, probe: bool) -> (Explanation, Result<(), Refusal>) {
    let Chosen {
        selection,
        transport,
        ..
    } = choose(&setup.config, &setup.outside, None).await;
    let mut explanation = selection.explanation.clone();
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
                let claims = Principal::from_token(token.secret.expose())
                    .map(|principal| principal.to_wire())
                    .unwrap_or_default();
                // An application is promised by the configuration, and the pin holds its tokens to that.
                if identity == Identity::Job {
                    explanation.notices.extend(promise_broken(choice, &claims));
                }
                let clock = &setup.outside.clock;
                if let Some(issued) = jwt_issued(token.secret.expose()) {
                    clock.hear_issued(issued);
                    let old = token_of_earlier(issued, clock.now());
                    explanation.notices.extend(old);
                }
                explanation.principal = Some(claims);
                // What the agent would say to this token.
                Pin::new(choice, &setup.config.expect)
                    .check(&identity, None, &token)
                    .map(|_| ())
            })
        }
        _ => Ok(()),
    };
    // The answer may have told by how much.
    explanation
        .notices
        .retain(|notice| notice.code != reason::CLOCK_WRONG);
    let fault = setup.outside.clock.fault();
    explanation.notices.extend(fault.map(clock_wrong));
    if let Err(error) = &outcome {
        explanation.probe_error = Some(ProbeError {
            code: error.kind(),
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
            issuer_code: error.issuer_code().map(str::to_owned),
        });
    }
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
