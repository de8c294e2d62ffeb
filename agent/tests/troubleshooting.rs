//! Keeps the list of reason codes in the documentation in step with the code.

use std::fmt::Write as _;
use std::path::Path;

use jobcred::strategy::reason::{CHOSEN, FAILED, NOTICES, PASSED_OVER};

const MARK: &str =
    "<!-- codes: made by `UPDATE_DOCS=1 cargo test -p jobcred --test troubleshooting` -->\n";

#[test]
fn the_documentation_lists_every_reason_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let at = text.find(MARK).unwrap() + MARK.len();
    let expected = format!("{}{}", &text[..at], tables());
    if update_wanted() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        text == expected,
        "docs/troubleshooting.md is not in step with agent/src/strategy/reason.rs: \
         run `UPDATE_DOCS=1 cargo test -p jobcred --test troubleshooting`"
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
        ("Notices", NOTICES),
    ] {
        write!(out, "\n### {title}\n\n| code | meaning |\n|---|---|\n").unwrap();
        for (code, meaning) in codes {
            writeln!(out, "| `{code}` | {meaning} |").unwrap();
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
