//! Declared resources and COMMAND: what holds it back, what stops it, and what does not.

use std::fs;

use jobcred_tests::{AzureMl, AzureMlOptions, Behavior, OnConnect};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{HUNG, World};

const STORAGE: &str = "https://storage.azure.com/";

/// A cluster with a declared resource.
fn cluster() -> (AzureMl, World) {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_environment([("JOBCRED_RESOURCES", STORAGE)])
        .with_secrets(aml.secrets());
    (aml, world)
}

/// What the endpoint says of an identity that it does not have.
fn no_such_identity() -> Behavior {
    Behavior::json(
        400,
        &json!({"statusCode": 400, "message": "Identity not found for jane.doe@contoso.com"}),
    )
}

#[test]
fn the_command_starts_once_its_resources_are_there() {
    let (aml, world) = cluster();
    aml.script().push(Behavior::hold("token"));
    let marker = world.path().join("marker");
    let script = format!(
        "cat {}; jobcred token > /dev/null && echo got",
        marker.display()
    );
    let directory = crate::support::binary("jobcred");
    let path = format!("{}:/usr/bin:/bin", directory.parent().unwrap().display());
    let run = world
        .jobcred(&["run", "--", "sh", "-c", &script])
        .env("PATH", path)
        .start();
    assert!(aml.msi().recorder().wait_for(1, HUNG));
    fs::write(&marker, "waited\n").unwrap();
    aml.script().release("token");
    let output = run.finish().succeeded();
    assert_eq!(output.stdout, "waited\ngot\n", "{}", output.stderr);
    assert_eq!(aml.requests().len(), 1);
}

#[test]
fn what_is_refused_for_good_stops_the_command_with_the_reason() {
    let (aml, world) = cluster();
    aml.script().set_default(no_such_identity());
    let output = world.jobcred(&["run", "--", "echo", "ran"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (Some(118), ""));
    for part in [
        "COMMAND is not started: ",
        STORAGE,
        "was refused",
        "Identity not found",
    ] {
        assert!(
            output.stderr.contains(part),
            "{part:?} not in {}",
            output.stderr
        );
    }
    assert!(!output.stderr.contains("jane"), "{}", output.stderr);
    assert!(!world.socket().exists());
    let events: Vec<_> = world.job_log();
    let failure = events
        .iter()
        .find(|line| line["event"] == "failure")
        .unwrap();
    assert_eq!(failure["resource"], STORAGE);
    assert_eq!(failure["code"], "rejected");
}

#[test]
fn a_user_whose_session_has_ended_has_a_code_of_its_own() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    aml.end_user_grant(true);
    let world = World::new()
        .with_environment(aml.user_environment())
        .with_environment([("JOBCRED_RESOURCES", STORAGE)])
        .with_secrets(aml.secrets());
    let output = world.jobcred(&["run", "--", "echo", "ran"]).run();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(119), ""),
        "{}",
        output.stderr
    );
}

#[test]
fn an_endpoint_that_is_still_starting_is_waited_for() {
    let (aml, world) = cluster();
    aml.script()
        .push(Behavior::status(503))
        .push(Behavior::Reset)
        .push(Behavior::Close);
    let output = world
        .jobcred(&["run", "--", "echo", "ran"])
        .run()
        .succeeded();
    assert_eq!(output.stdout, "ran\n");
    assert_eq!(aml.requests().len(), 4);
    assert!(!output.stderr.contains("all the same"), "{}", output.stderr);
}

#[test]
fn when_time_is_over_the_command_starts_all_the_same_unless_required() {
    let (aml, world) = cluster();
    aml.script().set_on_connect(OnConnect::Hang);
    let run = |more: &[&str]| {
        world
            .jobcred(&["run"])
            .args(more)
            .args(&["--", "echo", "ran"])
            .env("JOBCRED_PREFETCH_TIMEOUT", "1")
            .run()
    };
    let output = run(&[]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "ran\n"),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("within 1 s"), "{}", output.stderr);
    assert!(output.stderr.contains("COMMAND starts all the same"));
    let output = run(&["--required"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(124), ""));
}

#[test]
fn a_wait_of_nothing_is_none() {
    let (aml, world) = cluster();
    aml.script().set_default(no_such_identity());
    let output = world
        .jobcred(&["run", "--", "echo", "ran"])
        .env("JOBCRED_PREFETCH_TIMEOUT", "0")
        .run()
        .succeeded();
    assert_eq!(output.stdout, "ran\n");
}

#[test]
fn a_signal_ends_the_wait_and_the_command_is_never_started() {
    let (aml, world) = cluster();
    aml.script().set_default(Behavior::hold("never"));
    for (signal, number) in [
        (Signal::SIGTERM, 15),
        (Signal::SIGINT, 2),
        (Signal::SIGUSR1, 10),
    ] {
        let before = aml.requests().len();
        let run = world.jobcred(&["run", "--", "echo", "ran"]).start();
        assert!(aml.msi().recorder().wait_for(before + 1, HUNG));
        // It changes nothing, here as there.
        run.signal(Signal::SIGWINCH);
        run.signal(signal);
        let output = run.finish();
        assert_eq!(
            (output.signal, output.stdout.as_str()),
            (Some(number), ""),
            "{}",
            output.stderr
        );
        assert!(!world.socket().exists());
    }
}

#[test]
fn a_run_that_shares_an_agent_waits_for_the_same_answer() {
    let (aml, world) = cluster();
    aml.script().push(Behavior::Hold {
        gate: "refusal".to_owned(),
        then: Box::new(no_such_identity()),
    });
    aml.script().set_default(no_such_identity());
    let first = world.jobcred(&["run", "--", "echo", "ran"]).start();
    assert!(aml.msi().recorder().wait_for(1, HUNG));
    let second = world.jobcred(&["run", "--", "echo", "ran"]).start();
    second.wait_for_stderr("shares the agent");
    aml.script().release("refusal");
    for run in [first, second] {
        let output = run.finish();
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(118), ""),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn an_agent_that_dies_meanwhile_is_started_again_and_asked_again() {
    let (aml, world) = cluster();
    aml.script().push(Behavior::hold("never"));
    let run = world.jobcred(&["run", "--", "echo", "ran"]).start();
    assert!(aml.msi().recorder().wait_for(1, HUNG));
    let status = world.ask("GET", "/v1/status").json();
    let agent = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    let output = run.finish().succeeded();
    assert_eq!(output.stdout, "ran\n", "{}", output.stderr);
    let starts: Vec<_> = world
        .job_log()
        .into_iter()
        .filter(|line| line["event"] == "start")
        .map(|line| line["restarts"].as_u64().unwrap())
        .collect();
    assert_eq!(starts, [0, 1]);
}

#[test]
fn nothing_found_stops_a_command_that_declares_what_it_needs() {
    let world =
        World::new().with_environment([("JOBCRED_RESOURCES", STORAGE), ("JOBCRED_PROBE", "false")]);
    let output = world.jobcred(&["run", "--", "echo", "ran"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (Some(118), ""));
    assert!(output.stderr.contains("no token can be had"));
}

#[test]
fn who_waits_for_an_agent_is_told_the_same_and_the_agent_goes_on() {
    let (aml, world) = cluster();
    aml.script().push(no_such_identity());
    let agent = world.agent();
    let wait = world.jobcred(&["wait", "--timeout", "60"]).run();
    assert_eq!(wait.code, Some(118), "{}", wait.stderr);
    assert!(wait.stderr.contains("was refused"), "{}", wait.stderr);
    let ready = world.ask("GET", "/readyz");
    assert_eq!(ready.status, 502);
    let body = ready.json();
    assert_eq!(body["resources"][0]["state"], "refused");
    assert_eq!(body["resources"][0]["resource"], STORAGE);
    assert_eq!(body["error"]["code"], "rejected");
    agent.is_unharmed();
    assert_eq!(world.ask("GET", "/readyz?wait=x").status, 400);
}
