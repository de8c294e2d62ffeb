//! The reference of all keys as text: for `docs/configuration.md` and the example file.

use std::fmt::Write as _;

use super::keys::{KEYS, REGISTRIES, REGISTRY_KEYS};

/// The widest line of the example's comments, in characters.
const WIDTH: usize = 100;

/// The tables of keys, and what each is about.
const TABLES: [(&str, &str); 3] = [
    ("expect", "Who the tokens must belong to."),
    (
        "federated",
        "The application of another tenant that the job acts as.",
    ),
    ("azure_cli", "For the strategy azure-cli."),
];

/// The keys of the file as Markdown: one section each.
#[must_use]
pub fn keys_markdown() -> String {
    let mut out = String::new();
    for key in KEYS {
        let name = if key.name == REGISTRIES {
            "registries.\"HOST\""
        } else {
            key.name
        };
        push(&mut out, &format!("### `{name}`\n\n{}\n", key.meaning));
        let rows = [
            ("variable", format!("`{}`", key.variable)),
            ("allowed", key.allowed.to_owned()),
            ("default", key.default.to_owned()),
        ];
        push_rows(&mut out, &rows, key.danger);
    }
    out
}

/// The settings of a registry as Markdown.
#[must_use]
pub fn registry_keys_markdown() -> String {
    let mut out = String::new();
    for key in REGISTRY_KEYS {
        push(
            &mut out,
            &format!(
                "### `registries.\"HOST\".{}`\n\n{}\n",
                key.name, key.meaning
            ),
        );
        let rows = [
            ("allowed", key.allowed.to_owned()),
            ("default", key.default.to_owned()),
        ];
        push_rows(&mut out, &rows, key.danger);
    }
    out
}

/// A file with every key in it, commented out.
#[must_use]
pub fn example_toml() -> String {
    let mut out = String::from(
        "# Every key of jobcred's configuration, commented out. None is needed: without a file jobcred finds out by itself.\n\
         # Name the file with --config or JOBCRED_CONFIG. Each key is explained in docs/configuration.md.\n",
    );
    // In TOML whatever follows a table's head belongs to the table, so tables come last.
    for key in KEYS
        .iter()
        .filter(|key| !key.name.contains('.') && key.name != REGISTRIES)
    {
        push_example(&mut out, key.name, key.meaning, key.default, key.example);
    }
    for (table, about) in TABLES {
        push(&mut out, &format!("\n# {about}\n# [{table}]\n"));
        for key in KEYS {
            if let Some((outer, name)) = key.name.split_once('.')
                && outer == table
            {
                push_example(&mut out, name, key.meaning, key.default, key.example);
            }
        }
    }
    push(
        &mut out,
        "\n# Settings of one registry; a table for each.\n# [registries.\"myregistry.azurecr.io\"]\n",
    );
    for key in REGISTRY_KEYS {
        push_example(&mut out, key.name, key.meaning, key.default, key.example);
    }
    out
}

fn push_rows(out: &mut String, rows: &[(&str, String)], danger: &str) {
    for (name, text) in rows {
        push(out, &format!("\n- {name}: {text}"));
    }
    if !danger.is_empty() {
        push(out, &format!("\n- danger: {danger}"));
    }
    push(out, "\n\n");
}

fn push_example(out: &mut String, name: &str, meaning: &str, default: &str, example: &str) {
    push(out, "\n");
    let text = format!("{meaning} Default: {default}.").replace('`', "");
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            push(out, &format!("{line}\n"));
            line = String::from("#");
        }
        push(&mut line, &format!(" {word}"));
    }
    push(out, &format!("{line}\n# {name} = {example}\n"));
}

fn push(out: &mut String, text: &str) {
    // Writing to a String can't fail.
    let _ = out.write_str(text);
}
