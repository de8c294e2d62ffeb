//! The agent beside COMMAND: started, started again, ended.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::place::{BINARY, LISTENS, Place, Running, wait_for_end};

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
    let supervisor = running.child.id();
    let children =
        fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    running.signal(Signal::SIGKILL);
    wait_for_end(agent);
    for pid in children.split_whitespace() {
        let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
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
    for process in [agent, i32::try_from(running.child.id()).unwrap()] {
        let held: Vec<PathBuf> = fs::read_dir(format!("/proc/{process}/fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .collect();
        assert!(!held.contains(&PathBuf::from("/dev/zero")), "{held:?}");
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
