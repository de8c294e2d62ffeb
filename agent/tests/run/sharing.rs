//! Several runs on one node share an agent, and none of them can take it from the others.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jobcred_tests::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{BINARY, LISTENS, Place, Running, text, wait_for_end};

/// A run in an environment that names an identity; nothing is ever asked of it.
fn job(place: &Place) -> Command {
    let mut run = place.jobcred(&["run", "--", "sh", "-c", LISTENS]);
    run.env("MSI_ENDPOINT", "http://127.0.0.1:9/")
        .env("MSI_SECRET", "a secret of some length")
        .stderr(Stdio::piped());
    run
}

fn start(place: &Place) -> Running {
    Running::start(job(place))
}

/// Ends a run in order, and returns what it said.
fn end(mut running: Running) -> String {
    let stderr = running.child.stderr.take().unwrap();
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.end().1.code(), Some(3));
    std::io::read_to_string(stderr).unwrap()
}

/// The status of the agent at the place; nothing while there is none.
fn status(place: &Place) -> Option<serde_json::Value> {
    let output = place.output(&["status", "--json"]);
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn leases(place: &Place) -> Option<u64> {
    status(place)?["leases"].as_u64()
}

#[track_caller]
fn wait_for_leases(place: &Place, count: u64) {
    wait_until(&format!("{count} leases"), || leases(place) == Some(count));
}

fn agent(place: &Place) -> Option<i32> {
    i32::try_from(status(place)?["pid"].as_i64()?).ok()
}

fn children(pid: i32) -> Vec<i32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Whether an agent is among the children of a process.
fn has_an_agent(pid: i32) -> bool {
    children(pid).iter().any(|child| {
        fs::read(format!("/proc/{child}/cmdline"))
            .is_ok_and(|arguments| arguments.starts_with(b"jobcred\0agent\0"))
    })
}

/// Kills a run, and all that is its child, at one go, as the kernel does it to a cgroup.
fn kill_all(running: Running, more: &[i32]) {
    let pid = running.pid();
    let mut all = children(pid);
    all.extend(more);
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    for one in all.iter().chain([&pid]) {
        let _ = kill(Pid::from_raw(*one), Signal::SIGKILL);
    }
    running.end();
}

#[test]
fn two_runs_share_an_agent_and_the_second_is_served_after_the_first() {
    let place = Place::new();
    let first = start(&place);
    let second = start(&place);
    let agent = place.agent();
    wait_for_leases(&place, 2);
    assert!(end(first).contains("who: system-identity"));
    assert_eq!(place.agent(), agent, "it goes on");
    wait_for_leases(&place, 1);
    let said = end(second);
    assert!(said.contains("shares the agent at"), "{said}");
    assert!(!said.contains("who:"), "{said}");
    wait_for_end(agent);
    let own = place.socket().with_file_name("");
    let left: Vec<_> = fs::read_dir(own)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [".lock"], "nothing is left behind");
}

#[test]
fn one_that_only_shares_may_end_first() {
    let place = Place::new();
    let first = start(&place);
    let agent = place.agent();
    for _ in 0..3 {
        let second = start(&place);
        wait_for_leases(&place, 2);
        end(second);
        wait_for_leases(&place, 1);
    }
    assert_eq!(place.agent(), agent);
    end(first);
    wait_for_end(agent);
}

#[test]
fn a_killed_starter_leaves_its_agent_to_the_others() {
    let place = Place::new();
    let first = start(&place);
    let second = start(&place);
    let agent = place.agent();
    wait_for_leases(&place, 2);
    let command: Vec<i32> = children(first.pid())
        .into_iter()
        .filter(|pid| *pid != agent)
        .collect();
    first.signal(Signal::SIGKILL);
    for pid in command {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    first.end();
    wait_for_leases(&place, 1);
    assert_eq!(place.agent(), agent);
    end(second);
    wait_for_end(agent);
}

#[test]
fn whoever_is_left_starts_the_next_agent_when_starter_and_agent_are_killed_at_once() {
    let place = Place::new();
    let mut runs: Vec<Running> = (0..5).map(|_| start(&place)).collect();
    let mut last = 0;
    while runs.len() > 1 {
        let count = runs.len() as u64;
        wait_for_leases(&place, count);
        let agent = agent(&place).unwrap();
        assert_ne!(agent, last);
        last = agent;
        // The one whose child the agent is.
        let at = runs
            .iter()
            .position(|run| children(run.pid()).contains(&agent))
            .unwrap();
        kill_all(runs.remove(at), &[]);
        wait_for_end(agent);
    }
    wait_for_leases(&place, 1);
    let agent = place.agent();
    let said = end(runs.remove(0));
    assert!(said.contains("goes on with one of its own"), "{said}");
    wait_for_end(agent);
    assert!(!place.socket().exists());
}

#[test]
fn an_agent_that_dies_alone_is_started_again_by_its_starter_for_all() {
    let place = Place::new();
    let first = start(&place);
    let second = start(&place);
    wait_for_leases(&place, 2);
    for _ in 0..2 {
        let agent = place.agent();
        kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
        wait_for_end(agent);
        wait_for_leases(&place, 2);
        assert_ne!(place.agent(), agent);
    }
    let said = end(second);
    assert!(!said.contains("of its own"), "{said}");
    end(first);
}

#[test]
fn many_runs_that_start_at_once_share_one_agent() {
    let place = Place::new();
    let mut started: Vec<_> = (0..8)
        .map(|_| job(&place).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let runs: Vec<Running> = started
        .drain(..)
        .map(|mut child| {
            let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut running = Running { child, stdout };
            assert_eq!(running.line(), "ready");
            running
        })
        .collect();
    wait_for_leases(&place, 8);
    let agent = place.agent();
    let owners = runs
        .iter()
        .filter(|run| children(run.pid()).contains(&agent))
        .count();
    assert_eq!(owners, 1);
    let all: Vec<String> = runs.into_iter().map(end).collect();
    let who = all.iter().filter(|said| said.contains("who:")).count();
    assert_eq!(who, 1, "{all:?}");
    wait_for_end(agent);
}

#[test]
fn another_identity_or_configuration_has_its_own_agent_and_says_why() {
    let place = Place::new();
    let first = start(&place);
    let mut sockets = BTreeSet::new();
    for (name, value) in [
        ("MSI_SECRET", "another secret of some length"),
        ("JOBCRED_REGISTRY_ARM_FALLBACK", "false"),
        ("AZUREML_RUN_ID", "another-run"),
        (
            "DEFAULT_IDENTITY_CLIENT_ID",
            "11111111-2222-3333-4444-555555555555",
        ),
    ] {
        let mut run = place.jobcred(&["run", "--", "sh", "-c", "echo $JOBCRED_SOCKET"]);
        let output = run
            .env("MSI_ENDPOINT", "http://127.0.0.1:9/")
            .env("MSI_SECRET", "a secret of some length")
            .env(name, value)
            .output()
            .unwrap();
        let path = PathBuf::from(text(&output.stdout).trim_end());
        let said = text(&output.stderr);
        assert!(
            said.contains("goes by another environment or configuration")
                && said.contains("this run has its own agent at"),
            "{name}: {said}"
        );
        assert_eq!(path.parent(), place.socket().parent());
        assert!(!path.exists());
        sockets.insert(path);
    }
    assert_eq!(sockets.len(), 4);
    wait_for_leases(&place, 1);
    end(first);
}

#[test]
fn a_run_inside_a_run_shares_its_agent() {
    let place = Place::new();
    let nested = format!(
        "{BINARY} run -- sh -c 'echo $JOBCRED_SOCKET; {BINARY} status --json' && {BINARY} health"
    );
    let mut run = place.jobcred(&["run", "--", "sh", "-c", &nested]);
    let output = run
        .env("MSI_ENDPOINT", "http://127.0.0.1:9/")
        .env("MSI_SECRET", "a secret of some length")
        .env("NO_PROXY", "internal")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("shares the agent at"), "{said}");
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with(place.socket().to_str().unwrap()));
}

#[test]
fn a_sandbox_is_never_shared() {
    let place = Place::new();
    let sandboxed = ["run", "--sandbox", "--", "sh", "-c", LISTENS];
    let first = Running::start(place.jobcred(&sandboxed));
    let output = place.output(&["run", "--sandbox", "--", "sh", "-c", "echo $JOBCRED_SOCKET"]);
    let path = PathBuf::from(text(&output.stdout).trim_end());
    assert_ne!(path, place.sandbox_socket());
    assert!(text(&output.stderr).contains("never found by accident"));
    first.signal(Signal::SIGUSR1);
    first.end();
}

#[test]
fn a_stopped_starter_keeps_nobody_from_tokens_or_from_ending() {
    let place = Place::new();
    let first = start(&place);
    let second = start(&place);
    wait_for_leases(&place, 2);
    first.signal(Signal::SIGSTOP);
    let third = start(&place);
    wait_for_leases(&place, 3);
    end(third);
    end(second);
    wait_for_leases(&place, 1);
    first.signal(Signal::SIGCONT);
    end(first);
}

#[test]
fn a_stopped_starter_whose_agent_dies_is_replaced_and_joins_when_it_goes_on() {
    let place = Place::new();
    let first = start(&place);
    let second = start(&place);
    wait_for_leases(&place, 2);
    let agent = place.agent();
    first.signal(Signal::SIGSTOP);
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    // Whoever asks before that waits for an agent that nobody starts.
    wait_until("an agent of the second run", || has_an_agent(second.pid()));
    wait_for_leases(&place, 1);
    first.signal(Signal::SIGCONT);
    wait_for_leases(&place, 2);
    let next = place.agent();
    assert!(children(second.pid()).contains(&next));
    end(second);
    wait_for_leases(&place, 1);
    assert_eq!(place.agent(), next);
    end(first);
    wait_for_end(next);
    assert!(!place.socket().exists());
}

#[test]
fn a_socket_that_was_removed_is_there_again_with_the_next_agent() {
    let place = Place::new();
    let run = start(&place);
    let agent = place.agent();
    fs::remove_dir_all(place.socket().with_file_name("")).unwrap();
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    wait_for_leases(&place, 1);
    end(run);
    assert!(!place.socket().exists());
}

#[test]
fn what_a_killed_node_left_behind_is_taken_over() {
    let place = Place::new();
    let first = start(&place);
    let agent = place.agent();
    kill_all(first, &[agent]);
    wait_for_end(agent);
    let claim = place.socket().with_file_name("agent.lock");
    assert!(place.socket().exists() && claim.exists());
    for content in [None, Some(""), Some("no json"), Some("{\"pid\":1}")] {
        if let Some(content) = content {
            fs::write(&claim, content).unwrap();
        }
        let second = start(&place);
        let third = start(&place);
        wait_for_leases(&place, 2);
        let agent = place.agent();
        end(second);
        end(third);
        wait_for_end(agent);
        assert!(!place.socket().exists() && !claim.exists());
    }
}

#[test]
fn an_agent_of_another_version_or_without_a_word_is_not_shared() {
    let place = Place::new();
    let first = start(&place);
    let claim = place.socket().with_file_name("agent.lock");
    let content = fs::read_to_string(&claim).unwrap();
    let other = content.replace(env!("CARGO_PKG_VERSION"), "0.0.1");
    for (content, reason) in [
        (other.as_str(), "is of version 0.0.1"),
        ("", "one that is not shared"),
        ("\0", "one that is not shared"),
    ] {
        fs::write(&claim, content).unwrap();
        let second = start(&place);
        let said = end(second);
        assert!(said.contains(reason), "{said}");
    }
    fs::remove_file(&claim).unwrap();
    let said = end(start(&place));
    assert!(said.contains("one that is not shared"), "{said}");
    end(first);
    assert!(!place.socket().exists());
}

#[test]
fn a_directory_that_stays_locked_costs_a_private_agent_and_not_the_command() {
    use nix::fcntl::{Flock, FlockArg};
    let place = Place::new();
    let first = start(&place);
    let lock = fs::File::open(place.socket().with_file_name(".lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    let said = end(start(&place));
    assert!(
        said.contains("keeps the directory of") && said.contains("its own agent at"),
        "{said}"
    );
    drop(lock);
    end(first);
}

#[test]
fn a_place_that_others_count_on_is_not_taken_by_a_newcomer() {
    let place = Place::new();
    let first = start(&place);
    let second = start(&place);
    wait_for_leases(&place, 2);
    let agent = place.agent();
    // Nobody can take over: the one who would is stopped.
    second.signal(Signal::SIGSTOP);
    kill_all(first, &[]);
    wait_for_end(agent);
    let said = end(start(&place));
    assert!(said.contains("is being started again for others"), "{said}");
    let sidecar = place.output(&["agent", "--strategy", "system-identity"]);
    assert_ne!(sidecar.status.code(), Some(0));
    second.signal(Signal::SIGCONT);
    wait_for_leases(&place, 1);
    end(second);
}

/// What `jobcred join` says.
fn join(place: &Place) -> serde_json::Value {
    let output = place
        .jobcred(&["join"])
        .env("MSI_ENDPOINT", "http://127.0.0.1:9/")
        .env("MSI_SECRET", "a secret of some length")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A lease of the test's own.
fn lease(place: &Place, query: &str) -> std::os::unix::net::UnixStream {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    let request = format!("GET /v1/lease{query} HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut first = [0; 1024];
    let length = stream.read(&mut first).unwrap();
    assert!(text(&first[..length]).starts_with("HTTP/1.1 200"));
    stream
}

#[test]
fn a_program_joins_an_agent_that_is_started_for_it_and_runs_share_it() {
    let place = Place::new();
    let found = join(&place);
    let agent = i32::try_from(found["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(
        (found["started"].as_bool(), found["socket"].as_str()),
        (Some(true), place.socket().to_str())
    );
    assert_eq!(place.agent(), agent);
    let session = nix::unistd::getsid(Some(Pid::from_raw(agent))).unwrap();
    assert_eq!(session.as_raw(), agent, "a session of its own");
    let own = lease(&place, "");
    let again = join(&place);
    assert_eq!(
        (again["started"].as_bool(), again["pid"].as_i64()),
        (Some(false), Some(i64::from(agent)))
    );
    let run = start(&place);
    assert_eq!(place.agent(), agent);
    assert!(end(run).contains("shares the agent at"));
    drop(own);
    // It would go on for half a minute, for the sake of whoever has only just joined.
    kill(Pid::from_raw(agent), Signal::SIGTERM).unwrap();
    wait_for_end(agent);
}

#[test]
fn a_run_goes_on_when_the_agent_that_a_program_had_started_dies() {
    let place = Place::new();
    let agent = i32::try_from(join(&place)["pid"].as_i64().unwrap()).unwrap();
    let run = start(&place);
    wait_until("a lease", || leases(&place) > Some(0));
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    wait_for_end(agent);
    wait_for_leases(&place, 1);
    assert!(end(run).contains("goes on with one of its own"));
    assert!(!place.socket().exists());
}

#[test]
fn an_agent_that_is_told_of_another_decision_serves_nobody() {
    let place = Place::new();
    let run = start(&place);
    let own = status(&place).unwrap()["fingerprint"]
        .as_str()
        .unwrap()
        .to_owned();
    let refusal = |query: &str| {
        let _lease = lease(&place, query);
        text(&place.output(&["token"]).stderr)
    };
    for query in ["", &format!("?known={own}")] {
        let said = refusal(query);
        assert!(!said.contains("different decisions"), "{said}");
    }
    let said = refusal("?known=0123456789abcdef");
    assert!(said.contains("different decisions"), "{said}");
    end(run);
}

#[test]
fn what_dead_runs_left_behind_says_nothing_about_who_listens_now() {
    let place = Place::new();
    let first = start(&place);
    let agent = place.agent();
    kill_all(first, &[agent]);
    let claim = place.socket().with_extension("lock");
    assert!(claim.exists(), "nobody was left to remove it");
    // One that was given its socket, and knows nothing of claims.
    fs::remove_file(place.socket()).unwrap();
    let _listener = UnixListener::bind(place.socket()).unwrap();
    let said = end(start(&place));
    assert!(said.contains("one that is not shared"), "{said}");
    assert!(said.contains("this run has its own agent at"), "{said}");
}

#[test]
fn a_run_in_another_container_has_its_own_agent() {
    let place = Place::new();
    let first = start(&place);
    wait_for_leases(&place, 1);
    let inside = job(&place);
    for namespace in ["--net", "--mount", "--pid"] {
        let mut run = place.command("unshare");
        run.args([namespace, "--fork", "--"])
            .arg(inside.get_program())
            .args(["run", "--", "true"])
            .envs(
                inside
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        let output = run.output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("is in another container"),
            "{namespace}: {said}"
        );
        assert!(
            said.contains("this run has its own agent at"),
            "{namespace}: {said}"
        );
    }
    end(first);
}

#[test]
fn a_starter_that_lost_its_place_tells_the_next_agent_what_it_was_served_by() {
    let place = Place::new();
    let first = start(&place);
    let agent = place.agent();
    first.signal(Signal::SIGSTOP);
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    // Somebody of the same kind has taken the place meanwhile, and claims it.
    fs::remove_file(place.socket()).unwrap();
    let listener = UnixListener::bind(place.socket()).unwrap();
    let there = fs::symlink_metadata(place.socket()).unwrap();
    let claim = place.socket().with_extension("lock");
    let mut holder: serde_json::Value = serde_json::from_slice(&fs::read(&claim).unwrap()).unwrap();
    holder["socket"] = serde_json::json!({
        "device": there.dev(),
        "inode": there.ino(),
        "changed": [there.ctime(), there.ctime_nsec()],
    });
    let mut file = fs::File::options()
        .write(true)
        .truncate(true)
        .open(&claim)
        .unwrap();
    file.write_all(holder.to_string().as_bytes()).unwrap();
    first.signal(Signal::SIGCONT);
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = [0; 64];
    let count = stream.read(&mut request).unwrap();
    let request = text(&request[..count]);
    let known = request
        .strip_prefix("GET /v1/lease?known=")
        .unwrap_or_default();
    assert!(
        known.starts_with(|first: char| first.is_ascii_hexdigit()),
        "{request}"
    );
    drop((stream, listener));
    end(first);
}
