//! What a job leaves behind: the summary when it fails, and the log.

use jobcred_tests::{AzureMl, AzureMlOptions, Behavior};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{World, binary, cluster};

/// A COMMAND that asks for a token and ends as `end` says.
fn asking(end: &str) -> String {
    format!(
        "{} token --json > /dev/null; {end}",
        binary("jobcred").display()
    )
}

#[test]
fn a_command_that_fails_gets_a_summary_and_one_that_does_not_gets_none() {
    let (aml, world) = cluster();
    let identity = aml.options().identities.first().unwrap().clone();
    let output = world
        .jobcred(&["run", "--", "sh", "-c", &asking("exit 7")])
        .run();
    assert_eq!(output.code, Some(7));
    for part in [
        "COMMAND ended with code 7. What jobcred saw:",
        &format!("object id {}", identity.object_id),
        "token https://storage.azure.com/: ",
        "no request failed",
    ] {
        assert!(
            output.stderr.contains(part),
            "{part:?} not in {}",
            output.stderr
        );
    }
    for (end, setting, is_said) in [
        ("exit 0", "auto", false),
        ("exit 0", "always", true),
        ("exit 7", "off", false),
        ("kill -KILL $$", "auto", true),
    ] {
        let output = world
            .jobcred(&["run", "--", "sh", "-c", &asking(end)])
            .env("JOBCRED_POST_MORTEM", setting)
            .run();
        let said = output.stderr.contains("What jobcred saw");
        assert_eq!(said, is_said, "{end} {setting}: {}", output.stderr);
    }
}

#[test]
fn an_end_that_was_asked_for_is_no_failure() {
    let (_aml, world) = cluster();
    let script = "echo ready; exec tail -f /dev/null";
    let run = world.jobcred(&["run", "--", "sh", "-c", script]).start();
    run.wait_for_stdout("ready");
    run.signal(Signal::SIGTERM);
    let output = run.finish();
    assert_eq!(output.signal, Some(15));
    assert!(
        !output.stderr.contains("What jobcred saw"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_summary_tells_what_went_wrong_and_names_nobody() {
    let (aml, world) = cluster();
    aml.script()
        .push(Behavior::throttle(1))
        .set_default(Behavior::json(
            400,
            &json!({"statusCode": 400, "message": "Identity not found for jane.doe@contoso.com"}),
        ));
    let output = world
        .jobcred(&["run", "-q", "--", "sh", "-c", &asking("exit 7")])
        .run();
    assert_eq!(output.code, Some(7));
    for part in [
        "never got",
        "too many requests (429): 1",
        "(rejected)",
        "Identity not found",
    ] {
        assert!(
            output.stderr.contains(part),
            "{part:?} not in {}",
            output.stderr
        );
    }
    assert!(!output.stderr.contains("jane"), "{}", output.stderr);
    let log = world.job_log();
    let names: Vec<_> = log
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["start", "throttled", "failure", "end"]);
    assert_eq!(log[3]["throttles"], 1);
    assert_eq!(log[3]["failures"], 1);
}

#[test]
fn a_users_job_is_logged_by_ids_alone() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.user_environment())
        .with_secrets(aml.secrets());
    let output = world
        .jobcred(&["run", "--", "sh", "-c", &asking("exit 1")])
        .env("JOBCRED_POST_MORTEM", "always")
        .run();
    assert!(output.stderr.contains("a user"), "{}", output.stderr);
    assert!(!output.stderr.contains("someone@"), "{}", output.stderr);
    let log = world.job_log();
    let principal = log
        .iter()
        .find(|line| line["event"] == "principal")
        .unwrap();
    assert_eq!(principal["kind"], "user");
    assert!(principal["object_id"].is_string());
    assert!(!log.iter().any(|line| line.to_string().contains("someone")));
}
