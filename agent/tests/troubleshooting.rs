//! Keeps the list of reason codes in the documentation in step with the code.

use std::fmt::Write as _;
use std::path::Path;

use jobcred::storage::code::CODES;
use jobcred::strategy::reason::{CARRIED_OUT, CHOSEN, FAILED, NOTICES, PASSED_OVER};

const MARK: &str =
    "<!-- codes: made by `UPDATE_DOCS=1 cargo test -p jobcred --test troubleshooting` -->\n";

#[test]
fn the_documentation_lists_every_reason_code() {
    is_in_step(
        "troubleshooting.md",
        "agent/src/strategy/reason.rs",
        &tables(),
    );
}

#[test]
fn the_documentation_lists_every_code_of_a_check() {
    let mut table = String::from("\n| code | meaning |\n|---|---|\n");
    for (code, meaning) in CODES {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{code}` | {meaning} |");
    }
    is_in_step("check.md", "agent/src/storage/code.rs", &table);
}

#[expect(
    clippy::unwrap_used,
    reason = "a file of the checkout that is not there fails the test"
)]
fn is_in_step(document: &str, source: &str, tables: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let at = text.find(MARK).unwrap() + MARK.len();
    let expected = format!("{}{tables}", &text[..at]);
    if update_wanted() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        text == expected,
        "docs/{document} is not in step with {source}: run `UPDATE_DOCS=1 cargo test -p jobcred --test troubleshooting`"
    );
}

fn tables() -> String {
    let mut out = String::new();
    for (title, codes) in [
        ("A strategy was chosen", CHOSEN),
        ("A strategy was passed over", PASSED_OVER),
        (
            "A strategy applies, but cannot serve: start-up errors",
            FAILED,
        ),
        (
            "A start-up error that shows when the choice is carried out",
            CARRIED_OUT,
        ),
        ("Notices", NOTICES),
    ] {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n### {title}\n\n| code | meaning |\n|---|---|\n");
        for (code, meaning) in codes {
            let _ = writeln!(out, "| `{code}` | {meaning} |");
        }
    }
    out
}

#[expect(
    clippy::disallowed_methods,
    reason = "a switch for whoever runs this test"
)]
fn update_wanted() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}
