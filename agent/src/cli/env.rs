//! `jobcred env`: lines for a shell's `eval`.

use jobcred_wire::{AGENT_UID_VARIABLE, SOCKET_VARIABLE};

use super::arguments::GlobalOptions;
use super::{exit, output, seek};
use crate::front::socket::is_answered;
use crate::platform::Environment;
use crate::supervisor::{say, with_loopback};

pub(super) fn env(global: &GlobalOptions) -> i32 {
    let environment = Environment::of_process();
    let places = seek::places(global, &environment);
    let Some(path) = places.iter().find(|path| is_answered(path)) else {
        let looked: Vec<String> = places
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        say(&format!(
            "no agent answers; looked at {}",
            looked.join(", ")
        ));
        return exit::NO_AGENT;
    };
    let mut variables = vec![(SOCKET_VARIABLE.to_owned(), path.display().to_string())];
    // Whoever needs it to trust the agent here needs it there.
    if let Some(uid) = environment.get(AGENT_UID_VARIABLE) {
        variables.push((AGENT_UID_VARIABLE.to_owned(), uid.to_owned()));
    }
    variables.extend(with_loopback(&environment));
    for (name, value) in &variables {
        output::print(&format!("export {name}={}\n", quote(value)));
    }
    exit::OK
}

/// `value` as one word of a POSIX shell, whatever is in it.
fn quote(value: &str) -> String {
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
