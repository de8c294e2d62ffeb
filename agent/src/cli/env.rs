//! `jobcred env`: lines for a shell's `eval`.

use std::collections::BTreeMap;
use std::time::Duration;

use jobcred_wire::{AGENT_UID_VARIABLE, ENDPOINT_PATH, SOCKET_VARIABLE};
use serde::Deserialize;

use super::arguments::{EnvOptions, GlobalOptions};
use super::{exit, output, seek};
use crate::config::Dialect;
use crate::front::dialect::names_of;
use crate::front::socket::is_answered;
use crate::platform::Environment;
use crate::strategy::{OWN_ENDPOINTS_VARIABLE, keep_platform, platform_environment};
use crate::supervisor::{say, with_loopback};

/// How long the agent may take to say what it holds ready. A shell wants to start.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a tool, which is no use without.
const PATIENCE_FOR_A_TOOL: Duration = Duration::from_secs(30);
/// Between two looks for an endpoint that is on its way.
const PAUSE: Duration = Duration::from_millis(20);

/// What an agent says of its identity endpoint.
#[derive(Debug, Default, Deserialize)]
struct Shown {
    /// What leads SDKs there, in all dialects that it can answer in; nothing where there is none.
    variables: BTreeMap<String, String>,
}

pub(super) fn env(global: &GlobalOptions, options: &EnvOptions) -> i32 {
    let environment = Environment::of_process();
    let places = seek::places(global, &environment);
    let Some(path) = places.iter().find(|path| is_answered(path)) else {
        let looked: Vec<String> = places
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        say(&format!(
            "no agent answers; looked at {}; start one around the command: jobcred run -- COMMAND",
            looked.join(", ")
        ));
        return exit::NO_AGENT;
    };
    let patience = options.tool.map_or(PATIENCE, |_| PATIENCE_FOR_A_TOOL);
    let endpoint = endpoint_in_time(global, &environment, patience);
    if let Some(tool) = options.tool {
        if endpoint.is_empty() {
            say(
                "the agent has no identity endpoint for tools: `jobcred run` opens one where that takes nothing away from COMMAND, or with --exclusive or `dialects`; a sidecar with `endpoint_port`",
            );
            return exit::REFUSED;
        }
        for line in tool.why() {
            output::print(&format!("# {line}\n"));
        }
        for (name, value) in tool.variables() {
            print_variable(name, value);
        }
        let address = endpoint
            .iter()
            .find(|(name, _)| name == "IDENTITY_ENDPOINT");
        if let (Some(name), Some((_, address))) = (tool.name_of_endpoint(), address) {
            print_variable(name, address);
        }
    }
    print_variable(SOCKET_VARIABLE, &path.display().to_string());
    // Whoever needs it to trust the agent here needs it there.
    if let Some(uid) = environment.get(AGENT_UID_VARIABLE) {
        print_variable(AGENT_UID_VARIABLE, uid);
    }
    for (name, value) in &endpoint {
        print_variable(name, value);
    }
    if !endpoint.is_empty() {
        for (name, value) in with_loopback(&environment) {
            print_variable(&name, &value);
        }
    }
    exit::OK
}

/// The same, waited for where this environment is that of a `run` which has one: its offer may still be on the way to the agent.
fn endpoint_in_time(
    global: &GlobalOptions,
    environment: &Environment,
    patience: Duration,
) -> Vec<(String, String)> {
    let comes = environment.get(OWN_ENDPOINTS_VARIABLE).is_some();
    let mut looks = patience.as_millis() / PAUSE.as_millis();
    // An agent that is silent is waited for once.
    loop {
        let found = endpoint(global, environment, patience);
        let Some(found) = found else {
            return Vec::new();
        };
        if !found.is_empty() || !comes || looks == 0 {
            return found;
        }
        looks -= 1;
        std::thread::sleep(PAUSE);
    }
}

/// The variables of the agent's endpoint in the form that SDKs look at first; none where there is no endpoint, or not for us.
fn endpoint(
    global: &GlobalOptions,
    environment: &Environment,
    patience: Duration,
) -> Option<Vec<(String, String)>> {
    let text = seek::impatient_client(global, patience)
        .get(ENDPOINT_PATH)
        .ok()?;
    let shown: Shown = serde_json::from_str(&text).unwrap_or_default();
    let own: Vec<_> = names_of(Dialect::AppService)
        .iter()
        .filter_map(|name| Some((*name, shown.variables.get(*name)?.clone())))
        .collect();
    if own.is_empty() {
        return Some(Vec::new());
    }
    let mut all = keep_platform(&own, &platform_environment(environment));
    all.extend(
        own.into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    Some(all)
}

fn print_variable(name: &str, value: &str) {
    output::print(&format!("export {name}={}\n", quote(value)));
}

/// `value` as one word of a POSIX shell, whatever is in it.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quoted_values_are_one_word_to_a_shell() {
        for value in ["/tmp/a b", "it's", "$(reboot)", "`x`", "a\nb", "\\"] {
            let output = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quote(value)))
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
