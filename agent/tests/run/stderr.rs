//! A stderr that nobody reads any more.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2, write};

use crate::place::{LISTENS, Place, Running};

/// Both ends of a pipe that takes nothing more: a collector of logs that hangs.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
    for piece in [&[b'x'; 4096][..], b"x"] {
        let full = loop {
            if let Err(errno) = write(&writer, piece) {
                break errno;
            }
        };
        assert_eq!(full, Errno::EAGAIN);
    }
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn a_full_stderr_neither_keeps_the_command_from_starting_nor_from_ending() {
    let place = Place::new();
    let (_reader, writer) = full_pipe();
    for arguments in [
        &["run", "--sandbox", "--", "true"][..],
        &["run", "--", "true"],
        &["run", "--required", "--", "true"],
    ] {
        let mut run = place.jobcred(arguments);
        run.stderr(writer.try_clone().unwrap());
        let code = run.status().unwrap().code();
        let expected = if arguments.contains(&"--required") {
            121
        } else {
            0
        };
        assert_eq!(code, Some(expected), "{arguments:?}");
    }
}

#[test]
fn an_agent_whose_log_nobody_reads_goes_on_answering() {
    let place = Place::new();
    let (_reader, writer) = full_pipe();
    let mut run = place.jobcred(&["run", "--sandbox", "--", "sh", "-c", LISTENS]);
    run.env("JOBCRED_LOG", "trace");
    run.stderr(writer);
    let running = Running::start(run);
    let socket = place.sandbox_socket();
    let agent = place.agent_at(&socket);
    // Its death is not news that anybody waits for either.
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    for _ in 0..20 {
        assert_ne!(place.agent_at(&socket), 0);
    }
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.end().1.code(), Some(3));
}

#[test]
fn what_the_agent_logs_is_written_before_it_ends() {
    let place = Place::new();
    let mut run = place.jobcred(&["run", "--sandbox", "--", "sh", "-c", LISTENS]);
    run.env("JOBCRED_LOG", "debug").stderr(Stdio::piped());
    let mut running = Running::start(run);
    let stderr = running.child.stderr.take().unwrap();
    place.agent_at(&place.sandbox_socket());
    running.signal(Signal::SIGUSR1);
    running.end();
    let log = std::io::read_to_string(stderr).unwrap();
    assert!(log.contains(" DEBUG "), "{log}");
}
