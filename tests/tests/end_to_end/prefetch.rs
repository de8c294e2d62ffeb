//! Declared resources and COMMAND: what holds it back, what stops it, and what does not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use jobcred_tests::{AzureMl, AzureMlOptions, Behavior, OnConnect, Principal};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{HUNG, World, wait_until};

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
fn a_wait_that_was_spent_on_a_busy_endpoint_says_so() {
    let (aml, world) = cluster();
    aml.script().set_default(Behavior::status(429));
    let output = world
        .jobcred(&["run", "--", "echo", "ran"])
        .env("JOBCRED_PREFETCH_TIMEOUT", "2")
        .run()
        .succeeded();
    assert_eq!(output.stdout, "ran\n");
    let line = output
        .stderr
        .lines()
        .find(|line| line.contains("within 2 s"));
    let line = line.unwrap_or_else(|| panic!("{}", output.stderr));
    assert!(line.contains("too many requests (429)"), "{line}");
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
    // What it has not written by then goes with it.
    wait_until("the agent's start is in the log", || {
        !world.job_log().is_empty()
    });
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
    for (arguments, code) in [(&["health", "--ready"][..], 118), (&["token"], 125)] {
        let output = world.jobcred(arguments).run();
        assert_eq!(output.code, Some(code), "{arguments:?}: {}", output.stderr);
    }
    agent.is_unharmed();
    assert_eq!(world.ask("GET", "/readyz?wait=x").status, 400);
}

#[test]
fn what_is_not_there_yet_has_the_same_code_for_everybody() {
    let (aml, world) = cluster();
    aml.script().set_on_connect(OnConnect::Hang);
    let _agent = world.agent();
    for arguments in [&["health", "--ready"][..], &["wait", "--timeout", "1"]] {
        let output = world.jobcred(arguments).run();
        assert_eq!(output.code, Some(124), "{arguments:?}: {}", output.stderr);
    }
}

#[test]
fn what_the_configuration_makes_impossible_is_refused_for_good_to_who_waits() {
    let world = World::new().with_environment([("AZUREML_OBO_ENABLED", "True")]);
    let program = crate::support::binary("jobcred").display().to_string();
    for (arguments, code) in [
        (&["wait", "--timeout", "60"][..], 118),
        (&["health", "--ready"], 118),
        (&["token"], 125),
    ] {
        let output = world
            .jobcred(&["run", "--", &program])
            .args(arguments)
            .run();
        assert_eq!(output.code, Some(code), "{arguments:?}: {}", output.stderr);
    }
    let held = world
        .jobcred(&["run", "--", "echo", "ran"])
        .env("JOBCRED_RESOURCES", STORAGE)
        .run();
    assert_eq!((held.code, held.stdout.as_str()), (Some(118), ""));
}

/// A run that has an agent and goes on until it is signalled.
fn sharer(world: &World) -> crate::support::Process {
    let run = world
        .jobcred(&[
            "run",
            "--",
            "sh",
            "-c",
            "echo ready; exec tail -f /dev/null",
        ])
        .start();
    run.wait_for_stdout("ready\n");
    run
}

/// That a run beside another starts its COMMAND, is told `why`, and gets no token; and what the others are told.
#[track_caller]
fn starts_without_tokens(world: &World, why: &str) {
    let output = world.jobcred(&["run", "--", "echo", "ran"]).run();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "ran\n"),
        "{}",
        output.stderr
    );
    for part in [why, "COMMAND starts all the same", "shares the agent"] {
        assert!(
            output.stderr.contains(part),
            "{part:?} not in {}",
            output.stderr
        );
    }
    for (arguments, code) in [
        (&["run", "--required", "--", "echo", "ran"][..], 120),
        (&["wait", "--timeout", "60"], 120),
        (&["health", "--ready"], 120),
        (&["token"], 125),
    ] {
        let output = world.jobcred(arguments).run();
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(code), ""),
            "{arguments:?}: {}",
            output.stderr
        );
    }
}

#[test]
fn a_command_starts_where_runs_disagree_about_whose_tokens_they_get() {
    let (_aml, world) = cluster();
    let first = sharer(&world);
    let mut lease = UnixStream::connect(world.socket()).unwrap();
    lease
        .write_all(b"GET /v1/lease?known=0123456789abcdef HTTP/1.1\r\nHost: localhost\r\njobcred: 1\r\n\r\n")
        .unwrap();
    lease.read_exact(&mut [0]).unwrap();
    starts_without_tokens(&world, "different decisions");
    first.signal(Signal::SIGTERM);
    first.finish();
}

#[test]
fn a_command_starts_where_the_platform_gives_tokens_of_somebody_else_than_before() {
    let (aml, world) = cluster();
    let first = sharer(&world);
    let own = aml.options().identities.first().unwrap().clone();
    aml.mint().set_impostor(Some(Principal {
        object_id: Principal::application().object_id,
        ..own
    }));
    let agent = world.ask("GET", "/v1/status").json()["pid"].as_i64();
    let agent = i32::try_from(agent.unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    let ready = world.ask("GET", "/readyz?wait=60");
    assert_eq!((ready.status, ready.code().as_str()), (500, "internal"));
    assert_eq!(ready.json()["resources"][0]["state"], "blocked");
    starts_without_tokens(&world, "earlier tokens of this job had it");
    let refused = world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    first.signal(Signal::SIGTERM);
    first.finish();
}
