//! A configuration file and variables. Behind a line `%%`, each line is a variable.

#![no_main]

use jobcred::config::{Config, ConfigErrors, ConfigFile, KEYS, Override};
use jobcred::platform::Environment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (text, variables) = text.split_once("\n%%\n").unwrap_or((text, ""));
    let environment: Environment = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let file = ConfigFile {
        name: "jobcred.toml",
        text,
    };
    for environment in [&Environment::default(), &environment] {
        if let Err(errors) = Config::load(Some(file), environment, &[]) {
            assert_fit_to_show(&errors);
        }
    }
    for key in KEYS {
        let Some(value) = environment.get(key.variable) else {
            continue;
        };
        let variable = Environment::from([(key.variable, value)]);
        let flag = Override {
            flag: "--x",
            key: key.name,
            value: value.to_owned(),
        };
        let by_variable = Config::load(None, &variable, &[]);
        let by_flag = Config::load(None, &Environment::default(), &[flag]);
        assert_eq!(
            by_variable.is_ok(),
            by_flag.is_ok(),
            "{} = {value:?}",
            key.name
        );
        if let (Ok(by_variable), Ok(by_flag)) = (by_variable, by_flag) {
            assert_eq!(by_variable, by_flag, "{} = {value:?}", key.name);
        }
    }
});

/// One line for each mistake, each with what is wrong; no value that looks like a secret.
fn assert_fit_to_show(errors: &ConfigErrors) {
    let report = errors.to_string();
    assert!(!errors.mistakes().is_empty());
    assert_eq!(
        report.lines().count(),
        1 + errors.mistakes().len().min(51),
        "{report}"
    );
    assert!(report.len() < 60_000);
    assert!(
        !report.contains(|c: char| c.is_control() && c != '\n'),
        "{report:?}"
    );
    for mistake in errors.mistakes() {
        assert!(
            !mistake.why.is_empty() && !mistake.origin.is_empty(),
            "{mistake:?}"
        );
        let value = mistake.value.as_deref().unwrap_or_default();
        assert!(!value.contains("eyJ") && !value.contains('@'), "{value}");
    }
}
