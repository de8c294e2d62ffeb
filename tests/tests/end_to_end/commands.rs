//! The commands a person types: what they print, where, and with which exit status.

use std::fs;

use jobcred_tests::{Behavior, Secrets};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{World, binary, cluster};

#[test]
fn every_mistake_in_the_configuration_is_in_one_report() {
    let secret = "zq-a-password-that-somebody-put-here-81";
    let secrets = Secrets::new();
    secrets.add("a value of an unknown key", secret);
    let (aml, world) = cluster();
    let world = world.with_secrets(&secrets);
    let file = world.path().join("jobcred.toml");
    let text = format!(
        "strategie = \"{secret}\"\ngrace = \"soon\"\nprobe = \"yes\"\n[expect]\ntenant_id = \"contoso\"\nclient_secret = \"{secret}\"\n"
    );
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        vec!["run", "--config", file, "--", "touch", "started"],
        vec!["agent", "--config", file],
        vec!["explain", "--config", file],
    ] {
        let output = world
            .jobcred(&arguments)
            .env("JOBCRED_STRATEGY", "managed-identity")
            .env("JOBCRED_SOKET", "/tmp/x")
            .env("JOBCRED_ALLOW_UIDS", "1000")
            .run();
        assert_eq!(output.code, Some(2), "{arguments:?}: {}", output.stderr);
        assert_eq!(output.stdout, "");
        for part in [
            "8 mistakes",
            // Origin, key, value, why, what is allowed.
            "jobcred.toml: strategie",
            "did you mean strategy?",
            "grace = \"soon\"",
            "probe",
            "expect.tenant_id",
            "expect.client_secret",
            "JOBCRED_STRATEGY",
            "managed-identity",
            "compute-identity",
            "JOBCRED_SOKET",
            "did you mean JOBCRED_SOCKET?",
            "socket_group",
        ] {
            assert!(
                output.stderr.contains(part),
                "{part} is not in\n{}",
                output.stderr
            );
        }
    }
    assert!(!world.socket().exists());
    assert_eq!(aml.msi().recorder().connections(), 0);
}

#[test]
fn a_wrong_command_line_is_told_apart_from_a_failure() {
    let (_aml, world) = cluster();
    for arguments in [
        vec![],
        vec!["serve"],
        vec!["run"],
        vec!["token", "--raw", "--json"],
        vec!["run", "--nonsense", "--", "true"],
        vec!["--sandbox", "--strategy", "kubernetes", "explain"],
    ] {
        let output = world.jobcred(&arguments).run();
        assert_eq!(output.code, Some(2), "{arguments:?}: {}", output.stderr);
        assert_ne!(output.stderr, "", "{arguments:?}");
    }
}

#[test]
fn a_log_level_that_is_none_is_a_mistake_to_every_command() {
    let world = World::new();
    for command in ["token", "status", "wait", "health", "env"] {
        let output = world.jobcred(&[command, "--log", "loud"]).run();
        assert_eq!(output.code, Some(2), "{command}: {}", output.stderr);
        for part in ["--log", "loud", "it is not a level", "debug"] {
            assert!(output.stderr.contains(part), "{command}: {}", output.stderr);
        }
    }
}

#[test]
fn a_socket_that_is_named_by_a_flag_is_not_said_to_be_the_variables() {
    let world = World::new();
    let output = world
        .jobcred(&["token", "--socket", "/not/there.sock"])
        .run();
    assert_eq!(output.code, Some(123));
    assert!(
        output.stderr.contains("/not/there.sock"),
        "{}",
        output.stderr
    );
    assert!(
        !output.stderr.contains("JOBCRED_SOCKET"),
        "{}",
        output.stderr
    );
    let output = world.jobcred(&["token"]).run();
    assert!(
        output.stderr.contains("JOBCRED_SOCKET"),
        "{}",
        output.stderr
    );
}

#[test]
fn token_shows_whose_it_is_and_only_raw_shows_it() {
    let (aml, world) = cluster();
    let _agent = world.agent();
    let own = aml.options().identities.first().unwrap();
    // Searched for the token, as every output here.
    let text = world.jobcred(&["token"]).run().succeeded().stdout;
    for part in [
        &own.object_id,
        &own.client_id,
        &own.tenant_id,
        "https://storage.azure.com",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let json = world.jobcred(&["token", "--json"]).run().succeeded().json();
    assert_eq!(json["claims"]["object_id"], own.object_id);
    assert_eq!(json["claims"]["kind"], "app");
    assert_eq!(json["expires_on"], aml.tokens()[0].expires_on);

    let raw = world
        .jobcred(&["token", "--raw"])
        .declared()
        .run()
        .succeeded();
    assert_eq!(raw.stdout, format!("{}\n", aml.tokens()[0].token));
    assert_eq!(aml.requests().len(), 1);

    let scope = [
        "token",
        "--scope",
        "https://vault.azure.net/.default",
        "--raw",
    ];
    let raw = world.jobcred(&scope).declared().run().succeeded();
    assert_eq!(raw.stdout.trim(), aml.tokens()[1].token);
    assert_eq!(
        aml.tokens()[1].audience.trim_end_matches('/'),
        "https://vault.azure.net"
    );

    let wrong = world.jobcred(&["token", "two words"]).run();
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(125), ""));
    let unknown = [
        "token",
        "--client-id",
        "11111111-2222-3333-4444-555555555555",
    ];
    let unknown = world.jobcred(&unknown).run();
    assert_eq!(
        (unknown.code, unknown.stdout.as_str()),
        (Some(125), ""),
        "{}",
        unknown.stderr
    );
}

#[test]
fn without_an_agent_every_client_says_so() {
    let (_aml, world) = cluster();
    for arguments in [
        &["token"][..],
        &["token", "--raw"],
        &["status"],
        &["status", "--json"],
        &["env"],
        &["health"],
    ] {
        let output = world.jobcred(arguments).run();
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(123), ""),
            "{arguments:?}"
        );
        let socket = world.socket().display().to_string();
        assert!(
            output.stderr.contains(&socket),
            "{arguments:?}: {}",
            output.stderr
        );
    }
    let wait = world.jobcred(&["wait", "--timeout", "1"]).run();
    assert_eq!((wait.code, wait.stdout.as_str()), (Some(124), ""));
    assert!(
        wait.stderr.contains("not ready after 1 s"),
        "{}",
        wait.stderr
    );
}

#[test]
fn status_tells_what_is_held_and_how_it_fares() {
    let (aml, world) = cluster();
    let agent = world.agent();
    for _ in 0..3 {
        assert_eq!(world.storage().status, 200);
    }
    let status = world
        .jobcred(&["status", "--json"])
        .run()
        .succeeded()
        .json();
    assert_eq!(status["pid"], agent.process().pid());
    assert_eq!(status["strategy"], "compute-identity");
    assert_eq!(status["ready"], true);
    let own = aml.options().identities.first().unwrap();
    assert_eq!(status["principal"]["object_id"], own.object_id);
    let token = &status["tokens"][0];
    assert_eq!(token["resource"], "https://storage.azure.com/");
    assert_eq!(token["expires_on"], aml.tokens()[0].expires_on);
    assert_eq!(
        (&token["fetches"], &token["failures"]),
        (&Value::from(1), &Value::from(0))
    );
    assert!(token["hits"].as_u64().unwrap() >= 2, "{status}");
    assert!(
        (86_000..=86_400).contains(&status["runway"].as_i64().unwrap()),
        "{status}"
    );
    let callers = status["callers"].as_array().unwrap();
    assert!(
        callers
            .iter()
            .any(|caller| caller["requests"].as_u64() >= Some(3)),
        "{status}"
    );

    let text = world.jobcred(&["status"]).run().succeeded().stdout;
    assert!(
        text.contains("compute-identity") && text.contains("runway"),
        "{text}"
    );
    let metrics = world.ask("GET", "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(metrics.body.contains("# TYPE jobcred_"), "{}", metrics.body);
}

#[test]
fn wait_and_readiness_are_about_declared_tokens() {
    let (aml, world) = cluster();
    let world = world.with_environment([(
        "JOBCRED_RESOURCES",
        "https://storage.azure.com,https://vault.azure.net",
    )]);
    aml.script().set_default(Behavior::hold("issued"));
    let agent = world.agent();
    assert!(aml.msi().recorder().wait_for(1, crate::support::HUNG));
    let not_yet = world.ask("GET", "/readyz");
    assert_eq!(
        (not_yet.status, not_yet.code().as_str()),
        (503, "transient")
    );
    world.jobcred(&["health"]).run().succeeded();
    assert_ne!(world.jobcred(&["health", "--ready"]).run().code, Some(0));

    let waiting = world.jobcred(&["wait", "--timeout", "60"]).start();
    aml.script().release("issued");
    waiting.finish().succeeded();
    assert_eq!(world.ask("GET", "/readyz").status, 200);
    world.jobcred(&["health", "--ready"]).run().succeeded();
    // Both are there before anybody asked for them.
    assert_eq!(aml.requests().len(), 2);
    assert_eq!(world.storage().status, 200);
    assert_eq!(aml.requests().len(), 2);
    agent.end().succeeded();
}

#[test]
fn env_makes_a_shell_find_the_agent() {
    let (_aml, world) = cluster();
    let _agent = world.agent();
    let jobcred = crate::support::binary("jobcred").display().to_string();
    let script = format!(
        "lines=$({jobcred} env) && unset JOBCRED_SOCKET && eval \"$lines\" && {jobcred} token --json"
    );
    let shell = world.call(std::path::Path::new("/bin/sh"), &["-c", &script]);
    assert_eq!(shell.run().succeeded().json()["claims"]["kind"], "app");
}

/// The outcome of one strategy in `explain --json`.
#[track_caller]
#[test]
fn where_nothing_is_found_the_fix_is_told() {
    let world = World::new().with_environment([("JOBCRED_PROBE", "false")]);
    let explained = world.jobcred(&["explain", "--json"]).run();
    assert_eq!(explained.code, Some(121));
    assert_eq!(explained.json()["reason"], "nothing_found");
    let agent = world.jobcred(&["agent"]).run();
    assert_eq!(agent.code, Some(121));
    assert!(agent.stderr.contains("sandbox"), "{}", agent.stderr);
    // With nothing here a chain of credentials may go on.
    let jobcred = crate::support::binary("jobcred").display().to_string();
    let run = world
        .jobcred(&[
            "run",
            "--",
            "sh",
            "-c",
            &format!("{jobcred} wait --timeout 30; echo $?"),
        ])
        .run()
        .succeeded();
    assert_eq!(run.stdout, "118\n", "{}", run.stderr);
}

#[test]
fn the_sandbox_is_marked_and_apart() {
    let (aml, world) = cluster();
    let agent = world.agent();
    let jobcred = crate::support::binary("jobcred").display().to_string();
    let script = format!("echo $JOBCRED_SOCKET; {jobcred} token --json");
    let run = world
        .jobcred(&["run", "--sandbox", "--", "sh", "-c", &script])
        .run()
        .succeeded();
    let (socket, json) = run.stdout.split_once('\n').unwrap();
    assert_ne!(socket, world.socket().to_str().unwrap());
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["claims"]["sandbox"], true);
    assert_eq!(aml.requests().len(), 0);
    agent.is_unharmed();
    // An agent in the foreground does not take the usual place either, and says why.
    let mut sidecar = world
        .jobcred(&["agent", "--sandbox"])
        .env("JOBCRED_GRACE", "0");
    sidecar = sidecar.env("JOBCRED_SOCKET", "/run/jobcred/agent.sock");
    let sidecar = sidecar.start();
    sidecar.wait_for_stderr("listening at");
    assert!(
        sidecar.stderr().contains("never found by accident"),
        "{}",
        sidecar.stderr()
    );
    sidecar.signal(Signal::SIGTERM);
    sidecar.finish().succeeded();
    // Neither a file nor a variable can turn a job into one.
    let sneaked = world
        .jobcred(&["agent"])
        .env("JOBCRED_STRATEGY", "sandbox")
        .run();
    assert_eq!(sneaked.code, Some(2));
}

#[test]
fn a_uid_to_trust_that_is_none_is_a_mistake_that_every_client_names() {
    let (aml, world) = cluster();
    let _agent = world.agent();
    let helper = binary("docker-credential-jobcred");
    for (value, names_it) in [("12x", true), ("-1", true), (" ", false), ("0", false)] {
        for arguments in [
            &["token"][..],
            &["status"],
            &["wait"],
            &["health", "--ready"],
        ] {
            let call = world.jobcred(arguments).env("JOBCRED_AGENT_UID", value);
            let output = call.declared().run();
            let code = if names_it { 2 } else { 0 };
            let case = format!("{value:?} {arguments:?}: {}", output.stderr);
            assert_eq!(output.code, Some(code), "{case}");
            let said = output.stderr.contains("JOBCRED_AGENT_UID is no uid");
            assert_eq!(said, names_it, "{case}");
        }
    }
    let refused = world
        .call(&helper, &["get"])
        .env("JOBCRED_AGENT_UID", "12x")
        .input("registry.azurecr.io")
        .run();
    let said = refused.stdout + &refused.stderr;
    assert_ne!(refused.code, Some(0));
    assert!(said.contains("JOBCRED_AGENT_UID is no uid"), "{said}");
    assert_eq!(aml.requests().len(), 1);
}

#[test]
fn what_a_shell_needs_to_trust_the_agent_is_passed_on() {
    let (_aml, world) = cluster();
    let _agent = world.agent();
    let output = world
        .jobcred(&["env"])
        .env("JOBCRED_AGENT_UID", "65532")
        .run()
        .succeeded();
    assert!(
        output.stdout.contains("export JOBCRED_AGENT_UID='65532'\n"),
        "{}",
        output.stdout
    );
    let without = world.jobcred(&["env"]).run().succeeded();
    assert!(!without.stdout.contains("JOBCRED_AGENT_UID"));
}

#[test]
fn the_socket_of_the_configuration_file_is_where_every_command_asks() {
    let (_aml, world) = cluster();
    let socket = world.path().join("elsewhere").join("agent.sock");
    let file = world.path().join("jobcred.toml");
    fs::write(&file, format!("socket = \"{}\"\n", socket.display())).unwrap();
    let file = file.display().to_string();
    let agent = world
        .jobcred(&["agent", "--config", &file])
        .env("JOBCRED_SOCKET", "")
        .start();
    agent.wait_for_stderr("listening at");
    assert!(socket.exists());
    for arguments in [
        &["token"][..],
        &["status"],
        &["wait", "--timeout", "1"],
        &["health", "--ready"],
        &["env"],
    ] {
        let by_flag = world.jobcred(arguments).args(&["--config", &file]);
        by_flag.env("JOBCRED_SOCKET", "").run().succeeded();
        let by_variable = world.jobcred(arguments).env("JOBCRED_CONFIG", &file);
        by_variable.env("JOBCRED_SOCKET", "").run().succeeded();
        // A variable beats the file, here as everywhere.
        let by_both = world.jobcred(arguments).env("JOBCRED_CONFIG", &file);
        assert_ne!(by_both.run().code, Some(0), "{arguments:?}");
    }
    fs::write(world.path().join("broken.toml"), "sockt = 1\n").unwrap();
    let broken = world.path().join("broken.toml").display().to_string();
    let output = world
        .jobcred(&["status", "--config", &broken])
        .env("JOBCRED_SOCKET", "")
        .run();
    assert_eq!(output.code, Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("sockt"), "{}", output.stderr);
}
