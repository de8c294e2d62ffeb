//! `jobcred explain`: gets the explanation; `explain` turns it into text.

use std::io::IsTerminal as _;
use std::sync::Arc;

use jobcred_wire::{ErrorCode, Explanation};

use super::arguments::{ColorChoice, ExplainOptions, GlobalOptions};
use super::exit;
use super::explain::{Form, explain_text, wants_color, width};
use super::output::{plain, print};
use super::setup::Setup;
use crate::agent::{Chosen, choose, reach};
use crate::config::Application;
use crate::error::TokenError;
use crate::policy::Policy;
use crate::principal::{Pin, Principal};
use crate::resource::Cloud;
use crate::source::{self, Federated, SourceRequest};
use crate::strategy::{Choice, federation_issuer, promise_broken};
use crate::supervisor::say;
use crate::token::{AccessToken, Identity};
use crate::transport::Transport;

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
                explanation.principal = Some(claims);
                // What the agent would say to this token.
                Pin::new(choice, &setup.config.expect)
                    .check(&identity, None, &token)
                    .map(|_| ())
            })
        }
        _ => Ok(()),
    };
    (explanation, outcome.map_err(Refusal::Probe))
}

/// Asks the chosen source itself, past the pin: whose token it is shall be seen above all when it is the wrong one's. It goes no
/// further than this process.
async fn storage_token(
    setup: &Setup,
    choice: &Choice,
    transport: &Arc<Transport>,
) -> Result<(Identity, AccessToken), TokenError> {
    let outside = reach(&setup.config, &setup.outside, transport);
    let source = source::build(choice, &outside)
        .map_err(|error| TokenError::new(ErrorCode::Denied, error.message).with_hint(error.hint))?;
    let own = |resource| SourceRequest {
        identity: Identity::Job,
        resource,
        tenant: None,
        claims: None,
    };
    let asked = Policy::new(choice, &setup.config).authorize_own(Cloud::storage());
    let identity = asked.key().identity().clone();
    let token = if let Identity::Application {
        client_id,
        tenant_id,
    } = &identity
    {
        let issuer = federation_issuer(&setup.outside.environment, &setup.config)
            .map_err(|error| TokenError::new(ErrorCode::Denied, error.to_string()))?;
        let application = Application {
            client_id,
            tenant_id,
        };
        let assertion = source
            .fetch(&own(setup.config.cloud.token_exchange()))
            .await?;
        Federated::new(issuer, &outside)
            .fetch(application, &assertion, &Cloud::storage(), None)
            .await?
    } else {
        source.fetch(&own(Cloud::storage())).await?
    };
    Ok((identity, token))
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
