//! `jobcred run`: what is said and decided before the supervisor takes over.

use std::ffi::OsString;
use std::path::PathBuf;

use jobcred_wire::SOCKET_VARIABLE;

use super::arguments::{GlobalOptions, RunOptions};
use super::setup::Setup;
use super::{announce, exit, place};
use crate::agent::{choose, choose_unasked};
use crate::front::election::Part;
use crate::platform::Environment;
use crate::strategy::{ProbeResult, Selection};
use crate::supervisor::{
    self, AgentPlan, ConfigText, Ending, Entry, Given, Plan, PostMortemPlan, PrefetchCodes,
    PrefetchPlan, Recipe, Record, say,
};

pub(super) fn run(options: &GlobalOptions, run: RunOptions, entry: Entry) -> Ending {
    let setup = match Setup::read(options) {
        Ok(setup) => setup,
        Err(report) => {
            say(&report);
            return Ending::Exited(exit::USAGE);
        }
    };
    let required = run.required || setup.config.required;
    let (selection, probe) = match decide(&setup, required) {
        Ok(decided) => decided,
        Err(reason) => {
            say(&reason);
            if required {
                say("COMMAND is not started, because an identity is required");
                return Ending::Exited(exit::NO_IDENTITY);
            }
            (None, None)
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
    let prefetches = !setup.config.resources.is_empty() && !setup.config.prefetch_timeout.is_zero();
    if let Some(Selection {
        outcome: Err(error),
        ..
    }) = &selection
        && prefetches
    {
        announce::refusal(error);
        say("COMMAND is not started, because its configuration declares `resources`");
        return Ending::Exited(exit::RESOURCE_REFUSED);
    }
    let environment = &setup.outside.environment;
    let place = place::for_run(&setup, place::mark(&setup).as_ref());
    let mut variables = supervisor::with_loopback(environment);
    let mut prefetch = None;
    let mut post_mortem = None;
    let agent = match place {
        Ok(place) => {
            let path = place.seat.path().display().to_string();
            let shares = matches!(place.seat.part, Part::Sharer(_));
            match &selection {
                // Who and how long is said by the run that started the agent.
                Some(selection) => announce::start(selection, run.quiet || shares),
                None if shares => {}
                None if run.quiet => {}
                // Said at once, because COMMAND may end before there is an answer.
                None => {
                    say(
                        "nothing in the environment names an identity; asking the metadata service",
                    );
                }
            }
            if shares && !run.quiet {
                say(&format!("shares the agent at {path}"));
            }
            if let (Some(reason), false) = (&place.aside, run.quiet) {
                say(&format!("{reason}: this run has its own agent at {path}"));
            }
            variables.push((SOCKET_VARIABLE.to_owned(), path.clone()));
            let socket = place.seat.path().to_owned();
            prefetch = prefetches.then(|| PrefetchPlan {
                socket: socket.clone(),
                limit: setup.config.prefetch_timeout,
                required,
                codes: PrefetchCodes {
                    refused: exit::RESOURCE_REFUSED,
                    grant_ended: exit::GRANT_ENDED,
                    timed_out: exit::TIMED_OUT,
                },
            });
            post_mortem = Some(PostMortemPlan {
                socket,
                when: setup.config.post_mortem,
                quiet: run.quiet,
            });
            let given = Given {
                file: setup.file.clone(),
                probe,
            };
            // Without it each agent reads the configuration for itself, as it is then.
            let record = Record::create(&given).ok();
            let announce = selection.is_none().then_some(run.quiet);
            Some(AgentPlan {
                seat: place.seat,
                recipe: Recipe {
                    arguments: agent_arguments(options, setup.file.as_ref(), announce, &path),
                    variables: absolute_variables(environment),
                    record,
                },
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
        prefetch,
        post_mortem,
    };
    supervisor::run(plan, entry, environment.get("PATH"))
}

/// A selection, and the probe's result where one was made for it.
type Decided = (Option<Selection>, Option<ProbeResult>);

/// The selection; `None` when it hangs on the probe of the metadata service, which COMMAND must not wait for: the agent makes it.
fn decide(setup: &Setup, required: bool) -> Result<Decided, String> {
    if let Some(chosen) = choose_unasked(&setup.config, &setup.outside) {
        return Ok((Some(chosen.selection), None));
    }
    if !required {
        return Ok((None, None));
    }
    // Who requires an identity wants to wait for the answer. The runtime is gone before any process is started.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot ask the metadata service: {error}"))?;
    let chosen = runtime.block_on(choose(&setup.config, &setup.outside, None));
    Ok((Some(chosen.selection), chosen.probe))
}

/// The agent gets the configuration and the socket as open descriptors. Where only the probe can
/// tell who the job is, it is the agent that says so: `announce` is whether it shall keep to what went wrong.
fn agent_arguments(
    options: &GlobalOptions,
    file: Option<&ConfigText>,
    announce: Option<bool>,
    place: &str,
) -> Vec<OsString> {
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
    add("--place", Some(place.into()));
    add("--announce", what.map(Into::into));
    // The agent is started from another directory.
    add("--directory", std::path::absolute(".").ok().map(Into::into));
    // Read only where there is no record. The agent is started from another directory.
    let path = file.and_then(|file| std::path::absolute(&file.name).ok());
    add("--config", path.map(Into::into));
    add("--log", options.log.clone().map(Into::into));
    add("--strategy", options.strategy.clone().map(Into::into));
    if options.sandbox {
        arguments.push("--sandbox".into());
    }
    arguments
}

/// The variables whose relative paths would mean something else to the agent, which is started from another directory.
fn absolute_variables(environment: &Environment) -> Vec<(String, OsString)> {
    // Those that the TLS library reads by itself: a file, and a list of directories.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let file = environment.get("SSL_CERT_FILE").map(PathBuf::from);
    let directories = environment.get("SSL_CERT_DIR").and_then(|list| {
        let paths = std::env::split_paths(list).map(absolute);
        std::env::join_paths(paths).ok()
    });
    [
        ("SSL_CERT_FILE", file.map(|file| absolute(file).into())),
        ("SSL_CERT_DIR", directories),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::absolute_variables;
    use crate::platform::Environment;

    #[test]
    fn relative_paths_of_roots_mean_the_same_to_the_agent() {
        let here = std::env::current_dir().unwrap().display().to_string();
        let environment = Environment::from([
            ("SSL_CERT_FILE", "a:b.pem"),
            ("SSL_CERT_DIR", "/certs:more"),
        ]);
        let variables = absolute_variables(&environment);
        assert_eq!(
            variables,
            [
                ("SSL_CERT_FILE".to_owned(), format!("{here}/a:b.pem").into()),
                (
                    "SSL_CERT_DIR".to_owned(),
                    format!("/certs:{here}/more").into()
                ),
            ]
        );
        assert!(absolute_variables(&Environment::default()).is_empty());
    }
}
