//! What to say of a COMMAND that is not found and is written for a shell. `run` starts a program, as `env` and `nohup` do.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The most of a COMMAND that a message repeats, in characters.
const MAX_SHOWN: usize = 200;
/// What every shell does by itself.
const BUILT_IN: [&str; 22] = [
    ".", ":", "alias", "case", "cd", "command", "eval", "exec", "export", "for", "if", "read",
    "set", "trap", "ulimit", "umask", "unalias", "unset", "until", "wait", "while", "{",
];
/// The same where `sh` may not know it.
const OF_BASH: [&str; 8] = [
    "[[", "declare", "popd", "pushd", "shopt", "source", "time", "typeset",
];
/// Arguments that were meant for a shell.
const OPERATORS: [&str; 14] = [
    "|", "||", "|&", "&", "&&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>", ">&2",
];

/// COMMAND's name as a message shows it: on one line, not too long, and without the value of an assignment, which may be a secret.
pub(super) fn shown(program: &OsStr) -> String {
    visible(&program.to_string_lossy()).0
}

/// How to write it, where it is for a shell.
pub(super) fn hint(program: &OsStr, arguments: &[OsString]) -> Option<String> {
    let text = program.to_string_lossy();
    if text.contains('/') && Path::new(program).exists() {
        // What is missing is its interpreter.
        return None;
    }
    let first = text.split_whitespace().next()?;
    if first.contains('/') && !Path::new(first).exists() && !first.starts_with(['~', '$']) {
        // A path that is not there, which may have blanks in it.
        return None;
    }
    let has_operator = arguments
        .iter()
        .any(|argument| OPERATORS.iter().any(|operator| argument == operator));
    let is_line = text.contains(char::is_whitespace);
    if let Some(name) = assigned(&text)
        && !has_operator
        && !(is_line && arguments.is_empty())
    {
        return Some(format!(
            "Only a shell takes an assignment before COMMAND. Write: jobcred run -- env {name}=...{}",
            after_assignment(arguments)
        ));
    }
    let what = if is_line || text.contains([';', '|', '&', '<', '>', '`']) {
        "COMMAND is a line for a shell, and jobcred does not start one"
    } else if BUILT_IN.contains(&first) || OF_BASH.contains(&first) {
        "It is a builtin of a shell, and jobcred does not start one"
    } else if text.starts_with('~') || text.contains('$') {
        "Only a shell expands ~ and $, and jobcred does not start one"
    } else if has_operator {
        "Its arguments are for a shell, and jobcred does not start one"
    } else {
        return None;
    };
    let shell = if OF_BASH.contains(&first) {
        "bash"
    } else {
        "sh"
    };
    let line = match visible(&text) {
        (line, true) if arguments.is_empty() && !line.contains('\'') => line,
        _ => "...".to_owned(),
    };
    Some(format!("{what}. Write: jobcred run -- {shell} -c '{line}'"))
}

/// The name of the variable that a word assigns to.
fn assigned(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let mut bytes = name.bytes();
    let begins = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    (begins && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')).then_some(name)
}

/// The words that follow a first assignment: further ones without their values, and the program's name.
fn after_assignment(arguments: &[OsString]) -> String {
    let mut out = String::new();
    for (place, argument) in arguments.iter().enumerate() {
        let text = argument.to_string_lossy();
        let Some(name) = assigned(&text) else {
            let is_plain = text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-+/".contains(&byte));
            let is_last = place + 1 == arguments.len();
            if is_plain && text.len() <= MAX_SHOWN {
                out.push(' ');
                out.push_str(&text);
            }
            if !is_plain || !is_last {
                out.push_str(" ...");
            }
            break;
        };
        out.push(' ');
        out.push_str(name);
        out.push_str("=...");
    }
    out
}

/// A text as far as it may be shown, and whether that is all of it.
fn visible(text: &str) -> (String, bool) {
    let mut out: String = text
        .chars()
        .take(MAX_SHOWN)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    let words = || text.split_whitespace();
    if let Some(name) = words().find_map(assigned)
        && let Some(at) = out.find(&format!("{name}="))
    {
        out.truncate(at + name.len() + 1);
    }
    // An option may have a key for its value, in the same word or the next.
    if words().any(|word| word.starts_with('-'))
        && let Some(at) = out.find(" -")
    {
        out.truncate(at + 1);
    }
    let is_whole = out == text;
    if !is_whole {
        out.push_str("...");
    }
    (out, is_whole)
}

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};

    use super::{hint, shown};

    fn of(words: &[&str]) -> String {
        let arguments: Vec<OsString> = words[1..].iter().map(OsString::from).collect();
        hint(OsStr::new(words[0]), &arguments).unwrap_or_default()
    }

    #[test]
    fn u10_a_line_for_a_shell_is_told_with_the_shell_that_takes_it() {
        for (words, command) in [
            (&["python x.py"][..], "sh -c 'python x.py'"),
            (&["python x.py && ls"], "sh -c 'python x.py && ls'"),
            (&["python x.py", "--epochs", "3"], "sh -c '...'"),
            (&["python 'a b.py'"], "sh -c '...'"),
            (&["python\nx.py"], "sh -c '...'"),
            (&["cd"], "sh -c 'cd'"),
            (&["cd", "/data", "&&", "python", "x.py"], "sh -c '...'"),
            (&["source", "env.sh"], "bash -c '...'"),
            (
                &["source env.sh; python x.py"],
                "bash -c 'source env.sh; python x.py'",
            ),
            (&["~/x", "1"], "sh -c '...'"),
            (&["$HOME/x"], "sh -c '$HOME/x'"),
            (&["pyhton", "x.py", "|", "tee", "log"], "sh -c '...'"),
            (&["FOO=1 python x.py"], "sh -c '...'"),
            (&["FOO=1", "python", "x.py", "&&", "ls"], "sh -c '...'"),
        ] {
            let said = of(words);
            assert!(
                said.ends_with(&format!(". Write: jobcred run -- {command}")),
                "{words:?}: {said}"
            );
        }
        for words in [
            &["pyhton"][..],
            &["pyhton", "x.py"],
            &["/not/there"],
            &["./x", "a b", "a;b"],
            &["/data/my project/run"],
            &[""],
        ] {
            assert_eq!(of(words), "", "{words:?}");
        }
    }

    #[test]
    fn u32_an_assignment_is_told_with_env_and_without_its_value() {
        for (words, command) in [
            (&["FOO=1", "python"][..], "env FOO=... python"),
            (&["FOO=1", "python", "x.py"], "env FOO=... python ..."),
            (
                &["FOO=a b", "_B2=secret", "/opt/x-1", "y"],
                "env FOO=... _B2=... /opt/x-1 ...",
            ),
            (&["FOO=", "python x.py"], "env FOO=... ..."),
            (&["FOO=1"], "env FOO=..."),
        ] {
            let said = of(words);
            assert!(
                said.ends_with(&format!("Write: jobcred run -- {command}")),
                "{words:?}: {said}"
            );
        }
        assert_eq!(of(&["./a=b", "x"]), "");
        assert_eq!(of(&["2x=1", "x"]), "");
    }

    #[test]
    fn what_is_shown_has_one_line_and_no_value() {
        let show = |text: &str| shown(OsStr::new(text));
        assert_eq!(show("python x.py"), "python x.py");
        assert_eq!(show("/data/my project/run"), "/data/my project/run");
        assert_eq!(show("python x.py --key secret"), "python x.py ...");
        assert_eq!(show("TOKEN=secret"), "TOKEN=...");
        assert_eq!(show("export TOKEN=secret; python"), "export TOKEN=...");
        assert_eq!(show("a\nb"), "a b...");
        assert_eq!(show(&"x".repeat(1000)).len(), 203);
    }
}
