//! `jobcred run`: the agent dies, the job does not; the job is told to end and still gets its tokens.

use std::fs;
use std::path::Path;

use jobcred_tests::{AzureMl, AzureMlOptions, Behavior, Principal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Process, World, binary, wait_until};

/// A COMMAND that says it is ready, waits, and on SIGTERM writes a checkpoint with a token that nobody had asked for
/// before. `$1` is jobcred, `$2` the checkpoint.
const TRAINING: &str = r#"
    checkpoint() {
        "$1" token --json https://vault.azure.net > "$2.new" && mv "$2.new" "$2" && echo saved
        kill $child
        exit 5
    }
    tail -f /dev/null > /dev/null 2>&1 & child=$!
    trap 'checkpoint "$@"' TERM
    echo ready
    while kill -0 $child; do wait $child; done
"#;

struct Job {
    aml: AzureMl,
    world: World,
}

impl Job {
    fn new() -> Self {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let world = World::new()
            .with_environment(aml.environment())
            .with_secrets(aml.secrets());
        Self { aml, world }
    }

    fn start(&self) -> Process {
        let jobcred = binary("jobcred").display().to_string();
        let checkpoint = self.checkpoint().display().to_string();
        let process = self
            .world
            .jobcred(&[
                "run",
                "--",
                "sh",
                "-c",
                TRAINING,
                "sh",
                &jobcred,
                &checkpoint,
            ])
            .start();
        process.wait_for_stdout("ready\n");
        process
    }

    fn checkpoint(&self) -> std::path::PathBuf {
        self.world.path().join("checkpoint")
    }

    /// The pid of the agent that answers, after a look at its arguments.
    fn agent(&self, process: &Process) -> i32 {
        let status = self.world.ask("GET", "/v1/status").json();
        let pid = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
        process.check_arguments(pid);
        pid
    }
}

#[test]
fn an_agent_that_is_killed_is_replaced_and_nobody_loses_more_than_a_connection() {
    let job = Job::new();
    let run = job.start();
    let first = job.agent(&run);
    let mut held: Vec<_> = (0..20).map(|_| job.world.connect()).collect();
    for connection in &mut held {
        let answer = connection
            .ask("GET", "/v1/token?resource=https://storage.azure.com")
            .unwrap();
        assert_eq!(answer.token(), job.aml.tokens()[0].token);
    }
    assert_eq!(job.aml.requests().len(), 1);
    for round in 1..=3 {
        let agent = job.agent(&run);
        kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
        for connection in &mut held {
            // The kept one is dead, and says so at once; another one waits until there is an agent again.
            assert!(connection.ask("GET", "/healthz").is_err(), "round {round}");
            *connection = job.world.connect();
        }
        for connection in &mut held {
            let answer = connection
                .ask("GET", "/v1/token?resource=https://storage.azure.com")
                .unwrap();
            assert_eq!(answer.status, 200, "round {round}");
        }
        assert_ne!(job.agent(&run), agent);
        // Tokens were in memory alone.
        assert_eq!(job.aml.requests().len(), round + 1);
    }
    assert!(Path::new(&format!("/proc/{}", run.pid())).exists());
    assert_ne!(job.agent(&run), first);
    run.signal(Signal::SIGTERM);
    let output = run.finish();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(5), "ready\nsaved\n"),
        "{}",
        output.stderr
    );
    assert!(!job.world.socket().exists());
}

#[test]
fn a_checkpoint_after_sigterm_gets_a_fresh_token() {
    let job = Job::new();
    let run = job.start();
    assert_eq!(job.world.storage().status, 200);
    assert_eq!(job.aml.requests().len(), 1);
    let agent = job.agent(&run);
    run.signal(Signal::SIGTERM);
    let output = run.finish();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(5), "ready\nsaved\n"),
        "{}",
        output.stderr
    );
    let checkpoint: serde_json::Value =
        serde_json::from_slice(&fs::read(job.checkpoint()).unwrap()).unwrap();
    let own = job.aml.options().identities.first().unwrap();
    assert_eq!(checkpoint["claims"]["object_id"], own.object_id);
    assert_eq!(job.aml.requests().len(), 2, "it was got after the signal");
    assert!(
        !Path::new(&format!("/proc/{agent}")).exists(),
        "the agent ends with the job"
    );
}

/// A COMMAND that on SIGTERM goes on until it has had four different tokens, and says how often it was told to end.
const LONG_CHECKPOINT: &str = r#"
    told=0
    trap 'told=$((told + 1))' TERM
    tail -f /dev/null > /dev/null 2>&1 & child=$!
    echo ready
    while [ $told = 0 ]; do wait $child; done
    kill $child
    had=0 last=
    while [ $had -lt 4 ]; do
        token=$("$1" token --raw https://storage.azure.com | cksum)
        [ "$token" = "$last" ] || { had=$((had + 1)); last=$token; }
    done
    echo told $told
    exit 5
"#;

#[test]
fn a_long_checkpoint_after_sigterm_to_the_group_outlives_its_tokens() {
    let aml = AzureMl::start(AzureMlOptions {
        lifetime: 3,
        ..AzureMlOptions::default()
    })
    .unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets());
    let jobcred = binary("jobcred").display().to_string();
    let words = [
        &jobcred,
        "run",
        "--",
        "sh",
        "-c",
        LONG_CHECKPOINT,
        "sh",
        &jobcred,
    ];
    let run = world.call(Path::new("/usr/bin/setsid"), &words).start();
    run.wait_for_stdout("ready\n");
    let pid = Pid::from_raw(run.pid());
    let group = nix::unistd::getpgid(Some(pid)).unwrap();
    assert_eq!(group, pid, "the signal is for this job alone");
    // Those who tell that the signal was the group's too.
    let are_placed = || {
        let children: Vec<i32> = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap()
            .split_whitespace()
            .map(|child| child.parse().unwrap())
            .collect();
        let is_at = |place: &str, child: i32| {
            let words = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            words.starts_with(format!("signal-witness\0witness\0{place}\0").as_bytes())
        };
        // Until it has left our session, the one outside gets the group's signals as well.
        let has_left = |child: i32| {
            nix::unistd::getsid(Some(Pid::from_raw(child))).is_ok_and(|sid| sid.as_raw() == child)
        };
        children.iter().any(|child| is_at("inside", *child))
            && children
                .iter()
                .any(|child| is_at("outside", *child) && has_left(*child))
    };
    wait_until("both witnesses are in their places", are_placed);
    nix::sys::signal::killpg(group, Signal::SIGTERM).unwrap();
    let output = run.finish();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(5), "ready\ntold 1\n"),
        "{}",
        output.stderr
    );
    assert!(aml.requests().len() >= 4);
}

#[test]
fn a_command_that_is_killed_takes_the_agent_along_and_run_ends_the_same_way() {
    let job = Job::new();
    let run = job
        .world
        .jobcred(&[
            "run",
            "--",
            "sh",
            "-c",
            "echo ready; read line < \"$0\"; kill -KILL $$",
        ])
        .args(&[fifo(&job)])
        .start();
    run.wait_for_stdout("ready\n");
    let agent = job.agent(&run);
    fs::write(job.world.path().join("fifo"), "go\n").unwrap();
    let output = run.finish();
    assert_eq!(
        (output.code, output.signal),
        (None, Some(9)),
        "{}",
        output.stderr
    );
    assert!(!Path::new(&format!("/proc/{agent}")).exists());
    assert!(!job.world.socket().exists());
}

fn fifo(job: &Job) -> std::path::PathBuf {
    let path = job.world.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    path
}

#[test]
fn a_sidecar_goes_on_answering_for_its_grace() {
    let job = Job::new();
    let agent = job.world.agent();
    agent.process().signal(Signal::SIGTERM);
    agent.wait_for_log("told to end");
    assert_eq!(job.world.storage().status, 200);
    agent.process().signal(Signal::SIGTERM);
    let Job { aml, world } = &job;
    assert_eq!(aml.requests().len(), 1);
    drop(agent);
    let short = world.jobcred(&["agent"]).env("JOBCRED_GRACE", "1").start();
    short.wait_for_stderr("listening at");
    short.signal(Signal::SIGTERM);
    assert_eq!(short.finish().code, Some(0));
    assert!(!world.socket().exists());
}

#[test]
fn three_lines_at_start_say_who_why_and_how_long_and_quiet_says_nothing() {
    let job = Job::new();
    let run = |arguments: &[&str]| {
        let call = job.world.jobcred(arguments).env("JOBCRED_LOG", "error");
        call.run().succeeded()
    };
    let output = run(&["run", "--", "echo", "x"]);
    assert_eq!(output.stdout, "x\n");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", output.stderr);
    let own = &job.aml.options().identities.first().unwrap().client_id;
    assert!(
        lines[0].contains("who: compute-identity") && lines[0].contains(own.as_str()),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("why: ") && lines[2].contains("outages: "),
        "{lines:?}"
    );
    assert_eq!(run(&["run", "--quiet", "--", "true"]).stderr, "");
    // COMMAND needed no token, so none was asked for.
    assert_eq!(job.aml.requests().len(), 0);
}

#[test]
fn the_command_gets_its_environment_back_with_ours_on_top() {
    let job = Job::new();
    let world = &job.world;
    let plain = world
        .call(Path::new("/usr/bin/env"), &["-0"])
        .declared()
        .run()
        .succeeded();
    let under = world
        .jobcred(&["run", "--quiet", "--", "/usr/bin/env", "-0"])
        .declared()
        .run()
        .succeeded();
    let read = |text: &str| -> std::collections::BTreeMap<String, String> {
        text.split('\0')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let (plain, under) = (read(&plain.stdout), read(&under.stdout));
    for (name, value) in &plain {
        assert_eq!(under.get(name), Some(value), "{name}");
    }
    let added: Vec<&str> = under
        .keys()
        .filter(|name| !plain.contains_key(*name))
        .map(String::as_str)
        .collect();
    assert_eq!(
        added,
        [
            "IDENTITY_ENDPOINT",
            "IDENTITY_HEADER",
            "JOBCRED_OWN_ENDPOINTS",
            "NO_PROXY",
            "no_proxy"
        ]
    );
}

#[test]
fn nothing_that_goes_wrong_here_keeps_the_command_from_running() {
    let job = Job::new();
    // Whoever delays a job that needs no token has broken it: the double never answers.
    job.aml.script().set_default(Behavior::Hang);
    let plain = job.world.path().join("plain");
    fs::write(&plain, "no directory").unwrap();
    let below = plain.join("own").join("agent.sock");
    let long = format!("{}/agent.sock", "/x".repeat(45));
    let cases = [
        ("an endpoint that hangs", "X", String::new(), ""),
        (
            "no place for the socket",
            "JOBCRED_SOCKET",
            below.display().to_string(),
            "COMMAND runs all the same",
        ),
        (
            "a place that cannot be made",
            "JOBCRED_SOCKET",
            long,
            "COMMAND runs all the same",
        ),
        (
            "roots that are not there",
            "JOBCRED_CA_FILE",
            "/no/such/file.pem".to_owned(),
            "",
        ),
    ];
    for (case, name, value, said) in cases {
        let call = job
            .world
            .jobcred(&["run", "--", "sh", "-c", "echo started; exit 6"])
            .env(name, &value);
        let output = call.run();
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(6), "started\n"),
            "{case}: {}",
            output.stderr
        );
        assert!(output.stderr.contains(said), "{case}: {}", output.stderr);
    }
}

#[test]
fn an_agent_that_is_started_again_remembers_whose_tokens_there_were() {
    let job = Job::new();
    let run = job.start();
    assert_eq!(job.world.storage().status, 200);
    // The same application, so that only what was seen before tells the difference.
    let own = job.aml.options().identities.first().unwrap().clone();
    let other = Principal {
        object_id: Principal::application().object_id,
        ..own
    };
    job.aml.mint().set_impostor(Some(other));
    kill(Pid::from_raw(job.agent(&run)), Signal::SIGKILL).unwrap();
    let refused = job.world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    assert!(
        refused.error("message").contains("object id"),
        "{}",
        refused.body
    );
    run.signal(Signal::SIGTERM);
    run.finish();
}
