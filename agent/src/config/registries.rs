//! The table of registries, from the file or in the compact form of its variable.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jobcred_wire::{ListedHost, RegistryAddress};

use super::error::Wrong;
use super::keys::REGISTRY_KEYS;
use super::nearest::{completion, nearest};
use super::value::{self, Given};
use super::{Config, RegistryConfig};

const HOSTS: &str = "a host name with an optional port, or `.suffix`, without scheme and path";

/// Reads all registries; what is wrong with one does not keep another from being read.
pub(super) fn set(given: Given<'_>, config: &mut Config) -> Result<(), Vec<Wrong>> {
    let mut wrongs = Vec::new();
    let mut registries = BTreeMap::new();
    match given {
        Given::Toml(toml::Value::Table(tables)) => {
            for (host, table) in tables {
                let registry = read_table(host, table, &mut wrongs);
                insert(&mut registries, host, registry, &mut wrongs);
            }
        }
        Given::Toml(other) => wrongs.push(value::wrong_type(other)),
        Given::Text(text) => {
            if let Some(why) = value::quoting(text) {
                // Not shown: it may hold anything.
                return Err(vec![Wrong::new(None, why)]);
            }
            for entry in text.split(',').map(str::trim) {
                let mut parts = entry.split(';').map(str::trim);
                let host = parts.next().unwrap_or_default();
                let registry = read_compact(host, parts, &mut wrongs);
                insert(&mut registries, host, registry, &mut wrongs);
            }
        }
    }
    if wrongs.is_empty() {
        config.registries = registries;
        Ok(())
    } else {
        Err(wrongs)
    }
}

fn read_table(host: &str, table: &toml::Value, wrongs: &mut Vec<Wrong>) -> RegistryConfig {
    let mut registry = RegistryConfig::default();
    let toml::Value::Table(settings) = table else {
        wrongs.push(below(host, None, value::wrong_type(table), "a table"));
        return registry;
    };
    for (name, value) in settings {
        read_setting(host, name, Given::Toml(value), &mut registry, wrongs);
    }
    check(host, &registry, wrongs);
    registry
}

fn read_compact<'a>(
    host: &str,
    settings: impl Iterator<Item = &'a str>,
    wrongs: &mut Vec<Wrong>,
) -> RegistryConfig {
    let mut registry = RegistryConfig::default();
    for setting in settings {
        if let Some((name, value)) = setting.split_once('=') {
            read_setting(
                host,
                name.trim(),
                Given::Text(value.trim()),
                &mut registry,
                wrongs,
            );
        } else {
            let wrong = Wrong::new(None, "a setting has no value");
            wrongs.push(below(
                host,
                None,
                wrong,
                "`host;setting=value;...`, separated by commas",
            ));
        }
    }
    check(host, &registry, wrongs);
    registry
}

/// An application is told by both of its ids.
fn check(host: &str, registry: &RegistryConfig, wrongs: &mut Vec<Wrong>) {
    if registry.federated && (registry.client_id.is_none() || registry.tenant_id.is_none()) {
        let wrong = Wrong::new(None, "nothing says which application, or in which tenant");
        wrongs.push(below(
            host,
            Some("federated"),
            wrong,
            "together with `client_id` and `tenant_id`",
        ));
    }
}

fn read_setting(
    host: &str,
    name: &str,
    given: Given<'_>,
    registry: &mut RegistryConfig,
    wrongs: &mut Vec<Wrong>,
) {
    let Some(key) = REGISTRY_KEYS.iter().find(|key| key.name == name) else {
        let names: Vec<&str> = REGISTRY_KEYS.iter().map(|key| key.name).collect();
        let meant = nearest(name, &names).or_else(|| completion(name, &names));
        let why = meant.map_or_else(
            || "there is no such setting".to_owned(),
            |near| format!("there is no such setting; did you mean {near}?"),
        );
        let wrong = Wrong::new(None, why);
        wrongs.push(below(host, Some(name), wrong, &names.join(", ")));
        return;
    };
    if let Err(found) = (key.set)(given, registry) {
        let placed = found
            .into_iter()
            .map(|wrong| below(host, Some(name), wrong, key.allowed));
        wrongs.extend(placed);
    }
}

/// Adds a registry under the one spelling of its host.
fn insert(
    registries: &mut BTreeMap<String, RegistryConfig>,
    host: &str,
    registry: RegistryConfig,
    wrongs: &mut Vec<Wrong>,
) {
    let canonical = match canonical_host(host) {
        Ok(canonical) => canonical,
        Err(why) => {
            wrongs.push(below(host, None, Wrong::new(None, why), HOSTS));
            return;
        }
    };
    match registries.entry(canonical) {
        Entry::Vacant(slot) => {
            slot.insert(registry);
        }
        Entry::Occupied(_) => {
            let wrong = Wrong::new(None, "this host is given twice");
            wrongs.push(below(host, None, wrong, "one entry for each host"));
        }
    }
}

fn canonical_host(host: &str) -> Result<String, String> {
    host.parse::<ListedHost>()
        .map_err(|error| error.to_string())?;
    let (dot, rest) = match host.strip_prefix('.') {
        Some(rest) => (".", rest),
        None => ("", host),
    };
    let address = RegistryAddress::parse(rest).map_err(|error| error.to_string())?;
    Ok(format!("{dot}{address}"))
}

fn below(host: &str, name: Option<&str>, mut wrong: Wrong, allowed: &str) -> Wrong {
    // A host is shown as a value is: on one line and not too long.
    let host = Wrong::new(Some(host), "").value.unwrap_or_default();
    wrong.below = Some(match name {
        None => host,
        Some(name) => {
            let name: String = name.chars().take(40).flat_map(char::escape_debug).collect();
            format!("{host}.{name}")
        }
    });
    wrong.allowed.get_or_insert_with(|| allowed.to_owned());
    wrong
}
