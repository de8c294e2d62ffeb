//! Limits of what a process may have: what is too much for jobcred is not too much for COMMAND.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{BINARY, Place, Running, text, wait_for_end};

/// A COMMAND that says when it is told of a file that is too large; USR1 ends it with code 3.
const LISTENS: &str = "tail -f /dev/null > /dev/null 2>&1 & child=$!
    trap 'echo XFSZ' XFSZ; trap 'kill $child; echo USR1; exit 3' USR1
    echo ready; while kill -0 $child; do wait $child; done";

#[test]
fn where_files_may_not_grow_only_words_are_lost() {
    // No record; one that takes no decision; one that takes all, but a log that is as large as it may be.
    for limit in [0, 40, 4096] {
        for resources in ["", "https://storage.azure.com"] {
            let place = Place::new();
            let log = place.file("log");
            let mut stderr = File::create(&log).unwrap();
            stderr.write_all(&vec![b'\n'; limit]).unwrap();
            let fsize = format!("--fsize={limit}:{limit}");
            let mut run = place.command("prlimit");
            run.args([
                &fsize,
                "--",
                BINARY,
                "run",
                "--sandbox",
                "--",
                "sh",
                "-c",
                LISTENS,
            ]);
            run.env("JOBCRED_RESOURCES", resources)
                .env("JOBCRED_LOG", "trace")
                .env("JOBCRED_JOB_LOG", place.file("jobs"))
                .stderr(stderr);
            let running = Running::start(run);
            let socket = place.sandbox_socket();
            let agent = place.agent_at(&socket);
            kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
            wait_for_end(agent);
            assert_ne!(place.agent_at(&socket), agent);
            running.signal(Signal::SIGUSR1);
            let (rest, status) = running.end();
            assert_eq!(
                (rest.as_str(), status.code()),
                ("USR1\n", Some(3)),
                "{limit} {resources}"
            );
            assert_eq!(fs::metadata(&log).unwrap().len(), limit as u64);
        }
    }
}

/// The strategy that the agent says it serves by.
fn strategy(place: &Place) -> serde_json::Value {
    let output = place.output(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["strategy"].clone()
}

#[test]
fn what_could_not_be_written_down_is_not_decided_anew() {
    // No record at all, and one that has no room for what was decided.
    for limit in ["--fsize=0:0", "--fsize=40:40"] {
        let place = Place::new();
        let mut run = place.command("prlimit");
        run.args([limit, "--", BINARY, "run", "-q", "--", "sh", "-c", LISTENS])
            .env("MSI_ENDPOINT", "http://127.0.0.1:9/")
            .env("MSI_SECRET", "a secret of some length")
            .stderr(Stdio::null());
        let running = Running::start(run);
        assert_eq!(strategy(&place), "system-identity", "{limit}");
        for _ in 0..2 {
            let agent = place.agent();
            kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
            wait_for_end(agent);
            assert_eq!(strategy(&place), "none", "{limit}");
        }
        let output = place.output(&["token"]);
        assert_eq!(output.status.code(), Some(125));
        let errors = text(&output.stderr);
        assert!(errors.contains("cannot read what it was given"), "{errors}");
        running.signal(Signal::SIGUSR1);
        assert_eq!(running.end().1.code(), Some(3));
    }
}

#[test]
fn signals_reach_the_command_however_few_descriptors_there_are() {
    let place = Place::new();
    let script = "sleep 1000 & child=$!; trap 'kill $child; echo TERM; exit 3' TERM; echo ready; wait $child";
    for most in 4..12 {
        let mut run = place.command("prlimit");
        run.args([&format!("--nofile={most}:{most}"), "--", BINARY])
            .args(["run", "-q", "--sandbox", "--", "sh", "-c", script])
            .stderr(Stdio::null());
        let running = Running::start(run);
        running.signal(Signal::SIGTERM);
        let (rest, status) = running.end();
        assert_eq!(
            (rest.as_str(), status.code()),
            ("TERM\n", Some(3)),
            "{most}"
        );
    }
}
