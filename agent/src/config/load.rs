//! File, variables and flags become a [`Config`], or a report of all that is wrong with them.

use super::Config;
use super::error::{ConfigErrors, Mistake, Wrong};
use super::keys::{DISABLED_VARIABLE, FILE_VARIABLE, KEYS, Key};
use super::nearest::{completion, nearest};
use super::service_link::is_service_link;
use super::value::Given;
use crate::platform::Environment;
use crate::resource::Cloud;

/// The longest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// Variables of other parts that are no keys; a near miss of one is reported like any other.
const OTHER_VARIABLES: [&str; 3] = [
    FILE_VARIABLE,
    DISABLED_VARIABLE,
    jobcred_wire::AGENT_UID_VARIABLE,
];

/// A configuration file that has been read.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFile<'a> {
    /// How to call it in a report: its path.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// A value given on the command line, which beats variables and file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The flag, as a report shall call it.
    pub flag: &'static str,
    /// The key's name.
    pub key: &'static str,
    /// The value, in the form a variable has.
    pub value: String,
}

impl Config {
    /// Puts a configuration together: flags beat variables, variables beat the file, the file beats the defaults. What is
    /// beaten is checked all the same.
    ///
    /// # Errors
    /// Everything that is wrong, in one report.
    pub fn load(
        file: Option<ConfigFile<'_>>,
        environment: &Environment,
        overrides: &[Override],
    ) -> Result<Self, ConfigErrors> {
        let mut config = Self {
            // Azure ML says which cloud the job runs in; a name of another cloud is the configuration's to explain.
            cloud: environment
                .get("AZUREML_CURRENT_CLOUD")
                .and_then(Cloud::from_azure_ml)
                .unwrap_or_default(),
            ..Self::default()
        };
        let mut mistakes = Vec::new();
        if let Some(file) = file {
            read_file(file, &mut config, &mut mistakes);
        }
        for key in KEYS {
            let text = environment.get(key.variable);
            if let Some(text) = text.filter(|text| !is_service_link(key.variable, text)) {
                apply(
                    key,
                    key.variable,
                    Given::Text(text),
                    &mut config,
                    &mut mistakes,
                );
            }
        }
        report_near_misses(environment, &mut mistakes);
        for given in overrides {
            read_override(given, &mut config, &mut mistakes);
        }
        if !config.allow_uids.is_empty() && config.socket_group.is_none() {
            mistakes.push(Mistake {
                origin: "allow_uids".to_owned(),
                key: "allow_uids".to_owned(),
                value: None,
                why: "these users could never reach a socket that is private to the agent's own"
                    .to_owned(),
                allowed: "together with `socket_group`, a group they are in".to_owned(),
            });
        }
        check_federated(&config, &mut mistakes);
        match ConfigErrors::from_mistakes(mistakes) {
            Some(errors) => Err(errors),
            None => Ok(config),
        }
    }
}

/// An application is told by both of its ids.
fn check_federated(config: &Config, mistakes: &mut Vec<Mistake>) {
    let federated = &config.federated;
    let (key, why) = match (&federated.client_id, &federated.tenant_id) {
        (Some(_), None) => (
            "federated.client_id",
            "nothing says in which tenant this application acts",
        ),
        (None, Some(_)) => (
            "federated.tenant_id",
            "nothing says which application acts in this tenant",
        ),
        (None, None) if federated.resources.is_some() => {
            ("federated.resources", "nothing says for which application")
        }
        _ => return,
    };
    mistakes.push(Mistake {
        origin: key.to_owned(),
        key: key.to_owned(),
        value: None,
        why: why.to_owned(),
        allowed: "`federated.client_id` together with `federated.tenant_id`".to_owned(),
    });
}

fn read_file(file: ConfigFile<'_>, config: &mut Config, mistakes: &mut Vec<Mistake>) {
    let about_file = |why: String, allowed: &str| Mistake {
        origin: file.name.to_owned(),
        key: String::new(),
        value: None,
        why,
        allowed: allowed.to_owned(),
    };
    if file.text.len() > MAX_FILE_BYTES {
        mistakes.push(about_file("the file is too long".to_owned(), "256 KiB"));
        return;
    }
    let table: toml::Table = match file.text.parse() {
        Ok(table) => table,
        Err(error) => {
            // The whole error would repeat the line, which may hold anything.
            let place = error.span().map_or_else(String::new, |span| {
                let before = file.text.get(..span.start).unwrap_or(file.text);
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
                format!("line {line}, column {column}: ")
            });
            mistakes.push(about_file(format!("{place}this is not TOML"), ""));
            return;
        }
    };
    report_unknown(file.name, "", &table, mistakes);
    for key in KEYS {
        let value = match key.name.split_once('.') {
            None => table.get(key.name),
            Some((outer, name)) => table
                .get(outer)
                .and_then(toml::Value::as_table)
                .and_then(|inner| inner.get(name)),
        };
        if let Some(value) = value {
            apply(key, file.name, Given::Toml(value), config, mistakes);
        }
    }
}

/// Names in the file that are no keys, never with their values: they may be secrets.
fn report_unknown(origin: &str, outer: &str, table: &toml::Table, mistakes: &mut Vec<Mistake>) {
    let known: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| match (outer, key.name.split_once('.')) {
            ("", None) => Some(key.name),
            ("", Some((table, _))) => Some(table),
            (outer, Some((table, name))) if table == outer => Some(name),
            _ => None,
        })
        .collect();
    for (name, value) in table {
        let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
        let full = if outer.is_empty() {
            shown
        } else {
            format!("{outer}.{shown}")
        };
        let mistake = |why: String, allowed: &str| Mistake {
            origin: origin.to_owned(),
            key: full.clone(),
            value: None,
            why,
            allowed: allowed.to_owned(),
        };
        if !known.contains(&name.as_str()) {
            mistakes.push(
                match nearest(name, &known).or_else(|| completion(name, &known)) {
                    Some(near) => {
                        mistake(format!("there is no such key; did you mean {near}?"), "")
                    }
                    None => mistake("there is no such key".to_owned(), &known.join(", ")),
                },
            );
            continue;
        }
        let is_table_of_keys = outer.is_empty()
            && KEYS.iter().any(|key| {
                key.name
                    .split_once('.')
                    .is_some_and(|(table, _)| table == name)
            });
        if is_table_of_keys {
            match value {
                toml::Value::Table(inner) => report_unknown(origin, name, inner, mistakes),
                _ => mistakes.push(mistake("it is not a table".to_owned(), "a table")),
            }
        }
    }
}

/// A variable that is nearly one of ours was meant to be one: it would be ignored without a word otherwise. The switch is an exception: a
/// job must not end because it was misspelt, so [`super::ignored_variables`] has it.
fn report_near_misses(environment: &Environment, mistakes: &mut Vec<Mistake>) {
    for (shown, near) in near_misses(environment) {
        if near != DISABLED_VARIABLE {
            mistakes.push(Mistake {
                origin: shown.clone(),
                key: shown,
                value: None,
                why: format!("there is no such variable; did you mean {near}?"),
                allowed: String::new(),
            });
        }
    }
}

/// Each variable that is nearly one of ours, fit to show, and that one.
pub(super) fn near_misses(environment: &Environment) -> Vec<(String, &'static str)> {
    let known: Vec<&'static str> = KEYS
        .iter()
        .map(|key| key.variable)
        .chain(OTHER_VARIABLES)
        .collect();
    // Only the part that tells variables apart counts, or all short ones would be near.
    let tails: Vec<&str> = known
        .iter()
        .filter_map(|known| known.strip_prefix("JOBCRED_"))
        .collect();
    environment
        .iter()
        .filter(|(name, value)| !known.contains(name) && !is_service_link(name, value))
        .filter_map(|(name, _)| {
            let near = nearest(name.strip_prefix("JOBCRED_")?, &tails)?;
            let known = known
                .iter()
                .find(|known| known.strip_prefix("JOBCRED_") == Some(near))?;
            // The name may have more in it than a name has.
            Some((name.chars().flat_map(char::escape_debug).collect(), *known))
        })
        .collect()
}

fn read_override(given: &Override, config: &mut Config, mistakes: &mut Vec<Mistake>) {
    match KEYS.iter().find(|key| key.name == given.key) {
        Some(key) => apply(key, given.flag, Given::Text(&given.value), config, mistakes),
        None => mistakes.push(Mistake {
            origin: given.flag.to_owned(),
            key: given.key.to_owned(),
            value: None,
            why: "there is no such key".to_owned(),
            allowed: String::new(),
        }),
    }
}

fn apply(
    key: &Key,
    origin: &str,
    given: Given<'_>,
    config: &mut Config,
    mistakes: &mut Vec<Mistake>,
) {
    let Err(wrongs) = (key.set)(given, config) else {
        return;
    };
    let allowed = || match written_list(key, origin, given) {
        Some(example) => format!("{}; {example}", key.allowed),
        None => key.allowed.to_owned(),
    };
    mistakes.extend(wrongs.into_iter().map(|wrong: Wrong| Mistake {
        origin: origin.to_owned(),
        key: wrong.below.map_or_else(
            || key.name.to_owned(),
            |below| format!("{}.{below}", key.name),
        ),
        value: wrong.value,
        why: wrong.why,
        allowed: wrong.allowed.unwrap_or_else(allowed),
    }));
}

/// How to write a list at the place where this one was given; `None` for a key that takes no list.
fn written_list(key: &Key, origin: &str, given: Given<'_>) -> Option<String> {
    let items = key.example.strip_prefix('[')?.strip_suffix(']')?;
    Some(match given {
        Given::Toml(_) => format!("write it as {} = {}", key.name, key.example),
        Given::Text(_) => {
            let plain = items.replace(['"', ' '], "");
            format!("write it with commas: {origin}={plain}")
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ConfigFile, Override};
    use crate::config::{Config, KEYS};
    use crate::mutation::near_text;
    use crate::platform::Environment;

    /// A file in which a secret stands where none belongs.
    fn files() -> Vec<String> {
        let lines = |with: &str| {
            let plain = KEYS.iter().filter(|key| !key.name.contains('.'));
            let lines = plain.map(|key| format!("{} = {}\n", key.name, key.example));
            let mut text: String = lines.collect();
            text.push_str(with);
            text
        };
        vec![
            lines("[federated]\nclient_id = \"11111111-2222-3333-4444-555555555555\"\ntenant_id = \"contoso.com\"\n"),
            lines("[registries.\"myreg.azurecr.io\"]\nanonymous_when_denied = true\n"),
            "password = \"hunter2hunter2\"\n[registries]\n\"a.azurecr.io\" = 5\nsecret = [\"hunter2hunter2\"]\n".to_owned(),
            "socket = { hunter2hunter2 = 1 }\nlog = [[\"hunter2hunter2\"]]\nallow_uids = \"1,2\"\n".to_owned(),
        ]
    }

    #[test]
    fn a_variable_that_is_nearly_one_is_shown_on_one_line() {
        let environment = Environment::from([("JOBCRED_POST_MOR\n\u{1b}M", "off")]);
        let report = Config::load(None, &environment, &[])
            .unwrap_err()
            .to_string();
        assert!(
            report.contains("JOBCRED_POST_MOR\\n\\u{1b}M: there"),
            "{report}"
        );
        assert_eq!(report.lines().count(), 2, "{report}");
    }

    proptest! {
        #[test]
        fn nearly_a_file_is_a_configuration_or_a_report_fit_to_show(text in near_text(files())) {
            let file = ConfigFile { name: "jobcred.toml", text: &text };
            if let Err(errors) = Config::load(Some(file), &Environment::default(), &[]) {
                let report = errors.to_string();
                prop_assert_eq!(report.lines().count(), 1 + errors.mistakes().len().min(51), "{}", report);
                prop_assert!(!report.contains("hunter2hunter2\"") && !report.contains('\u{1b}') && !report.contains('\0'), "{}", report);
                prop_assert!(report.len() < 40_000);
            }
        }

        #[test]
        fn a_variable_and_a_flag_say_the_same(
            key in proptest::sample::select(KEYS.iter().map(|key| (key.name, key.variable)).collect::<Vec<_>>()),
            value in near_text(KEYS.iter().map(|key| key.example.trim_matches('"').to_owned()).collect()),
        ) {
            // An empty variable is as good as none.
            prop_assume!(!value.is_empty());
            let (name, variable) = key;
            let environment = Environment::from([(variable, value.as_str())]);
            let flag = Override { flag: "--x", key: name, value: value.clone() };
            let by_variable = Config::load(None, &environment, &[]);
            let by_flag = Config::load(None, &Environment::default(), &[flag]);
            prop_assert_eq!(by_variable.is_ok(), by_flag.is_ok(), "{} = {:?}", name, value);
            if let (Ok(by_variable), Ok(by_flag)) = (by_variable, by_flag) {
                prop_assert_eq!(by_variable, by_flag);
            }
        }
    }
}
