//! How an agent is started by another process of this program, with the same configuration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::arguments::GlobalOptions;
use super::log;
use super::setup::Setup;
use crate::platform::Environment;
use crate::strategy::ProbeResult;
use crate::supervisor::{Given, Recipe, Record};

/// An agent that answers at `place`. `first` is what makes it one of a `run`, or one that stands alone.
///
/// It gets the configuration and the socket as open descriptors. Where only the probe can tell who the job is, it is the agent
/// that says so: `announce` is whether it shall keep to what went wrong.
pub(super) fn recipe(
    options: &GlobalOptions,
    setup: &Setup,
    place: &Path,
    first: [OsString; 2],
    announce: Option<bool>,
    probe: Option<ProbeResult>,
) -> Recipe {
    let given = Given {
        file: setup.file.clone(),
        probe,
    };
    let mut arguments: Vec<OsString> = vec!["agent".into()];
    arguments.extend(first);
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
    add("--log-id", Some(log::new_id().into()));
    // Read only where there is no record. The agent is started from another directory.
    let file = setup.file.as_ref();
    let path = file.and_then(|file| std::path::absolute(&file.name).ok());
    add("--config", path.map(Into::into));
    add("--log", options.log.clone().map(Into::into));
    add("--strategy", options.strategy.clone().map(Into::into));
    if options.sandbox {
        arguments.push("--sandbox".into());
    }
    if log::is_live(setup) {
        arguments.push("--live-log".into());
    }
    Recipe {
        arguments,
        variables: absolute_variables(&setup.outside.environment),
        // Without it each agent reads the configuration for itself, as it is then.
        record: Record::create(&given).ok(),
    }
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
