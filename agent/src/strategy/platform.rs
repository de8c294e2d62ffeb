//! The platform's own variables, as they were before a jobcred around this process put its endpoints in their place.

use super::OWN_ENDPOINTS_VARIABLE;
use crate::platform::Environment;

/// Endpoint variables that jobcred can replace, each with the one of its secret.
const REPLACEABLE: [(&str, Option<&str>); 4] = [
    ("IDENTITY_ENDPOINT", Some("IDENTITY_HEADER")),
    ("MSI_ENDPOINT", Some("MSI_SECRET")),
    ("OBO_ENDPOINT", None),
    ("AZURE_POD_IDENTITY_AUTHORITY_HOST", None),
];
/// What stands before the name of a variable that was replaced, in the one that keeps its value.
const KEPT: &str = "JOBCRED_PLATFORM_";

/// The environment without jobcred's endpoints: what they replaced is back, what they added is gone.
///
/// A `run` inside a `run` so decides on what the outer one did. Its agent asks the platform, never another agent and never itself.
#[must_use]
pub fn platform_environment(environment: &Environment) -> Environment {
    let own: Vec<&str> = environment
        .get(OWN_ENDPOINTS_VARIABLE)
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    let replaced: Vec<&str> = REPLACEABLE
        .iter()
        .filter(|(endpoint, _)| {
            environment
                .get(endpoint)
                .is_some_and(|value| own.contains(&value))
        })
        .flat_map(|(endpoint, secret)| [Some(*endpoint), *secret])
        .flatten()
        .collect();
    environment
        .iter()
        .filter_map(|(name, value)| {
            if replaced.contains(&name) {
                return None;
            }
            match name.strip_prefix(KEPT) {
                Some(original) if replaced.contains(&original) => Some((original, value)),
                _ => Some((name, value)),
            }
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What a command needs besides `endpoints`, the variables that lead it to jobcred: their values by name, and what they replace of
/// `platform`, the environment as [`platform_environment`] gives it.
#[must_use]
pub fn keep_platform(
    endpoints: &[(&'static str, String)],
    platform: &Environment,
) -> Vec<(String, String)> {
    let names: Vec<&str> = endpoints.iter().map(|(name, _)| *name).collect();
    let replaced = REPLACEABLE
        .iter()
        .filter(|(endpoint, _)| names.contains(endpoint));
    // With an endpoint goes its secret, even where ours has none to put in its place.
    let mut more: Vec<(String, String)> = replaced
        .flat_map(|(endpoint, secret)| [Some(*endpoint), *secret])
        .flatten()
        .filter_map(|name| Some((format!("{KEPT}{name}"), platform.get(name)?.to_owned())))
        .collect();
    let own: Vec<&str> = endpoints
        .iter()
        .filter(|(name, _)| REPLACEABLE.iter().any(|(endpoint, _)| endpoint == name))
        .map(|(_, value)| value.as_str())
        .collect();
    more.push((OWN_ENDPOINTS_VARIABLE.to_owned(), own.join(" ")));
    more
}

#[cfg(test)]
mod tests {
    use super::{keep_platform, platform_environment};
    use crate::platform::Environment;
    use crate::strategy::OWN_ENDPOINTS_VARIABLE;

    /// What a command inside would find.
    fn inside(outer: &Environment, endpoints: &[(&'static str, String)]) -> Environment {
        let ours = endpoints
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let kept = keep_platform(endpoints, &platform_environment(outer));
        let before = outer
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        before.chain(ours).chain(kept).collect()
    }

    fn ours(port: u16) -> Vec<(&'static str, String)> {
        vec![
            (
                "IDENTITY_ENDPOINT",
                format!("http://127.0.0.1:{port}/msi/token"),
            ),
            ("IDENTITY_HEADER", format!("header {port}")),
            ("MSI_ENDPOINT", format!("http://127.0.0.1:{port}/MSI/auth")),
            ("MSI_SECRET", format!("secret {port}")),
        ]
    }

    #[test]
    fn what_was_replaced_is_found_again_however_deep() {
        let platform = Environment::from([
            ("MSI_ENDPOINT", "http://127.0.0.1:46808/MSI/auth"),
            ("MSI_SECRET", "the platform's"),
            ("OTHER", "x"),
        ]);
        let mut environment = platform.clone();
        for port in [1, 2, 3] {
            environment = inside(&environment, &ours(port));
            assert_eq!(
                environment.get("MSI_SECRET"),
                Some(format!("secret {port}").as_str())
            );
            let found = platform_environment(&environment);
            let own = environment.get(OWN_ENDPOINTS_VARIABLE).unwrap();
            assert_eq!(own.split(' ').count(), 2);
            assert_eq!(found.get("IDENTITY_ENDPOINT"), None);
            assert_eq!(found.get("IDENTITY_HEADER"), None);
            for name in ["MSI_ENDPOINT", "MSI_SECRET", "OTHER"] {
                assert_eq!(found.get(name), platform.get(name), "{name}");
            }
        }
    }

    #[test]
    fn a_platforms_own_endpoint_is_nobody_elses() {
        let platform = Environment::from([
            ("IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token"),
            ("IDENTITY_HEADER", "h"),
            (OWN_ENDPOINTS_VARIABLE, "http://127.0.0.1:1/msi/token"),
        ]);
        assert_eq!(platform_environment(&platform), platform);
    }

    #[test]
    fn a_platforms_endpoint_that_was_replaced_is_back() {
        let platform = Environment::from([
            ("IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token"),
            ("IDENTITY_HEADER", "h"),
        ]);
        let found = platform_environment(&inside(&platform, &ours(7)));
        for (name, value) in platform.iter() {
            assert_eq!(found.get(name), Some(value));
        }
        assert_eq!(found.get("MSI_SECRET"), None);
    }
}
