//! Signals, as they come to `run` and to COMMAND.

use std::os::unix::process::ExitStatusExt as _;

use jobcred_tests::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{BINARY, LISTENS, Place, Running, status_line, text, wait_for_end};

#[test]
fn a_signal_reaches_the_command_once_and_the_agent_not_at_all() {
    let place = Place::new();
    let mut running = Running::start(place.jobcred(&["run", "-q", "--", "sh", "-c", LISTENS]));
    let agent = place.agent();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.line(), "TERM");
    assert_eq!(place.agent(), agent);
    running.signal(Signal::SIGUSR1);
    let (rest, status) = running.end();
    assert_eq!(rest, "USR1\n");
    assert_eq!(status.code(), Some(3));
    wait_for_end(agent);
    assert!(!place.socket().exists());
}

/// Needs root, or a kernel that lets users make namespaces of their own.
#[test]
fn as_pid_1_orphans_are_reaped_and_signals_become_codes() {
    let place = Place::new();
    let mut words = vec!["--pid", "--fork", "--mount-proc", "--kill-child"];
    if !nix::unistd::geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    // The orphan's parent ends at once, so it becomes PID 1's; its entry in /proc goes only when it is reaped.
    let script =
        "orphan=$(sh -c 'true > /dev/null & echo $!'); while [ -e /proc/$orphan ]; do :; done
        echo reaped by $PPID; kill -TERM $$";
    let output = place
        .command("timeout")
        .args(["--kill-after=1", "60", "unshare"])
        .args(words)
        .args([BINARY, "run", "-q", "--sandbox", "--", "sh", "-c", script])
        .output()
        .unwrap();
    let errors = text(&output.stderr);
    assert_eq!(text(&output.stdout), "reaped by 1\n", "{errors}");
    assert_eq!(output.status.code(), Some(128 + 15), "{errors}");
}

/// A COMMAND that says its pid and then waits to be ended.
const WAITS: &str = "echo ready; echo $$; exec tail -f /dev/null";

#[test]
fn a_command_that_is_stopped_alone_and_continued_alone_is_still_watched() {
    let place = Place::new();
    let mut running = Running::start(place.jobcred(&["run", "-q", "--", "sh", "-c", WAITS]));
    let command: i32 = running.line().parse().unwrap();
    let run = running.pid();
    for stop in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGSTOP] {
        kill(Pid::from_raw(command), stop).unwrap();
        wait_until("COMMAND is stopped", || {
            status_line(command, "State:").starts_with('T')
        });
        // It has taken the news in when it rests again, whichever way.
        wait_until("run has taken SIGCHLD and rests", || {
            let pending = u64::from_str_radix(&status_line(run, "ShdPnd:"), 16).unwrap();
            let is_told = pending & (1 << (Signal::SIGCHLD as i32 - 1)) == 0;
            is_told && !status_line(run, "State:").starts_with('R')
        });
        kill(Pid::from_raw(command), Signal::SIGCONT).unwrap();
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().1.signal(), Some(15));
}

#[test]
fn a_group_that_is_stopped_stops_whole_and_goes_on_whole() {
    use std::os::unix::process::CommandExt as _;

    use nix::sys::signal::killpg;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let place = Place::new();
    let mut run = place.jobcred(&["run", "-q", "--", "sh", "-c", WAITS]);
    run.process_group(0);
    let mut running = Running::start(run);
    let command: i32 = running.line().parse().unwrap();
    let group = Pid::from_raw(running.pid());
    for _ in 0..3 {
        killpg(group, Signal::SIGTSTP).unwrap();
        // What a shell waits for before it gives its prompt.
        let status = waitpid(group, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(status, WaitStatus::Stopped(group, Signal::SIGSTOP));
        assert!(status_line(command, "State:").starts_with('T'));
        killpg(group, Signal::SIGCONT).unwrap();
        wait_until("COMMAND goes on", || {
            !status_line(command, "State:").starts_with('T')
        });
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().1.signal(), Some(15));
}

/// A COMMAND that counts SIGTERM and is not done with the first before the second; USR1 ends it with code 3.
const INSISTS: &str = r#"
import os, signal, sys
count = 0
def terminated(*_):
    global count
    count += 1
    mine = count
    os.write(1, f"TERM {mine}\n".encode())
    while count < 2:
        signal.pause()
    os.write(1, f"done {mine}\n".encode())
signal.signal(signal.SIGTERM, terminated)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
print("ready", flush=True)
while True:
    signal.pause()
"#;

#[test]
fn a_second_signal_reaches_a_command_that_handles_the_first() {
    let place = Place::new();
    let mut running = Running::start(place.jobcred(&["run", "-q", "--", "python3", "-c", INSISTS]));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.line(), "TERM 1");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.line(), "TERM 2");
    assert_eq!([running.line(), running.line()], ["done 2", "done 1"]);
    running.signal(Signal::SIGUSR1);
    let (rest, status) = running.end();
    assert_eq!((rest.as_str(), status.code()), ("", Some(3)));
}

#[test]
fn a_timer_that_was_set_before_the_start_is_the_commands() {
    let place = Place::new();
    // Blocked, so that it does not matter how early it fires. COMMAND has no timer of its own: a child inherits none.
    let starts = "import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
os.execvp(sys.argv[1], sys.argv[1:])";
    let waits = "import signal; print(signal.sigwait([signal.SIGALRM]).name)";
    for run in [&[][..], &[BINARY, "run", "-q", "--sandbox", "--"]] {
        let output = place
            .command("python3")
            .args(["-S", "-c", starts])
            .args(run)
            .args(["python3", "-S", "-c", waits])
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "SIGALRM\n", "{run:?}");
    }
}

#[test]
fn where_ends_of_children_are_ignored_the_agents_is_noticed_before_the_command() {
    use std::net::TcpListener;
    let place = Place::new();
    // It never answers, so that COMMAND is held back.
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", endpoint.local_addr().unwrap());
    let mut run = place.command("env");
    run.args(["--ignore-signal=CHLD", BINARY, "run", "-q", "--", "true"])
        .env("JOBCRED_RESOURCES", "https://storage.azure.com")
        .env("JOBCRED_PREFETCH_TIMEOUT", "30s")
        .env("MSI_ENDPOINT", address)
        .env("MSI_SECRET", "a secret of some length")
        .stderr(std::process::Stdio::null());
    let mut run = run.spawn().unwrap();
    let pid = i32::try_from(run.id()).unwrap();
    let (_first, _) = endpoint.accept().unwrap();
    let agent = place.agent();
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    let (_second, _) = endpoint.accept().unwrap();
    assert_ne!(place.agent(), agent);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().signal(), Some(15));
}

#[test]
fn realtime_signals_are_passed_on() {
    let place = Place::new();
    let script = "tail -f /dev/null > /dev/null 2>&1 & child=$!
        trap 'kill $child; echo 40; exit 3' 40; echo ready; while kill -0 $child; do wait $child; done";
    let running = Running::start(place.jobcred(&["run", "-q", "--", "sh", "-c", script]));
    let sent = place
        .command("sh")
        .args(["-c", "kill -40 $1", "sh", &running.pid().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let (rest, status) = running.end();
    assert_eq!(rest, "40\n");
    assert_eq!(status.code(), Some(3));
}
