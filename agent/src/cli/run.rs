//! `jobcred run`: what is said and decided before the supervisor takes over.

use std::ffi::OsString;

use jobcred_wire::SOCKET_VARIABLE;

use super::arguments::{GlobalOptions, RunOptions};
use super::setup::Setup;
use super::{announce, exit, place};
use crate::agent::choose;
use crate::strategy::{Facts, Selection, Strategy, select, wants_probe};
use crate::supervisor::{self, AgentPlan, Ending, Entry, Plan, say};

pub(super) fn run(options: &GlobalOptions, run: RunOptions, entry: Entry) -> Ending {
    let setup = match Setup::read(options) {
        Ok(setup) => setup,
        Err(report) => {
            say(&report);
            return Ending::Exited(exit::USAGE);
        }
    };
    let required = run.required || setup.config.required;
    let selection = match decide(&setup, required) {
        Ok(selection) => selection,
        Err(reason) => {
            say(&reason);
            if required {
                say("COMMAND is not started, because an identity is required");
                return Ending::Exited(exit::NO_IDENTITY);
            }
            None
        }
    };
    if let Some(Selection {
        outcome: Err(error),
        ..
    }) = &selection
        && required
    {
        announce::refusal(error);
        say("COMMAND is not started, because an identity is required");
        return Ending::Exited(exit::NO_IDENTITY);
    }
    let sandbox = setup.config.strategy == Some(Strategy::Sandbox);
    let environment = &setup.outside.environment;
    let bound = place::bind_for_run(&setup.config, environment, setup.outside.own_uid, sandbox);
    let mut variables = supervisor::with_loopback(environment);
    let agent = match bound {
        Ok(place) => {
            let path = place.socket.path().display().to_string();
            if let Some(selection) = &selection {
                announce::start(selection, run.quiet);
            }
            if let (Some(reason), false) = (&place.aside, run.quiet) {
                say(&format!("{reason}: this run has its own agent at {path}"));
            }
            variables.push((SOCKET_VARIABLE.to_owned(), path));
            Some(AgentPlan {
                socket: place.socket,
                arguments: agent_arguments(options, selection.is_none().then_some(run.quiet)),
            })
        }
        Err(error) => {
            say(&error.to_string());
            if required {
                say("COMMAND is not started, because an agent is required");
                return Ending::Exited(exit::NO_SOCKET);
            }
            say("COMMAND runs all the same, without an agent");
            None
        }
    };
    let plan = Plan {
        command: run.command,
        variables,
        agent,
    };
    supervisor::run(plan, entry, environment.get("PATH"))
}

/// The selection; `None` when it hangs on the probe of the metadata service, which COMMAND must not wait for: the agent makes it.
fn decide(setup: &Setup, required: bool) -> Result<Option<Selection>, String> {
    let facts = Facts::gather(&setup.outside.environment, &setup.outside.files);
    if !wants_probe(&facts, &setup.config) {
        return Ok(Some(select(&facts, &setup.config)));
    }
    if !required {
        return Ok(None);
    }
    // Who requires an identity wants to wait for the answer. The runtime is gone before any process is started.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot ask the metadata service: {error}"))?;
    let selection = runtime.block_on(choose(&setup.config, &setup.outside)).0;
    Ok(Some(selection))
}

/// The agent reads the same configuration; only the socket is given to it as an open descriptor. Where only the probe can
/// tell who the job is, it is the agent that says so: `announce` is whether it shall keep to what went wrong.
fn agent_arguments(options: &GlobalOptions, announce: Option<bool>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "agent".into(),
        "--supervised".into(),
        std::process::id().to_string().into(),
    ];
    let mut add = |flag: &str, value: Option<OsString>| {
        if let Some(value) = value {
            arguments.extend([OsString::from(flag), value]);
        }
    };
    let what = announce.map(|quiet| if quiet { "errors" } else { "all" });
    add("--announce", what.map(Into::into));
    add("--config", options.config.clone().map(Into::into));
    add("--log", options.log.clone().map(Into::into));
    add("--strategy", options.strategy.clone().map(Into::into));
    if options.sandbox {
        arguments.push("--sandbox".into());
    }
    arguments
}
