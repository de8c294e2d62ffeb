//! `jobcred run`: what is said and decided before the supervisor takes over.

use std::path::Path;
use std::time::Duration;

use jobcred_wire::SOCKET_VARIABLE;

use super::arguments::{GlobalOptions, RunOptions};
use super::place::Place;
use super::recipe::recipe;
use super::setup::Setup;
use super::{announce, exit, place, stand_in};
use crate::agent::{choose, choose_unasked};
use crate::config::{Config, DISABLED_VARIABLE, parse_boolean};
use crate::front::election::Part;
use crate::platform::Environment;
use crate::strategy::{ProbeResult, Selection};
use crate::supervisor::{
    self, AgentPlan, Ending, Entry, Plan, PostMortemPlan, PrefetchPlan, Wanted, say,
};

/// How long an agent that is required may take to answer for the first time.
const AGENT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run(options: &GlobalOptions, run: RunOptions, entry: Entry) -> Ending {
    supervisor::guard_words();
    let environment = Environment::of_process();
    if is_disabled(&environment) {
        // Before anything is read: whatever is wrong with it must not matter.
        return supervisor::run_alone(&run.command, &entry, environment.get("PATH"));
    }
    let mut setup = match Setup::read(options) {
        Ok(setup) => setup,
        Err(report) => {
            say(&report);
            return Ending::Exited(exit::USAGE);
        }
    };
    if !run.quiet {
        setup.say_ignored();
    }
    setup.config.exclusive |= run.exclusive;
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
    {
        if required {
            announce::refusal(error);
            say("COMMAND is not started, because an identity is required");
            return Ending::Exited(exit::NO_IDENTITY);
        }
        if !error.is_own_fault() && holds(&setup.config) {
            announce::refusal(error);
            say("COMMAND is not started, because its configuration declares `resources`");
            return Ending::Exited(exit::RESOURCE_REFUSED);
        }
    }
    let environment = &setup.outside.environment;
    let place = place::for_run(&setup, place::mark(&setup).as_ref());
    let mut variables = Vec::new();
    let mut prefetch = None;
    let mut post_mortem = None;
    let agent = match place {
        Ok(place) => {
            let path = place.seat.path().display().to_string();
            let shares = matches!(place.seat.part, Part::Sharer(_));
            introduce(selection.as_ref(), &place, shares, run.quiet);
            variables.push((SOCKET_VARIABLE.to_owned(), path));
            let socket = place.seat.path();
            prefetch = prefetch_plan(&setup.config, selection.as_ref(), socket, required);
            post_mortem = Some(PostMortemPlan {
                socket: place.seat.path().to_owned(),
                when: setup.config.post_mortem,
                quiet: run.quiet,
            });
            let own = ["--supervised".into(), std::process::id().to_string().into()];
            let announce = selection.is_none().then_some(run.quiet);
            let recipe = recipe(options, &setup, place.seat.path(), own, announce, probe);
            let endpoint = stand_in::open(
                &setup,
                selection.as_ref(),
                run.quiet || shares,
                &mut variables,
            );
            Some(AgentPlan {
                seat: place.seat,
                recipe,
                endpoint,
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
        required: required.then_some(exit::NO_SOCKET),
        variables: variables.into_iter().collect(),
        agent,
        prefetch,
        post_mortem,
    };
    supervisor::run(plan, entry, environment.get("PATH"))
}

/// Whether jobcred is switched off. An unknown value counts as true: the variable is set for COMMAND to run alone.
fn is_disabled(environment: &Environment) -> bool {
    let value = environment.get(DISABLED_VARIABLE).unwrap_or_default();
    let value = value.trim();
    if value.is_empty() {
        return false;
    }
    parse_boolean(value).unwrap_or_else(|| {
        say(&format!(
            "{DISABLED_VARIABLE} is neither true nor false. It counts as true, so COMMAND runs without jobcred."
        ));
        true
    })
}

/// Says who the job is, and which agent serves it.
fn introduce(selection: Option<&Selection>, place: &Place, shares: bool, quiet: bool) {
    match selection {
        // Who and how long is said by the run that started the agent.
        // A command that is held ends before this where nothing was decided for it.
        Some(selection) => announce::start(selection, quiet || shares, false),
        None if shares || quiet => {}
        // Said at once, because COMMAND may end before there is an answer.
        None => say("nothing in the environment names an identity; asking the metadata service"),
    }
    if quiet {
        return;
    }
    let path = place.seat.path().display();
    if shares {
        say(&format!("shares the agent at {path}"));
    }
    if let Some(reason) = &place.aside {
        say(&format!("{reason}: this run has its own agent at {path}"));
    }
}

/// Whether COMMAND is held back for anything.
pub(super) fn holds(config: &Config) -> bool {
    !config.resources.is_empty() && !config.prefetch_timeout.is_zero()
}

fn prefetch_plan(
    config: &Config,
    selection: Option<&Selection>,
    socket: &Path,
    required: bool,
) -> Option<PrefetchPlan> {
    if selection.is_some_and(|it| it.outcome.is_err()) {
        // No token can come, so COMMAND does not wait for one.
        return None;
    }
    let socket = socket.to_owned();
    if holds(config) {
        return Some(PrefetchPlan {
            wanted: Wanted::Resources,
            socket,
            limit: config.prefetch_timeout,
            required,
            code_of: exit::of_readiness,
        });
    }
    required.then_some(PrefetchPlan {
        wanted: Wanted::Agent,
        socket,
        limit: AGENT_TIMEOUT,
        required,
        code_of: |_| exit::NO_SOCKET,
    })
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

#[cfg(test)]
mod tests {
    use super::decide;
    use crate::agent::Outside;
    use crate::cli::setup::Setup;
    use crate::config::Config;
    use crate::journal::Journal;
    use crate::platform::{Clock, Environment, Files};
    use crate::strategy::reason;

    #[test]
    fn c2_roots_are_not_looked_at_before_the_command_starts() {
        let setup = Setup {
            config: Config::default(),
            outside: Outside {
                environment: Environment::from([
                    ("MSI_ENDPOINT", "http://127.0.0.1:9/"),
                    ("MSI_SECRET", "a secret of some length"),
                    ("SSL_CERT_FILE", "/no/such/file.pem"),
                    ("SSL_CERT_DIR", "/no/such/directory"),
                ]),
                files: Files::system(),
                clock: Clock::system(),
                own_uid: 0,
                restarts: 0,
                journal: Journal::default(),
            },
            file: None,
        };
        let (selection, _) = decide(&setup, false).unwrap();
        let notices = selection.unwrap().explanation.notices;
        // Where a file system hangs, only `explain` may hang with it.
        assert!(
            notices
                .iter()
                .all(|notice| notice.code != reason::ROOTS_NOT_FOUND),
            "{notices:?}"
        );
    }
}
