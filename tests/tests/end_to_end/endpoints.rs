//! Whose an identity endpoint is, how long it lives, and when a command gets none.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use jobcred_tests::{AzureMl, AzureMlOptions, Imds, ImdsOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Held, SdkRequest, World, ask_as, binary, wait_until};

const QUERY: &str = "api-version=2019-08-01&resource=https://storage.azure.com";
const PAIR: [&str; 2] = ["IDENTITY_ENDPOINT", "IDENTITY_HEADER"];

struct Node {
    aml: AzureMl,
    world: World,
}

impl Node {
    fn new() -> Self {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let world = World::new()
            .with_environment(aml.environment())
            .with_secrets(aml.secrets());
        Self { aml, world }
    }

    fn run(&self, name: &str) -> Held {
        Held::start(&self.world, name, &[], &[])
    }

    fn agent(&self) -> Pid {
        let status = self.world.ask("GET", "/v1/status").json();
        Pid::from_raw(i32::try_from(status["pid"].as_i64().unwrap()).unwrap())
    }
}

fn base(imds: &Imds) -> String {
    imds.endpoint().url("")
}

fn request(run: &Held) -> SdkRequest {
    SdkRequest::get(&run.variable("IDENTITY_ENDPOINT"))
        .header("x-identity-header", &run.variable("IDENTITY_HEADER"))
        .query(QUERY)
}

#[test]
fn an_endpoint_outlives_its_agent_and_ends_with_its_run() {
    let node = Node::new();
    let run = node.run("only");
    let asked = request(&run);
    assert_eq!(asked.send().status, 200);
    // The secret is nowhere but in COMMAND's environment.
    run.process.check_arguments(run.process.pid());
    let header = run.variable("IDENTITY_HEADER");
    let agent = node.agent();
    let arguments = std::fs::read_to_string(format!("/proc/{agent}/cmdline")).unwrap();
    assert!(!arguments.contains(&header));

    for count in 2..4 {
        kill(node.agent(), Signal::SIGKILL).unwrap();
        // Requests wait for the next agent, as they do on the socket.
        let answer = asked.send();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(node.aml.requests().len(), count);
    }
    let address = (
        asked.url.host_str().unwrap().to_owned(),
        asked.url.port().unwrap(),
    );
    run.end();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn runs_that_share_an_agent_have_an_endpoint_each() {
    let node = Node::new();
    let first = node.run("first");
    let second = node.run("second");
    assert_ne!(first.variable(PAIR[0]), second.variable(PAIR[0]));
    assert_ne!(first.variable(PAIR[1]), second.variable(PAIR[1]));
    for (run, other) in [(&first, &second), (&second, &first)] {
        assert_eq!(request(run).send().status, 200);
        let mixed = request(run).header("x-identity-header", &other.variable(PAIR[1]));
        assert_eq!(mixed.send().status, 401);
    }
    assert_eq!(node.aml.requests().len(), 1);

    // The starter goes; its endpoint goes with it, and the other's stays.
    let gone = request(&first);
    let stays = request(&second);
    first.end();
    assert!(gone.try_send().is_err());
    assert_eq!(stays.send().status, 200);
    assert_eq!(node.aml.requests().len(), 1);
    // Now its agent dies too, and the sharer starts one in its place.
    kill(node.agent(), Signal::SIGKILL).unwrap();
    assert_eq!(stays.send().status, 200);
    assert_eq!(node.aml.requests().len(), 2);
    second.end();
}

#[test]
fn a_sharers_endpoint_outlives_the_agent_that_it_shared() {
    let node = Node::new();
    let first = node.run("first");
    let second = node.run("second");
    assert_eq!(request(&second).send().status, 200);
    kill(node.agent(), Signal::SIGKILL).unwrap();
    for run in [&second, &first, &second] {
        assert_eq!(request(run).send().status, 200);
    }
    kill(Pid::from_raw(first.process.pid()), Signal::SIGKILL).unwrap();
    kill(node.agent(), Signal::SIGKILL).unwrap();
    assert_eq!(request(&second).send().status, 200);
    second.end();
}

/// Lets a process have this many more descriptors than it has, or as many as it likes.
fn allow_descriptors(process: Pid, more: Option<usize>) {
    let held: Vec<u64> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    let mut free = (0..).filter(|number| !held.contains(number));
    let first_without = more.map_or(1024, |more| free.nth(more).unwrap());
    let status = Command::new("prlimit")
        .arg(format!("--pid={process}"))
        .arg(format!("--nofile={first_without}:"))
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn an_endpoint_that_the_agent_had_no_descriptor_for_is_offered_again() {
    let node = Node::new();
    // The agent says there why it refuses.
    let first = Held::start(&node.world, "first", &[], &[("JOBCRED_LOG", "info")]);
    // Nothing but this comes and goes from here on, so what the agent holds is known.
    let mut asking = node.world.connect();
    let mut ask = |path| asking.ask("GET", path).unwrap().json();
    wait_until("the agent has the offer of the first run", || {
        ask("/v1/endpoint")["variables"] != serde_json::json!({})
    });
    let agent = ask("/v1/status")["pid"].as_i64().unwrap();
    let agent = Pid::from_raw(i32::try_from(agent).unwrap());
    // Two connections, the second run's lease and its offer; and none for what comes with the latter.
    allow_descriptors(agent, Some(2));
    let second = node.run("second");
    // Nothing else happens that would make the run look again.
    let refusals = || {
        first
            .process
            .stderr()
            .matches("no listener came along")
            .count()
    };
    wait_until("the agent has refused two offers", || refusals() >= 2);
    allow_descriptors(agent, None);
    assert_eq!(request(&second).send().status, 200);
    second.end();
    first.end();
}

#[test]
fn a_command_without_an_identity_is_given_nothing() {
    // The strategy is wrong here; nothing was found; the metadata service, which SDKs ask by themselves.
    for (name, variables) in [
        ("wrong", vec![("AZUREML_OBO_ENABLED", "True")]),
        ("nothing", vec![]),
        (
            "unsupported",
            vec![
                ("IDENTITY_ENDPOINT", "http://127.0.0.1:1/"),
                ("IMDS_ENDPOINT", "http://127.0.0.1:1/"),
            ],
        ),
    ] {
        let world = World::new();
        let run = Held::start(&world, name, &[], &variables);
        assert_eq!(run.variable("IDENTITY_HEADER"), "", "{name}");
        assert_eq!(run.variable("JOBCRED_OWN_ENDPOINTS"), "", "{name}");
        run.process.wait_for_stderr("no token can be had");
        run.end();
    }
}

#[test]
fn what_is_in_the_environment_for_sdks_stays_there() {
    let node = Node::new();
    for name in [
        "IDENTITY_ENDPOINT",
        "IDENTITY_HEADER",
        "IDENTITY_SERVER_THUMBPRINT",
        "IMDS_ENDPOINT",
    ] {
        let run = Held::start(&node.world, name, &[], &[(name, "http://127.0.0.1:1/own")]);
        for variable in [
            "IDENTITY_ENDPOINT",
            "IDENTITY_HEADER",
            "IMDS_ENDPOINT",
            "JOBCRED_OWN_ENDPOINTS",
        ] {
            let expected = if variable == name {
                "http://127.0.0.1:1/own"
            } else {
                ""
            };
            assert_eq!(run.variable(variable), expected, "{name}");
        }
        run.end();
    }
    // And what is nobody's business in any case.
    let client_id = "11111111-2222-3333-4444-555555555555";
    let run = Held::start(
        &node.world,
        "client",
        &[],
        &[("AZURE_CLIENT_ID", client_id)],
    );
    assert_eq!(run.variable("AZURE_CLIENT_ID"), client_id);
    assert_eq!(run.variable("AZURE_TOKEN_CREDENTIALS"), "");
    assert_ne!(run.variable("IDENTITY_HEADER"), "");
    run.end();
}

#[test]
fn exclusive_leads_past_what_would_go_around() {
    let node = Node::new();
    // A job of Azure ML, whose own endpoint comes first there.
    let platform = [
        ("AZUREML_RUN_ID", "keen_rhubarb_1"),
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:1/own"),
        ("IDENTITY_HEADER", "own"),
    ];
    let run = Held::start(&node.world, "flag", &["--exclusive"], &platform);
    assert_eq!(
        run.variable("AZURE_TOKEN_CREDENTIALS"),
        "ManagedIdentityCredential"
    );
    assert_eq!(request(&run).send().status, 200);
    assert_eq!(run.variable("JOBCRED_PLATFORM_IDENTITY_HEADER"), "own");
    run.end();
    let run = Held::start(&node.world, "key", &[], &[("JOBCRED_EXCLUSIVE", "true")]);
    assert_eq!(
        run.variable("AZURE_TOKEN_CREDENTIALS"),
        "ManagedIdentityCredential"
    );
    run.end();
}

#[test]
fn the_dialects_can_be_switched_off() {
    let node = Node::new();
    let run = Held::start(&node.world, "off", &[], &[("JOBCRED_DIALECTS", "none")]);
    for name in PAIR {
        assert_eq!(run.variable(name), "");
    }
    assert_ne!(run.variable("JOBCRED_SOCKET"), "");
    run.end();
}

#[test]
fn a_run_inside_a_run_asks_the_platform_and_not_itself() {
    let node = Node::new();
    let all = [("JOBCRED_DIALECTS", "app_service,azure_ml,imds")];
    let outer = Held::start(&node.world, "outer", &[], &all);
    assert_ne!(outer.variable("MSI_ENDPOINT"), node.aml.msi_endpoint());
    let given: Vec<(&str, &str)> = outer
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    // The same decision, so the same agent; and one that has an agent of its own.
    for (name, more, is_shared) in [
        ("inner", None, true),
        ("aside", Some(("JOBCRED_ALLOW_IDENTITIES", "none")), false),
    ] {
        let variables: Vec<_> = given.iter().copied().chain(more).collect();
        let inner = Held::start(&node.world, name, &[], &variables);
        let shares = inner.process.stderr().contains("shares the agent");
        assert_eq!(shares, is_shared, "{}", inner.process.stderr());
        let answer = request(&inner).send();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_ne!(inner.variable(PAIR[0]), outer.variable(PAIR[0]));
        inner.end();
    }
    assert_eq!(request(&outer).send().status, 200);
    assert_eq!(node.aml.requests().len(), 2);
    outer.end();
}

#[test]
fn the_metadata_service_is_left_to_the_sdks_unless_asked_for() {
    let imds = Imds::start(ImdsOptions::default()).unwrap();
    let world = World::new()
        .with_environment([("AZURE_POD_IDENTITY_AUTHORITY_HOST", base(&imds))])
        .with_secrets(imds.secrets());
    let run = Held::start(&world, "auto", &[], &[]);
    assert_eq!(run.variable(PAIR[0]), "");
    run.end();
    let run = Held::start(
        &world,
        "asked",
        &[],
        &[("JOBCRED_DIALECTS", "app_service,imds")],
    );
    assert_ne!(
        run.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        base(&imds)
    );
    assert_eq!(request(&run).send().status, 200);
    assert_eq!(imds.requests().len(), 1);
    run.end();
}

#[test]
fn only_the_jobs_own_users_are_served_over_tcp() {
    const OTHER: &str = "61702";
    let ask = |world: &World, run: &Held, uid: &str| {
        let given = PAIR.map(|name| (name.to_owned(), run.variable(name)));
        ask_as(world, uid, &given)
    };
    let node = Node::new();
    let run = node.run("roots");
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs real root: it becomes other users"
    );
    assert!(ask(&node.world, &run, "0").starts_with("200"));
    // Root's job may become somebody else and keep its environment.
    assert!(ask(&node.world, &run, OTHER).starts_with("200"));
    run.end();

    let own = node.world.path().join("somebody");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(61_701), Some(61_701)).unwrap();
    let program = own.join("jobcred");
    // The build's own directory may be closed to other users.
    std::fs::copy(binary("jobcred"), &program).unwrap();
    let file = own.join("environment");
    let place = own.join("own").join("agent.sock");
    let script = format!(
        r"env -0 > {0}.new && mv {0}.new {0}; echo ready; exec sleep 1000",
        file.display()
    );
    let setpriv = PathBuf::from("/usr/bin/setpriv");
    let process = node
        .world
        .call(
            &setpriv,
            &[
                "--reuid",
                "61701",
                "--regid",
                "61701",
                "--clear-groups",
                program.to_str().unwrap(),
                "run",
                "--",
                "sh",
                "-c",
                &script,
            ],
        )
        .env("JOBCRED_SOCKET", &place)
        .env("JOBCRED_JOB_LOG", "off")
        .start();
    process.wait_for_stdout("ready\n");
    let text = std::fs::read_to_string(&file).unwrap();
    let given = text
        .split_terminator('\0')
        .filter_map(|line| line.split_once('='));
    let environment = given
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let run = Held::of(process, environment);
    assert!(ask(&node.world, &run, "61701").starts_with("200"));
    assert!(ask(&node.world, &run, "0").starts_with("200"));
    let denied = ask(&node.world, &run, OTHER);
    assert!(denied.starts_with("403"), "{denied}");
    assert!(
        denied.contains("uid 61702 may not ask this agent"),
        "{denied}"
    );
    run.process.signal(Signal::SIGTERM);
    run.process.finish();
}

#[test]
fn a_shell_is_led_to_the_endpoint_by_env() {
    let node = Node::new();
    let run = node.run("only");
    let script = r#"eval "$("$0" env)"; printf '%s\n%s\n%s\n' "$IDENTITY_ENDPOINT" "$IDENTITY_HEADER" "$JOBCRED_OWN_ENDPOINTS""#;
    let program = binary("jobcred");
    let shell = PathBuf::from("/bin/sh");
    let arguments = ["-c", script, program.to_str().unwrap()];
    let output = node.world.call(&shell, &arguments).declared().run();
    let given: Vec<&str> = output.stdout.lines().collect();
    let expected = [
        &run.variable(PAIR[0]),
        &run.variable(PAIR[1]),
        &run.variable(PAIR[0]),
    ];
    assert_eq!(given, expected, "{}", output.stderr);

    for (tool, variable) in [
        ("azcopy", "AZCOPY_AUTO_LOGIN_TYPE='MSI'"),
        ("adlfs", "AZURE_STORAGE_ANON='false'"),
        ("rclone", "RCLONE_AZUREBLOB_USE_MSI='true'"),
        ("az", "AZURE_CORE_USE_MSAL_MANAGED_IDENTITY='true'"),
        ("object_store", "AZURE_MSI_ENDPOINT="),
    ] {
        let output = node.world.jobcred(&["env", "--for", tool]).declared().run();
        let text = output.succeeded().stdout;
        assert!(
            text.contains(&format!("export {variable}")),
            "{tool}: {text}"
        );
        assert!(text.contains("export IDENTITY_HEADER="), "{tool}: {text}");
        assert!(text.starts_with("# "), "{tool}: {text}");
        // Every line is one that a shell takes.
        let checked = node.world.call(&shell, &["-n"]).input(&text).run();
        checked.succeeded();
    }
    run.end();
    // An agent without an endpoint has nothing to show a tool, and all else for a shell.
    let run = Held::start(&node.world, "without", &[], &[("JOBCRED_DIALECTS", "none")]);
    let plain = node.world.jobcred(&["env"]).run().succeeded().stdout;
    assert!(
        plain.contains("JOBCRED_SOCKET") && !plain.contains("IDENTITY_"),
        "{plain}"
    );
    // l1: without an endpoint there is nothing to exempt.
    assert!(!plain.to_lowercase().contains("no_proxy"), "{plain}");
    let output = node.world.jobcred(&["env", "--for", "azcopy"]).run();
    assert_eq!(output.code, Some(125));
    assert!(output.stderr.contains("--exclusive"), "{}", output.stderr);
    run.end();
}

/// What a container finds that sources the file of a sidecar.
pub fn sourced(world: &World) -> Vec<(String, String)> {
    let file = world.socket().with_file_name("endpoint.env");
    let script = format!(". {}; env -0", file.display());
    let shell = PathBuf::from("/bin/sh");
    let output = world.call(&shell, &["-c", &script]).declared().run();
    let text = output.succeeded().stdout;
    text.split_terminator('\0')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn c5_every_posix_shell_takes_the_file() {
    let node = Node::new();
    let world = node
        .world
        .with_environment([("JOBCRED_ENDPOINT_PORT", "21604")]);
    let agent = world.agent();
    agent.wait_for_log("identity endpoint at 127.0.0.1:");
    let file = world.socket().with_file_name("endpoint.env");
    let script = format!(
        ". {}; printf '%s %s %s' \"$NO_PROXY\" \"$no_proxy\" \"$IDENTITY_ENDPOINT\"",
        file.display()
    );
    for shell in [
        &["sh"][..],
        &["bash", "--posix"],
        &["bash"],
        &["busybox", "sh"],
    ] {
        for (before, after) in [
            ("", "127.0.0.1,localhost"),
            ("*", "*"),
            ("*,x", "*,x,127.0.0.1,localhost"),
            ("a,localhost,", "a,localhost,127.0.0.1"),
        ] {
            let words = [&["NO_PROXY=".to_owned() + before][..]].concat();
            let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
            arguments.extend(shell);
            arguments.extend(["-euc", &script]);
            let output = world
                .call(&PathBuf::from("/usr/bin/env"), &arguments)
                .declared()
                .run();
            let expected = format!("{after} {after} http://127.0.0.1:21604/msi/token");
            assert_eq!(output.succeeded().stdout, expected, "{shell:?} {before:?}");
        }
    }
}

#[test]
fn a_sidecar_has_an_endpoint_at_its_port_and_keeps_its_secret() {
    let port = "21605".to_owned();
    let node = Node::new();
    let node = Node {
        world: node
            .world
            .with_environment([("JOBCRED_ENDPOINT_PORT", port.as_str())]),
        aml: node.aml,
    };
    let value = |variables: &[(String, String)], name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut before = String::new();
    for round in 0..2 {
        let agent = node.world.agent();
        agent.wait_for_log("identity endpoint at 127.0.0.1:");
        let given = sourced(&node.world);
        assert_eq!(
            value(&given, PAIR[0]),
            format!("http://127.0.0.1:{port}/msi/token")
        );
        let header = value(&given, PAIR[1]);
        assert_eq!(header.len(), 64);
        // c5: no proxy of the container that sources the file gets to see it.
        for name in ["NO_PROXY", "no_proxy"] {
            assert_eq!(value(&given, name), "127.0.0.1,localhost");
        }
        assert!(round == 0 || header == before, "the secret is another one");
        before.clone_from(&header);
        let asked = SdkRequest::get(&value(&given, PAIR[0]))
            .header("x-identity-header", &header)
            .query(QUERY);
        assert_eq!(asked.send().status, 200);
        // The dialects without a secret are off unless they are asked for.
        assert_eq!(value(&given, "AZURE_POD_IDENTITY_AUTHORITY_HOST"), "");
        agent.end().succeeded();
        assert!(asked.try_send().is_err());
    }
    // A port that is taken is said, and costs nothing else.
    let taken = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let agent = node.world.agent();
    agent.wait_for_log("there is no identity endpoint");
    assert_eq!(node.world.storage().status, 200);
    agent.end().succeeded();
    drop(taken);
    // A `run` has a port of its own.
    let run = node.run("beside");
    assert!(!run.variable(PAIR[0]).contains(&format!(":{port}/")));
    assert_eq!(request(&run).send().status, 200);
    run.end();
}

#[test]
fn an_offer_without_a_listener_is_refused_and_harms_nobody() {
    let node = Node::new();
    let agent = node.world.agent();
    for (headers, part) in [("", "no secret"), ("jobcred-secret: x\r\n", "no listener")] {
        let mut connection = node.world.connect();
        let request =
            format!("POST /v1/endpoint HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n{headers}\r\n");
        connection.send(request.as_bytes()).unwrap();
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.error("message").contains(part), "{}", answer.body);
    }
    let shown = node.world.ask("GET", "/v1/endpoint").json();
    assert_eq!(shown, serde_json::json!({"variables": {}}));
    agent.is_unharmed();
}
