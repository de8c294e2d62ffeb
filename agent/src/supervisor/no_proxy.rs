//! `NO_PROXY` for COMMAND: what answers on loopback must not be asked for through a proxy.

use crate::platform::Environment;

/// The names of this machine that tools compare with, as they spell them.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];
/// Tools disagree about which of the two they read first, so both are set.
const NAMES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// `NO_PROXY` and `no_proxy` with loopback appended to what is there.
///
/// When only one of the two is set the other one starts from it: a tool that prefers the other name would otherwise lose the
/// exceptions it has now.
#[must_use]
pub fn with_loopback(environment: &Environment) -> Vec<(String, String)> {
    let [upper, lower] = NAMES.map(|name| environment.get(name));
    [(NAMES[0], upper.or(lower)), (NAMES[1], lower.or(upper))]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), append(value.unwrap_or_default())))
        .collect()
}

fn append(value: &str) -> String {
    let mut entries: Vec<&str> = value.split(',').map(str::trim).collect();
    entries.retain(|entry| !entry.is_empty());
    if entries.contains(&"*") {
        return value.to_owned();
    }
    let mut out = value.trim_end_matches([',', ' ']).to_owned();
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
    fn loopback_is_appended_once_and_nothing_is_lost() {
        let all = "127.0.0.1,localhost,::1";
        for (upper, lower, expected) in [
            (None, None, [all.to_owned(), all.to_owned()]),
            (Some("a"), None, [format!("a,{all}"), format!("a,{all}")]),
            (None, Some("b"), [format!("b,{all}"), format!("b,{all}")]),
            (
                Some("a"),
                Some("b"),
                [format!("a,{all}"), format!("b,{all}")],
            ),
            (Some("*"), None, ["*".to_owned(), "*".to_owned()]),
            (
                Some("localhost, x,"),
                None,
                [
                    "localhost, x,127.0.0.1,::1".to_owned(),
                    "localhost, x,127.0.0.1,::1".to_owned(),
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
