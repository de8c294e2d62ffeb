//! `NO_PROXY` for COMMAND: its requests to our endpoint on loopback must not go through a proxy.
//!
//! These variables are input for parsers that are not ours. The rules here are what all of them can read:
//! - Not `::1`: the endpoint listens on 127.0.0.1 only, and one parser (rslex in mltable and azureml-fsspec) panics at it.
//! - Not where COMMAND has no endpoint of ours.
//! - An entry counts as present only between commas, because Go and Python do not split at blanks.
//! - `*` exempts every host only if it is the whole value: in a list, curl and Python ignore it.
//! - Blanks stay: `* ` exempts no host in Java, and `*` exempts all of them.
//! - An empty value counts as unset: curl, requests, Go and Java read the other name then.

use crate::platform::Environment;
use crate::transport::LOOPBACK;

/// Tools disagree about which of the two they read first, so both are set.
const NAMES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// `NO_PROXY` and `no_proxy` with loopback appended. Only for an environment that has an endpoint of ours.
///
/// If only one of the two has a value, the other starts from it: a tool that prefers the other name would otherwise lose the
/// exemptions it has now.
#[must_use]
pub fn with_loopback(environment: &Environment) -> Vec<(String, String)> {
    let [upper, lower] = NAMES.map(|name| environment.get(name).filter(|value| !value.is_empty()));
    [(NAMES[0], upper.or(lower)), (NAMES[1], lower.or(upper))]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), append(value.unwrap_or_default())))
        .collect()
}

fn append(value: &str) -> String {
    if value == "*" {
        return value.to_owned();
    }
    let entries: Vec<&str> = value.split(',').map(str::trim).collect();
    let is_blank = |c: char| c.is_ascii_whitespace();
    let kept = match value.trim_end_matches(is_blank) {
        // No empty entry: some parsers panic at one.
        end if end.is_empty() || end.ends_with(',') => {
            value.trim_end_matches(|c| c == ',' || is_blank(c))
        }
        _ => value,
    };
    let mut out = kept.to_owned();
    for name in LOOPBACK {
        if !entries.contains(&name) {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::with_loopback;
    use crate::platform::Environment;

    fn values(environment: &Environment) -> [String; 2] {
        let mut pairs = with_loopback(environment).into_iter();
        [pairs.next().unwrap().1, pairs.next().unwrap().1]
    }

    #[test]
    fn l1_ipv6_loopback_is_not_appended() {
        for value in values(&Environment::default()) {
            assert_eq!(value, "127.0.0.1,localhost");
        }
    }

    #[test]
    fn c3_only_a_star_alone_needs_no_loopback() {
        for (before, after) in [
            ("*", "*"),
            ("*,x", "*,x,127.0.0.1,localhost"),
            ("x,*", "x,*,127.0.0.1,localhost"),
            ("* ", "* ,127.0.0.1,localhost"),
            (" ", "127.0.0.1,localhost"),
            ("*,", "*,127.0.0.1,localhost"),
            (" *", " *,127.0.0.1,localhost"),
        ] {
            let environment = Environment::from([("NO_PROXY", before)]);
            assert_eq!(values(&environment), [after, after], "{before:?}");
        }
    }

    #[test]
    fn c4_an_entry_between_blanks_is_not_seen_by_every_parser() {
        for (before, after) in [
            (
                "a 127.0.0.1 localhost",
                "a 127.0.0.1 localhost,127.0.0.1,localhost",
            ),
            ("a , localhost ,\t127.0.0.1", "a , localhost ,\t127.0.0.1"),
            ("a b\t,\n", "a b,127.0.0.1,localhost"),
        ] {
            let environment = Environment::from([("no_proxy", before)]);
            assert_eq!(values(&environment), [after, after], "{before:?}");
        }
    }

    #[test]
    fn loopback_is_appended_once_and_no_entry_is_lost() {
        let both = "127.0.0.1,localhost";
        for (upper, lower, expected) in [
            (None, None, [both.to_owned(), both.to_owned()]),
            (Some("a"), None, [format!("a,{both}"), format!("a,{both}")]),
            (None, Some("b"), [format!("b,{both}"), format!("b,{both}")]),
            (
                Some("a"),
                Some(""),
                [format!("a,{both}"), format!("a,{both}")],
            ),
            (
                Some(""),
                Some("b"),
                [format!("b,{both}"), format!("b,{both}")],
            ),
            (
                Some("a"),
                Some("b"),
                [format!("a,{both}"), format!("b,{both}")],
            ),
            (Some("*"), None, ["*".to_owned(), "*".to_owned()]),
            (Some(both), Some("*"), [both.to_owned(), "*".to_owned()]),
            (
                Some("localhost, x,"),
                None,
                [
                    "localhost, x,127.0.0.1".to_owned(),
                    "localhost, x,127.0.0.1".to_owned(),
                ],
            ),
        ] {
            let environment: Environment = [("NO_PROXY", upper), ("no_proxy", lower)]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
                .collect();
            assert_eq!(values(&environment), expected, "{upper:?} {lower:?}");
        }
    }
}
