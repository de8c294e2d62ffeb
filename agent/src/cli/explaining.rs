//! `jobcred explain`: gets the explanation; `explain` turns it into text.

use std::io::IsTerminal as _;
use std::time::Duration;

use jobcred_wire::{Explanation, PrincipalClaims};

use super::arguments::{ColorChoice, ExplainOptions, GlobalOptions};
use super::exit;
use super::explain::{Form, explain_text, wants_color, width};
use super::output::{plain, print};
use super::setup::Setup;
use crate::agent::{Agent, choose};
use crate::broker::Want;
use crate::config::Config;
use crate::error::TokenError;
use crate::principal::Principal;
use crate::resource::Cloud;
use crate::supervisor::say;

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
    let (explanation, outcome) = match runtime.block_on(decide(&setup, options.probe)) {
        Ok(decided) => decided,
        Err(reason) => {
            say(&reason);
            return exit::INTERNAL;
        }
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
            say(&format!("no token: {}", plain(error.message())));
            if let Some(hint) = error.hint() {
                say(&plain(hint));
            }
            exit::REFUSED
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

async fn decide(setup: &Setup, probe: bool) -> Result<(Explanation, Result<(), Refusal>), String> {
    let (selection, transport) = choose(&setup.config, &setup.outside)
        .await
        .map_err(|error| error.to_string())?;
    let mut explanation = selection.explanation.clone();
    if selection.outcome.is_err() {
        return Ok((explanation, Err(Refusal::NoIdentity)));
    }
    if !probe {
        return Ok((explanation, Ok(())));
    }
    // Only storage: what the configuration declares is the agent's to fetch.
    let config = Config {
        resources: Vec::new(),
        ..setup.config.clone()
    };
    let agent = Agent::assemble(&config, &setup.outside, selection, &transport);
    let outcome = match whose(&agent).await {
        Ok(claims) => {
            explanation.principal = Some(claims);
            Ok(())
        }
        Err(error) => Err(Refusal::Probe(error)),
    };
    Ok((explanation, outcome))
}

/// Gets a storage token as the agent would, with all of its checks, and says whose it is.
async fn whose(agent: &Agent) -> Result<PrincipalClaims, TokenError> {
    let service = agent.api().service.as_ref().map_err(Clone::clone)?;
    let granted = service.policy.authorize_own(Cloud::storage());
    let want = Want {
        min_validity: Duration::ZERO,
        claims: None,
    };
    let held = service.broker.get(granted.key(), want).await?;
    Ok(Principal::from_token(held.token.secret.expose())
        .map(|principal| principal.to_wire())
        .unwrap_or_default())
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
