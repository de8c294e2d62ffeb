//! Key lines of the rendering, and what must never be in it.

use std::path::Path;

use jobcred_wire::{Explanation, PrincipalClaims};

use super::{Form, explain_text, wants_color, width};
use crate::config::Config;
use crate::platform::{Environment, Files, UnixTime};
use crate::strategy::{Facts, ProbeResult, promise_broken, select};

const GUID: &str = "1a2b3c4d-1111-4222-8333-444455556666";
const PLAIN: Form = Form::Text {
    width: 80,
    color: false,
};

fn explanation(environment: Environment) -> Explanation {
    let facts = Facts {
        environment,
        ..Facts::default()
    };
    let facts = facts.with_probe(ProbeResult::NoAnswer {
        reason: "connection refused".to_owned(),
    });
    select(&facts, &Config::default()).explanation
}

fn cluster() -> Environment {
    Environment::from([
        ("AZUREML_RUN_ID", "keen_rhubarb_1"),
        ("MSI_ENDPOINT", "http://127.0.0.1:46808/MSI/auth"),
        ("MSI_SECRET", "s3cr3t"),
        ("DEFAULT_IDENTITY_CLIENT_ID", GUID),
    ])
}

fn render(explanation: &Explanation, form: Form) -> String {
    let files = Files::under("/nowhere");
    explain_text(explanation, form, UnixTime::from_secs(1_000), &files)
}

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|it| it == line)
}

#[test]
fn the_choice_comes_first_with_its_reason_and_its_code() {
    let text = render(&explanation(cluster()), PLAIN);
    assert!(text.starts_with("* compute-identity\n"), "{text}");
    for line in [
        "  why        The compute names its managed identity by client id.",
        "  sdks       `run` leads Azure SDKs here (app_service).",
        "  code       client_id_given",
        "ways around jobcred",
        "  - bypass_old_sdk",
        "considered, in this order",
        "  - user-identity          obo_not_enabled",
        "  * compute-identity       client_id_given",
        "  - compute-instance-user  not_a_compute_instance",
    ] {
        assert!(has_line(&text, line), "no line {line:?} in\n{text}");
    }
    assert!(text.contains(GUID));
}

#[test]
fn an_error_says_what_to_do_and_says_it_once() {
    let text = render(&explanation(Environment::default()), PLAIN);
    assert!(text.starts_with("x no token can be had here\n"), "{text}");
    assert!(has_line(&text, "  code       nothing_found"), "{text}");
    assert!(
        text.contains("  do         Azure ML compute cluster:"),
        "{text}"
    );
    assert_eq!(text.matches("nothing_found").count(), 1, "{text}");
}

#[test]
fn a_probe_says_whose_token_it_is_and_a_broken_promise_comes_before_other_notices() {
    let claims = PrincipalClaims {
        object_id: Some("9f8e7d6c-2222-4333-8444-555566667777".to_owned()),
        kind: Some("user".to_owned()),
        expires_on: Some(8_260),
        ..PrincipalClaims::default()
    };
    let facts = Facts {
        environment: cluster(),
        ..Facts::default()
    };
    let mut selection = select(&facts, &Config::default());
    let choice = selection.outcome.unwrap();
    selection
        .explanation
        .notices
        .extend(promise_broken(&choice, &claims));
    selection.explanation.principal = Some(claims);
    let text = render(&selection.explanation, PLAIN);
    for line in [
        "  belongs to a user",
        "  object id  9f8e7d6c-2222-4333-8444-555566667777",
        "  client id  not in the token",
        "  life left  2 h 1 min",
    ] {
        assert!(has_line(&text, line), "no line {line:?} in\n{text}");
    }
    assert!(
        text.contains("worth knowing\n  ! promise_user_token\n"),
        "{text}"
    );
    let report = render(&selection.explanation, Form::Report);
    assert!(
        has_line(
            &report,
            "token     user; object id: yes; client id: no; tenant: no; life left: 2 h 1 min"
        ),
        "{report}"
    );
    assert!(!report.contains("9f8e"), "{report}");
}

#[test]
fn lines_keep_to_the_width_unless_a_word_does_not_fit() {
    for columns in [40, 63, 64, 80, 110] {
        let form = Form::Text {
            width: columns,
            color: false,
        };
        for line in render(&explanation(cluster()), form).lines() {
            let is_one_word = line.split_whitespace().count() <= 2;
            assert!(
                line.chars().count() <= columns || is_one_word,
                "{columns}: {line}"
            );
        }
    }
}

#[test]
fn without_colours_there_is_not_one_escape_and_nothing_but_ascii() {
    let plain = render(&explanation(cluster()), PLAIN);
    assert!(plain.is_ascii());
    assert!(!plain.contains('\u{1b}'));
    let form = Form::Text {
        width: 80,
        color: true,
    };
    assert!(render(&explanation(cluster()), form).contains("\u{1b}[1;32m"));
}

#[test]
fn json_is_the_explanation_itself() {
    let explanation = explanation(cluster());
    let text = render(&explanation, Form::Json);
    let read: Explanation = serde_json::from_str(&text).unwrap();
    assert_eq!(read, explanation);
    assert!(text.ends_with("}\n"));
}

#[test]
fn a_report_names_the_system_and_holds_no_value() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc")).unwrap();
    std::fs::write(
        root.path().join("etc/os-release"),
        "NAME=x\nPRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\n",
    )
    .unwrap();
    let text = explain_text(
        &explanation(cluster()),
        Form::Report,
        UnixTime::from_secs(0),
        &Files::under(root.path()),
    );
    for line in [
        "system    Ubuntu 22.04.5 LTS",
        "kernel    unknown",
        "strategy  compute-identity (client_id_given)",
        "asks      Azure ML endpoint",
        "    DEFAULT_IDENTITY_CLIENT_ID is set",
    ] {
        assert!(has_line(&text, line), "no line {line:?} in\n{text}");
    }
}

/// The environments of all scenarios: their secrets carry a mark that no form may show, and a report shows no value.
#[test]
fn no_scenario_brings_a_secret_to_the_surface() {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut walked = 0;
    for entry in std::fs::read_dir(folders).unwrap() {
        let path = entry.unwrap().path().join("scenario.toml");
        let scenario: toml::Table =
            toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let variables: Vec<(String, String)> = scenario
            .get("env")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let explanation = explanation(variables.iter().cloned().collect());
        let colored = Form::Text {
            width: 100,
            color: true,
        };
        for form in [PLAIN, colored, Form::Json, Form::Report] {
            let text = render(&explanation, form);
            assert!(!text.contains("s3cr3t"), "{}:\n{text}", path.display());
        }
        let report = render(&explanation, Form::Report);
        // Shorter values are words such as `True`, which the report may have for its own reasons.
        for (name, value) in variables.iter().filter(|(_, value)| value.len() > 9) {
            assert!(
                !report.contains(value.as_str()),
                "{}: {name} in\n{report}",
                path.display()
            );
        }
        walked += 1;
    }
    assert!(walked > 80, "only {walked} scenarios");
}

#[test]
fn colours_follow_the_conventions() {
    let xterm = ("TERM", "xterm-256color");
    for (environment, on_terminal, elsewhere) in [
        (Environment::from([xterm]), true, false),
        (Environment::from([xterm, ("NO_COLOR", "1")]), false, false),
        (Environment::from([xterm, ("NO_COLOR", "")]), true, false),
        (Environment::from([xterm, ("CLICOLOR", "0")]), false, false),
        (Environment::from([("TERM", "dumb")]), false, false),
        (Environment::from([]), false, false),
        (
            Environment::from([xterm, ("CLICOLOR_FORCE", "1")]),
            true,
            true,
        ),
        (
            Environment::from([("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]),
            false,
            false,
        ),
    ] {
        assert_eq!(wants_color(None, &environment, true), on_terminal);
        assert_eq!(wants_color(None, &environment, false), elsewhere);
        assert!(wants_color(Some(true), &environment, false));
        assert!(!wants_color(Some(false), &environment, true));
    }
}

#[test]
fn the_width_stays_readable() {
    let columns = |text| Environment::from([("COLUMNS", text)]);
    assert_eq!(width(&columns("100"), Some(90)), 100);
    assert_eq!(width(&columns("7"), None), 40);
    assert_eq!(width(&columns("9999"), None), 110);
    assert_eq!(width(&columns("many"), Some(90)), 90);
    assert_eq!(width(&Environment::from([]), None), 80);
}
