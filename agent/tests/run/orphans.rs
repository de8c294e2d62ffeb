//! COMMAND as a pipeline of a shell, and what it leaves running.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Place, Running, status_line, wait_for_end};

#[test]
fn orphans_are_neither_waited_for_nor_ended() {
    let place = Place::new();
    let pid_file = place.file("orphan");
    // The last of a pipeline ends with a code; one in the background has nothing of ours but its life.
    let script = "(exec tail -f /dev/null > /dev/null 2>&1 < /dev/null) & echo $! > \"$0\"
        echo ready; echo a b | tr a-z A-Z | (cat; exit 6)";
    let mut run = place.jobcred(&["run", "-q", "--sandbox", "--", "sh", "-c", script]);
    run.arg(&pid_file);
    let (rest, status) = Running::start(run).end();
    assert_eq!((rest.as_str(), status.code()), ("A B\n", Some(6)));
    let orphan: i32 = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(status_line(orphan, "State:").starts_with(['S', 'R']));
    kill(Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
    wait_for_end(orphan);
}

#[test]
fn an_orphan_that_keeps_the_output_open_does_not_keep_run() {
    let place = Place::new();
    let pid_file = place.file("orphan");
    let script = "(exec tail -f /dev/null) & echo $! > \"$0\"; echo ready; exit 6";
    let mut run = place.jobcred(&["run", "-q", "--sandbox", "--", "sh", "-c", script]);
    run.arg(&pid_file);
    let mut running = Running::start(run);
    // Not the end of the output, which the orphan has: the end of `run`.
    assert_eq!(running.child.wait().unwrap().code(), Some(6));
    let orphan: i32 = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kill(Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
    wait_for_end(orphan);
}
