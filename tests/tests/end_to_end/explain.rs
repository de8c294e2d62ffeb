//! `jobcred explain`: what it says of the agent that runs here, and of one that would.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;

use jobcred_tests::{Behavior, Secrets};
use serde_json::Value;

use crate::support::{binary, cluster};

fn candidate<'a>(explanation: &'a Value, strategy: &str) -> &'a Value {
    explanation["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .find(|candidate| candidate["strategy"] == strategy)
        .unwrap_or_else(|| panic!("{strategy} is not in {explanation:#}"))
}

#[test]
fn explain_says_the_same_with_and_without_an_agent() {
    let (aml, world) = cluster();
    let alone = world
        .jobcred(&["explain", "--json"])
        .run()
        .succeeded()
        .json();
    assert_eq!(alone["strategy"], "compute-identity");
    assert_eq!(alone["reason"], "client_id_given");
    assert_eq!(candidate(&alone, "compute-identity")["outcome"], "chosen");
    let passed = candidate(&alone, "user-identity");
    assert_eq!(passed["outcome"], "passed_over");
    assert_eq!(passed["reason"], "obo_not_enabled");
    for strategy in [
        "kubernetes",
        "system-identity",
        "compute-instance-user",
        "service-principal",
    ] {
        assert_eq!(
            candidate(&alone, strategy)["outcome"],
            "passed_over",
            "{strategy}"
        );
        assert_ne!(
            candidate(&alone, strategy)["evidence"],
            serde_json::json!([]),
            "{strategy}"
        );
    }
    let agent = world.agent();
    let beside = world
        .jobcred(&["explain", "--json"])
        .run()
        .succeeded()
        .json();
    assert_eq!(beside["candidates"], alone["candidates"]);
    let served = world.ask("GET", "/v1/explain").json();
    assert_eq!(served["candidates"], alone["candidates"]);
    assert_eq!(aml.requests().len(), 0, "explaining asks nobody");

    let explain = world.jobcred(&["explain"]).env("AZURE_STORAGE_KEY", "set");
    let text = explain.run().succeeded().stdout;
    assert!(text.contains("AZURE_STORAGE_KEY"), "{text}");
    assert!(
        text.contains("compute-identity") && !text.contains('\u{1b}'),
        "{text}"
    );
    let coloured = world
        .jobcred(&["explain", "--color", "always"])
        .run()
        .succeeded();
    assert!(coloured.stdout.contains('\u{1b}'));
    agent.end().succeeded();
}

#[test]
fn explain_with_a_probe_says_whose_the_token_is() {
    let (aml, world) = cluster();
    let own = aml.options().identities.first().unwrap();
    let probe = world
        .jobcred(&["explain", "--json", "--probe"])
        .run()
        .succeeded()
        .json();
    assert_eq!(probe["principal"]["object_id"], own.object_id);
    assert_eq!(probe["principal"]["kind"], "app");
    assert_eq!(aml.requests().len(), 1);
    let text = world
        .jobcred(&["explain", "--probe"])
        .run()
        .succeeded()
        .stdout;
    assert!(
        text.contains(&own.object_id) && text.contains(&own.tenant_id),
        "{text}"
    );

    // One that the platform has had for long: groups changed since then are not in it.
    let now = aml.msi().clock().now();
    aml.mint()
        .set_claims([("iat".to_owned(), serde_json::json!(now - 9 * 3_600))]);
    let old = world
        .jobcred(&["explain", "--json", "--probe"])
        .run()
        .succeeded()
        .json();
    let notices = old["notices"].as_array().unwrap();
    assert!(
        notices
            .iter()
            .any(|notice| notice["code"] == "token_of_earlier"),
        "{old:#}"
    );
    aml.mint().set_claims([]);

    // Not whom the strategy promises: shown, warned about, refused.
    aml.mint().set_impostor(Some(aml.options().user.clone()));
    let lied = world.jobcred(&["explain", "--json", "--probe"]).run();
    assert_eq!(lied.code, Some(125), "{}", lied.stderr);
    let lied = lied.json();
    assert_eq!(lied["principal"]["kind"], "user");
    assert_eq!(lied["probe_error"]["code"], "rejected");
    let notices = lied["notices"].as_array().unwrap();
    assert!(
        notices
            .iter()
            .any(|notice| notice["code"] == "promise_user_token"),
        "{lied:#}"
    );

    aml.script()
        .set_default(Behavior::text(400, &format!("no, {}", aml.secret())));
    let refused = world.jobcred(&["explain", "--probe"]).run();
    assert_eq!(refused.code, Some(125));
    assert!(refused.stderr.contains("400"), "{}", refused.stderr);
    // A program reads it too, and a report has the kind without the message.
    let refused = world.jobcred(&["explain", "--json", "--probe"]).run();
    assert_eq!(refused.code, Some(125));
    let json = refused.json();
    assert_eq!(json["probe_error"]["code"], "rejected");
    assert!(
        json["probe_error"]["message"]
            .as_str()
            .unwrap()
            .contains("400"),
        "{json:#}"
    );
    let report = world.jobcred(&["explain", "--report", "--probe"]).run();
    assert_eq!(report.code, Some(125));
    assert!(
        report.stdout.contains("probe     failed: rejected\n"),
        "{}",
        report.stdout
    );
}

#[test]
fn a_report_names_variables_and_no_values() {
    let (aml, world) = cluster();
    let world = world.with_environment([("AZURE_STORAGE_KEY", "Q2hlY2tzdW0gb2YgYSBrZXk=")]);
    let secrets = Secrets::new();
    // None of these is a secret; a report has none of them either.
    secrets.add(
        "client id",
        &aml.options().identities.first().unwrap().client_id,
    );
    secrets.add("endpoint", &aml.msi_endpoint());
    secrets.add("storage key", "Q2hlY2tzdW0gb2YgYSBrZXk=");
    let world = world.with_secrets(&secrets);
    for arguments in [
        &["explain", "--report"][..],
        &["explain", "--report", "--probe"],
    ] {
        let report = world.jobcred(arguments).env("JOBCRED_LOG", "warn").run();
        assert_eq!(report.code, Some(0), "{}", report.stderr);
        for part in [
            "compute-identity",
            "client_id_given",
            "DEFAULT_IDENTITY_CLIENT_ID",
            "bypass_storage_key",
        ] {
            assert!(
                report.stdout.contains(part),
                "{part} is not in\n{}",
                report.stdout
            );
        }
    }
}

#[test]
fn beside_an_agent_it_is_that_agents_decision_unless_another_is_asked_for() {
    let (aml, world) = cluster();
    let agent = world.agent();
    // As a process would ask that has lost the job's variables, or has others.
    let explain = |arguments: &[&str]| {
        let mut words = vec!["explain", "--json"];
        words.extend(arguments);
        let call = world.jobcred(&words).env("JOBCRED_PROBE", "false");
        let call = call.env("DEFAULT_IDENTITY_CLIENT_ID", "clientid");
        call.env("MSI_ENDPOINT", "").run()
    };
    let told = explain(&[]).succeeded().json();
    assert_eq!(told["strategy"], "compute-identity", "{told:#}");
    let pid = agent.process().pid();
    assert_eq!(told["agent"]["pid"], pid, "{told:#}");
    let file = world.path().join("empty.toml");
    fs::write(&file, "").unwrap();
    for arguments in [
        &["--anew"][..],
        &["--config", file.to_str().unwrap()],
        &["--strategy", "kubernetes"],
    ] {
        let told = explain(arguments);
        let json = told.json();
        assert_ne!(
            json["strategy"], "compute-identity",
            "{arguments:?} {json:#}"
        );
        assert_eq!(json.get("agent"), None, "{arguments:?} {json:#}");
    }
    let text = world.jobcred(&["explain"]).run().succeeded().stdout;
    let line = format!("by the agent that runs here (pid {pid}), ");
    assert!(text.contains(&line), "{text}");
    let anew = world.jobcred(&["explain", "--anew"]).run().succeeded();
    let line = "just now, as an agent started here would";
    assert!(anew.stdout.contains(line), "{}", anew.stdout);
    assert!(anew.stderr.is_empty(), "{}", anew.stderr);

    // Ways around jobcred are those of the process that asks.
    let told = world.jobcred(&["explain", "--json"]);
    let told = told
        .env("AZURE_STORAGE_KEY", "set")
        .run()
        .succeeded()
        .json();
    let notices = told["notices"].as_array().unwrap();
    let count = |code| notices.iter().filter(|it| it["code"] == code).count();
    assert_eq!(count("bypass_storage_key"), 1, "{told:#}");
    assert_eq!(count("bypass_old_sdk"), 1, "{told:#}");

    // A token is the agent's too: the first one is asked for upstream, the next is not.
    for _ in 0..2 {
        let told = explain(&["--probe"]).succeeded().json();
        assert_eq!(told["principal"]["kind"], "app", "{told:#}");
        assert_eq!(aml.requests().len(), 1);
    }
    agent.end().succeeded();
}

#[test]
fn what_the_agent_refuses_is_what_a_probe_says() {
    let (aml, world) = cluster();
    aml.script().set_default(Behavior::text(400, "no"));
    let agent = world.agent();
    let refused = world.jobcred(&["explain", "--json", "--probe"]).run();
    assert_eq!(refused.code, Some(125), "{}", refused.stderr);
    assert!(refused.stderr.contains("no token: "), "{}", refused.stderr);
    assert_eq!(refused.json()["probe_error"]["code"], "rejected");
    agent.end().succeeded();
}

#[test]
fn in_a_sandbox_it_tells_of_the_sandbox_and_asks_nobody() {
    let (aml, world) = cluster();
    let program = binary("jobcred").display().to_string();
    let run = world
        .jobcred(&[
            "run",
            "--sandbox",
            "--",
            &program,
            "explain",
            "--json",
            "--probe",
        ])
        .run()
        .succeeded();
    let told = run.json();
    assert_eq!(told["strategy"], "sandbox", "{told:#}");
    assert_eq!(told["principal"]["sandbox"], true, "{told:#}");
    assert_eq!(aml.requests().len(), 0);
}

#[test]
fn a_named_agent_that_does_not_answer_is_said() {
    let (_aml, world) = cluster();
    let told = world.jobcred(&["explain"]).run().succeeded();
    let line = "no jobcred agent answers at";
    assert!(told.stderr.contains(line), "{}", told.stderr);
    let line = "this is what one started here would decide";
    assert!(told.stderr.contains(line), "{}", told.stderr);

    // What answers, but is no agent, has decided nothing that could be told.
    fs::create_dir_all(world.socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(world.socket()).unwrap();
    let stranger = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"220 mail at your service\r\n").unwrap();
    });
    let told = world.jobcred(&["explain"]).run();
    assert_eq!(told.code, Some(123), "{}", told.stderr);
    assert!(told.stdout.is_empty(), "{}", told.stdout);
    assert!(told.stderr.contains("explain --anew"), "{}", told.stderr);
    stranger.join().unwrap();
}
