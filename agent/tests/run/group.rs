//! Signals to the whole process group: COMMAND has them from the sender, and not once more from `run`.

use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;

use jobcred_tests::wait_until;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid, getsid};

use crate::place::{BINARY, Place, Running, children, held, status_line, wait_for_end};

/// A COMMAND that says each signal it gets and whether `run` sent it; USR1 ends it with code 3. Realtime signals never become
/// one, so each that comes is counted.
const COUNTS: &str = r#"
import os, signal, sys
wanted = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, 40]
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
for number in wanted:
    # Never run, as they are waited for; it shows from outside that they are handled.
    signal.signal(number, lambda *_: None)
if "apart" in sys.argv:
    os.setsid()
print("ready", flush=True)
while True:
    info = signal.sigwaitinfo(wanted)
    print(info.si_signo, "run" if info.si_pid == os.getppid() else info.si_pid, flush=True)
    if info.si_signo == signal.SIGUSR1:
        sys.exit(3)
"#;

/// `run` in a process group of its own, with its witnesses at their places.
fn start(place: &Place, words: &[&str]) -> Running {
    let mut run = place.jobcred(&["run", "-q", "--", "python3", "-c", COUNTS]);
    run.args(words).process_group(0);
    let running = Running::start(run);
    witnesses(running.pid());
    running
}

/// The pids of the two, once the one outside is there.
fn witnesses(run: i32) -> [i32; 2] {
    let mut found = Vec::new();
    wait_until("both witnesses", || {
        found = children(run)
            .into_iter()
            .filter(|pid| arguments(*pid).get(1).is_some_and(|word| word == "witness"))
            .collect();
        found.sort_by_key(|pid| arguments(*pid)[2].clone());
        found.len() == 2 && session(found[1]) == found[1]
    });
    [found[0], found[1]]
}

fn arguments(pid: i32) -> Vec<String> {
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .split('\0')
        .map(str::to_owned)
        .collect()
}

fn session(pid: i32) -> i32 {
    getsid(Some(Pid::from_raw(pid))).map_or(0, Pid::as_raw)
}

/// Any signal by its number, from this very process: none of its own has a name for realtime ones.
fn send_40(target: rustix::process::Pid, group: bool) {
    use rustix_libc_wrappers::process::SignalExt as _;
    let signal = rustix::process::Signal::from_raw(40).unwrap();
    if group {
        rustix::process::kill_process_group(target, signal).unwrap();
    } else {
        rustix::process::kill_process(target, signal).unwrap();
    }
}

#[test]
fn a_signal_to_the_group_reaches_the_command_once_and_one_to_run_is_passed_on() {
    let place = Place::new();
    let mut running = start(&place, &[]);
    let group = Pid::from_raw(running.pid());
    let sender = getpid();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGINT] {
        killpg(group, signal).unwrap();
        assert_eq!(running.line(), format!("{} {sender}", signal as i32));
        // The next one would become one with it while it waits.
        let waiting = || status_line(running.pid(), "ShdPnd:");
        wait_until("no signal is pending", || {
            waiting().bytes().all(|digit| digit == b'0')
        });
        running.signal(signal);
        assert_eq!(running.line(), format!("{} run", signal as i32));
    }
    running.signal(Signal::SIGUSR1);
    let (rest, status) = running.end();
    assert_eq!((rest.as_str(), status.code()), ("10 run\n", Some(3)));
}

#[test]
fn none_is_lost_and_none_is_doubled_when_many_come_at_once() {
    let place = Place::new();
    let mut running = start(&place, &[]);
    let run = rustix::process::Pid::from_raw(running.pid()).unwrap();
    for round in 0..100 {
        send_40(run, true);
        if round % 2 == 0 {
            send_40(run, false);
        }
    }
    // Realtime signals queue, so that none becomes one with another.
    let mut lines: Vec<String> = (0..150).map(|_| running.line()).collect();
    running.signal(Signal::SIGUSR1);
    let (rest, status) = running.end();
    assert_eq!((rest.as_str(), status.code()), ("10 run\n", Some(3)));
    lines.retain(|line| line == "40 run");
    assert_eq!(lines.len(), 50);
}

#[test]
fn a_command_that_left_the_group_is_passed_what_the_group_gets() {
    let place = Place::new();
    let mut running = start(&place, &["apart"]);
    killpg(Pid::from_raw(running.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(running.line(), "15 run");
    running.signal(Signal::SIGUSR1);
    running.end();
}

#[test]
fn a_signal_to_every_process_reaches_the_command_once() {
    let place = Place::new();
    let sender = getpid();
    for words in [&[][..], &["apart"]] {
        let mut running = start(&place, words);
        let run = running.pid();
        let command = children(run)[0];
        // One by one, as it is done by service managers and by `kill --all` of container runtimes.
        for pid in [command].into_iter().chain(witnesses(run)).chain([run]) {
            send_40(rustix::process::Pid::from_raw(pid).unwrap(), false);
        }
        assert_eq!(running.line(), format!("40 {sender}"));
        running.signal(Signal::SIGUSR1);
        assert_eq!(running.end().0, "10 run\n");
    }
}

#[test]
fn a_signal_to_every_program_of_our_name_is_passed_on() {
    let place = Place::new();
    let mut running = start(&place, &[]);
    let run = running.pid();
    // As `killall jobcred` does it.
    let named: Vec<i32> = [run]
        .into_iter()
        .chain(children(run))
        .filter(|pid| status_line(*pid, "Name:") == "jobcred")
        .collect();
    assert!(named.contains(&run), "{named:?}");
    for pid in named {
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }
    assert_eq!(running.line(), "15 run");
    running.signal(Signal::SIGUSR1);
    running.end();
}

#[test]
fn a_signal_to_every_program_of_our_file_ends_a_command_that_does_not_handle_it() {
    let place = Place::new();
    let mut run = place.jobcred(&["run", "-q", "--sandbox", "--", "sh", "-c"]);
    run.arg("echo ready; exec tail -f /dev/null");
    let running = Running::start(run);
    let run = running.pid();
    // As `kill $(pidof jobcred)` does it.
    for pid in witnesses(run).into_iter().chain([run]) {
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }
    assert_eq!(running.end().1.signal(), Some(15));
}

#[test]
fn without_the_witnesses_all_is_passed_on_as_before() {
    let place = Place::new();
    for missing in 0..2 {
        let mut running = start(&place, &[]);
        let gone = witnesses(running.pid())[missing];
        kill(Pid::from_raw(gone), Signal::SIGKILL).unwrap();
        wait_for_end(gone);
        running.signal(Signal::SIGTERM);
        assert_eq!(running.line(), "15 run");
        let sender = getpid().to_string();
        // One that does not become one with its double.
        send_40(rustix::process::Pid::from_raw(running.pid()).unwrap(), true);
        let mut both = [running.line(), running.line()];
        both.sort();
        assert_eq!(both, [format!("40 {sender}"), "40 run".to_owned()]);
        running.signal(Signal::SIGUSR1);
        running.end();
    }
}

#[test]
fn the_witnesses_end_with_run_and_hold_nothing() {
    let place = Place::new();
    let running = start(&place, &[]);
    let both = witnesses(running.pid());
    let command = children(running.pid())[0];
    for pid in both {
        let held = held(pid);
        let held: Vec<_> = held
            .iter()
            .map(|target| target.display().to_string())
            .collect();
        let foreign =
            |target: &String| !target.starts_with("socket:") && !target.contains("signalfd");
        assert!(!held.iter().any(foreign), "{held:?}");
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(directory.to_str(), Some("/"));
        assert_eq!(status_line(pid, "Name:"), "signal-witness");
        assert!(!arguments(pid).concat().contains("jobcred"));
    }
    // Killed: nobody of ours stays behind.
    running.signal(Signal::SIGKILL);
    for pid in both {
        wait_for_end(pid);
    }
    kill(Pid::from_raw(command), Signal::SIGKILL).unwrap();
    assert_eq!(running.end().1.signal(), Some(9));

    let running = start(&place, &[]);
    let both = witnesses(running.pid());
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.end().1.code(), Some(3));
    for pid in both {
        assert_eq!(status_line(pid, "State:"), "", "ended, and taken in");
    }
}

#[test]
fn by_hand_it_is_no_subcommand() {
    let place = Place::new();
    for words in [&["witness"][..], &["witness", "inside", "1"]] {
        assert_eq!(place.output(words).status.code(), Some(2), "{words:?}");
    }
    let mut terminal = Command::new(BINARY);
    terminal.arg("witness").stdin(std::process::Stdio::null());
    assert_eq!(terminal.output().unwrap().status.code(), Some(2));
}
