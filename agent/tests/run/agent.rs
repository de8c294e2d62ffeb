//! The agent beside COMMAND: started, started again, ended.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::place::{BINARY, LISTENS, Place, Running, children, held, text, wait_for_end};

#[test]
fn an_agent_that_dies_is_started_again_and_the_command_goes_on() {
    let place = Place::new();
    let running = Running::start(place.jobcred(&["run", "-q", "--", "sh", "-c", LISTENS]));
    let mut agent = place.agent();
    for _ in 0..2 {
        kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
        wait_for_end(agent);
        // Waits in the listener's queue until the next agent accepts.
        let next = place.agent();
        assert_ne!(next, agent);
        agent = next;
    }
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.end().1.code(), Some(3));
}

#[test]
fn the_agent_goes_when_the_supervisor_is_killed() {
    let place = Place::new();
    let script = "echo ready; exec tail -f /dev/null";
    let running = Running::start(place.jobcred(&["run", "-q", "--", "sh", "-c", script]));
    let agent = place.agent();
    let children = children(running.pid());
    running.signal(Signal::SIGKILL);
    wait_for_end(agent);
    for pid in children {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    running.end();
}

#[test]
fn the_agent_holds_nothing_of_the_jobs() {
    let place = Place::new();
    let mut outer = place.command("sh");
    outer.args(["-c", "exec 7</dev/zero; exec \"$@\"", "sh", BINARY]);
    outer.args(["run", "-q", "--", "sh", "-c", LISTENS]);
    let running = Running::start(outer);
    let agent = place.agent();
    let zero = PathBuf::from("/dev/zero");
    let command = children(running.pid())[0];
    assert!(held(command).contains(&zero), "it is the command's");
    for process in [agent, running.pid()] {
        let held = held(process);
        assert!(!held.contains(&zero), "{held:?}");
    }
    let session = |pid: i32| nix::unistd::getsid(Some(Pid::from_raw(pid))).unwrap();
    assert_eq!(session(agent).as_raw(), agent, "a session of its own");
    running.signal(Signal::SIGUSR1);
    running.end();
}

#[test]
fn the_directory_of_the_start_is_not_kept_busy() {
    let place = Place::new();
    let elsewhere = place.file("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut run = place.jobcred(&["run", "-q", "--", "sh", "-c", LISTENS]);
    run.current_dir(&elsewhere);
    let running = Running::start(run);
    for process in [place.agent(), running.pid()] {
        let directory = fs::read_link(format!("/proc/{process}/cwd")).unwrap();
        assert_eq!(directory, PathBuf::from("/"));
    }
    running.signal(Signal::SIGUSR1);
    running.end();
}

#[test]
fn a_request_that_waits_at_the_end_is_cut_off() {
    let place = Place::new();
    // An endpoint that never answers.
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut run = place.jobcred(&["run", "-q", "--", "sh", "-c", LISTENS]);
    run.env(
        "MSI_ENDPOINT",
        format!("http://{}/", endpoint.local_addr().unwrap()),
    );
    run.env("MSI_SECRET", "a secret of some length")
        .env("JOBCRED_LOG", "debug")
        .stderr(Stdio::piped());
    let mut running = Running::start(run);
    let stderr = running.child.stderr.take().unwrap();
    let mut waiting = place
        .jobcred(&["token"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (_connection, _) = endpoint.accept().unwrap();
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.end().1.code(), Some(3));
    assert!(!waiting.wait().unwrap().success());
    // One that waits for it would be killed before it could say so.
    let log = std::io::read_to_string(stderr).unwrap();
    assert!(log.contains("cut off at the end"), "{log}");
}

/// The strategy that the agent says it serves by.
fn strategy(place: &Place) -> String {
    let output = place.output(&["status", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["strategy"].as_str().unwrap().to_owned()
}

#[test]
fn a_configuration_that_is_edited_or_removed_while_the_job_runs_changes_nothing() {
    let place = Place::new();
    let config = place.file("jobcred.toml");
    fs::write(&config, "strategy = \"compute-identity\"").unwrap();
    let mut run = place.jobcred(&["--config", "jobcred.toml", "run", "-q", "--"]);
    run.args(["sh", "-c", LISTENS])
        .current_dir(place.file(""))
        .env("MSI_ENDPOINT", "http://127.0.0.1:9/")
        .env("MSI_SECRET", "a secret of some length")
        .env(
            "DEFAULT_IDENTITY_CLIENT_ID",
            "11111111-2222-3333-4444-555555555555",
        );
    let running = Running::start(run);
    assert_eq!(strategy(&place), "compute-identity");
    for text in [
        Some("strategy = \"system-identity\""),
        Some("no TOML"),
        None,
    ] {
        match text {
            Some(text) => fs::write(&config, text).unwrap(),
            None => fs::remove_file(&config).unwrap(),
        }
        let agent = place.agent();
        kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
        wait_for_end(agent);
        assert_eq!(strategy(&place), "compute-identity", "{text:?}");
    }
    running.signal(Signal::SIGUSR1);
    running.end();
}

#[test]
fn callers_are_refused_while_no_agent_stays_up() {
    let place = Place::new();
    let mut run = place.jobcred(&["run", "-q", "--", "sh", "-c", LISTENS]);
    run.env("MSI_ENDPOINT", "http://127.0.0.1:9/")
        .env("MSI_SECRET", "a secret of some length")
        .stderr(Stdio::piped());
    let mut running = Running::start(run);
    let stderr = running.child.stderr.take().unwrap();
    assert_eq!(strategy(&place), "system-identity");
    for _ in 0..6 {
        let agent = place.agent();
        kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
        wait_for_end(agent);
    }
    let output = place.output(&["token"]);
    assert_eq!(output.status.code(), Some(125));
    let errors = text(&output.stderr);
    assert!(errors.contains("ended several times"), "{errors}");
    assert_eq!(strategy(&place), "none");
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.end().1.code(), Some(3));
    let said = std::io::read_to_string(stderr).unwrap();
    assert!(said.contains("as every time so far"), "{said}");
}

#[test]
fn an_agent_that_cannot_read_what_it_was_given_refuses_instead_of_ending() {
    use command_fds::{CommandFdExt as _, FdMapping};
    let place = Place::new();
    let path = place.file("given.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let own = std::process::id().to_string();
    let mut command = place.jobcred(&["agent", "--supervised", &own, "--record", "99"]);
    let mut agent = command
        .env("LISTEN_FDS", "1")
        .stderr(Stdio::null())
        .fd_mappings(vec![FdMapping {
            parent_fd: listener.into(),
            child_fd: 3,
        }])
        .unwrap()
        .spawn()
        .unwrap();
    let output = place.output(&["token", "--socket", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125));
    let errors = text(&output.stderr);
    assert!(errors.contains("cannot read what it was given"), "{errors}");
    let pid = Pid::from_raw(i32::try_from(agent.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(agent.wait().unwrap().success());
}
