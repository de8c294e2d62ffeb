//! What a machine may lack: COMMAND runs whenever it would have run without us, and it is said what is missing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::place::{BINARY, Place, text};

/// A COMMAND that shows that it ran, needs next to nothing, and has a status of its own.
const RAN: [&str; 3] = ["/bin/sh", "-c", "echo ran; exit 9"];

fn check(output: &Output, said: &str, case: &str) {
    let errors = text(&output.stderr);
    assert_eq!(text(&output.stdout), "ran\n", "{case}: {errors}");
    assert_eq!(output.status.code(), Some(9), "{case}: {errors}");
    assert!(errors.contains(said), "{case}: {errors}");
    assert!(!errors.contains("panicked"), "{case}: {errors}");
}

/// Takes the program along, from descriptor 9, to a place that nothing here is mounted over: the build may lie anywhere.
const TAKE_ALONG: &str = "exec 9<\"$1\"; shift; mount -t tmpfs none /mnt; cat <&9 >/mnt/jobcred; exec 9<&-; chmod 755 /mnt/jobcred";

/// `run` where `script`, in a mount namespace of its own, has taken something away.
fn without(place: &Place, script: &str, arguments: &[&str]) -> Output {
    let mut words = vec!["--mount"];
    if !nix::unistd::geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let script = format!("set -e; {TAKE_ALONG}; {script}; exec /mnt/jobcred \"$@\"");
    place
        .command("unshare")
        .args(words)
        .args(["sh", "-c", &script, "sh", BINARY])
        .args(arguments)
        .args(RAN)
        .env_remove("JOBCRED_SOCKET")
        .output()
        .unwrap()
}

const RUN: [&str; 3] = ["run", "--sandbox", "--"];
const REQUIRED: [&str; 4] = ["run", "--sandbox", "--required", "--"];

/// All directories where a socket could go, on a file system that takes nothing.
const READ_ONLY: &str = "for dir in /run /tmp /var /dev/shm /root /home; do
    mount -t tmpfs -o ro none $dir 2> /dev/null || :; done";

#[test]
fn where_nothing_can_be_written() {
    let place = Place::new();
    let said = "COMMAND runs all the same, without an agent";
    check(
        &without(&place, READ_ONLY, &RUN),
        said,
        "no write permission",
    );
    let output = without(&place, READ_ONLY, &REQUIRED);
    assert_eq!(output.status.code(), Some(122), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    // With one place left.
    let script = format!("{READ_ONLY}; mount -t tmpfs none /tmp");
    let output = without(&place, &script, &RUN);
    check(&output, "at /tmp/jobcred-", "a read-only root and a /tmp");
}

#[test]
fn where_the_disk_is_full() {
    let place = Place::new();
    for full in ["size=4k,nr_inodes=2", "nr_inodes=1"] {
        let script = format!(
            "for dir in /run /tmp /dev/shm; do mount -t tmpfs -o {full} none $dir; done;
            dd if=/dev/zero of=/tmp/full bs=4k 2> /dev/null || :"
        );
        let said = "COMMAND runs all the same, without an agent";
        check(&without(&place, &script, &RUN), said, full);
        let output = without(&place, &script, &REQUIRED);
        assert_eq!(output.status.code(), Some(122), "{}", text(&output.stderr));
    }
}

#[test]
fn without_proc_and_without_devices() {
    let place = Place::new();
    let no_proc = "mount -t tmpfs none /proc";
    check(&without(&place, no_proc, &RUN), "", "no /proc");
    let no_devices = "mount -t tmpfs none /dev";
    check(&without(&place, no_devices, &RUN), "", "no /dev");
}

#[test]
fn where_the_agent_starts_and_ends_at_once() {
    let place = Place::new();
    // What `run` takes for its own program: something that says why it cannot go on, as an agent does.
    let agent = place.file("agent");
    fs::write(&agent, "#!/bin/sh\necho no room for me >&2\nexit 120\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&agent, executable).unwrap();
    let script = format!(
        "mount -t tmpfs none /proc; mkdir /proc/self; ln -s {} /proc/self/exe",
        agent.display()
    );
    let output = without(&place, &script, &REQUIRED);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(122), "{errors}");
    assert_eq!(text(&output.stdout), "");
    for said in [
        "no room for me",
        "the agent ended with code 120",
        "COMMAND is not started, because an agent is required",
    ] {
        assert!(errors.contains(said), "{errors}");
    }
    check(&without(&place, &script, &RUN), "", "not required");
}

#[test]
fn without_a_home_and_almost_without_environment() {
    let place = Place::new();
    let output = Command::new(BINARY)
        .args(RUN)
        .args(RAN)
        .env_clear()
        .env("JOBCRED_SOCKET", place.socket())
        .output()
        .unwrap();
    check(&output, "who: sandbox", "no HOME, no PATH");
}

#[test]
fn a_path_that_no_socket_can_have() {
    let place = Place::new();
    let long = format!("/tmp/{}/agent.sock", "x".repeat(200 - 16));
    assert_eq!(long.len(), 200);
    // Not in a sandbox, which takes a name of its own.
    let environment = [
        "MSI_ENDPOINT=http://127.0.0.1:9/",
        "MSI_SECRET=a secret of some length",
    ];
    let with = |arguments: &[&str]| {
        place
            .command("env")
            .args(environment)
            .arg(BINARY)
            .args(arguments)
            .args(RAN)
            .env("JOBCRED_SOCKET", &long)
            .output()
            .unwrap()
    };
    check(&with(&["run", "--"]), "longer than 107 bytes", "200");
    let output = with(&["run", "--required", "--"]);
    assert_eq!(output.status.code(), Some(122), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    assert!(!Path::new(&long).exists());
}

#[test]
fn with_few_descriptors() {
    let place = Place::new();
    for most in 4..20 {
        let limit = format!("--nofile={most}:{most}");
        let output = limited(&place, &limit, &RUN);
        check(&output, "", &limit);
    }
    let output = limited(&place, "--nofile=4:4", &RUN);
    check(
        &output,
        "COMMAND runs in place of jobcred, without an agent",
        "four",
    );
    for most in 4..10 {
        let limit = format!("--nofile={most}:{most}");
        let output = limited(&place, &limit, &REQUIRED);
        let errors = text(&output.stderr);
        assert_eq!(text(&output.stdout), "", "{most}: {errors}");
        assert_eq!(output.status.code(), Some(122), "{most}: {errors}");
    }
}

#[test]
fn an_agent_without_descriptors_says_so_once_and_serves_again() {
    let place = Place::new();
    // It ends with this thread, also when that fails.
    let mut agent = place
        .command("setpriv")
        .args(["--pdeathsig=KILL", "prlimit", "--nofile=40:40", "--"])
        .args([BINARY, "agent", "--sandbox"])
        .env("JOBCRED_LOG", "debug")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let listening = lines.find(|line| line.contains("listening at ")).unwrap();
    let path = listening.split_once("listening at ").unwrap().1.to_owned();
    let held: Vec<UnixStream> = (0..60)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    // Some seconds of trying.
    let (mut tries, mut said) = (0, Vec::new());
    while tries < 5 {
        let line = lines.next().unwrap();
        if line.contains("a connection was not accepted") {
            tries += 1;
        } else if line.contains(" WARN ") {
            said.push(line);
        }
    }
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(
        said[0].contains("cannot accept connections") && said[0].contains("Too many open files"),
        "{said:?}"
    );
    drop(held);
    // Nobody reads on, and the pipe is large enough for what is still to be said.
    let output = place.output(&["token", "--socket", &path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

/// Under a limit, with no descriptors but the streams, and a COMMAND that needs no more.
fn limited(place: &Place, limit: &str, arguments: &[&str]) -> Output {
    place
        .command("prlimit")
        .args([limit, "--", BINARY])
        .args(arguments)
        .args(["/bin/sh", "-c", "echo ran; exit 9"])
        .output()
        .unwrap()
}

/// Needs root: the limit counts the processes of a user, so it takes one that has no others.
#[test]
fn with_few_processes() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "the kernel counts no process of root's: run this as root, who can become somebody else, as tests/isolated does"
    );
    let place = Place::new();
    let (directory, program) = place.with_program_for_others();
    let as_nobody = |limit: &str, arguments: &[&str]| {
        let mut run = place.command("setpriv");
        run.args(["--reuid=54321", "--clear-groups", "prlimit", limit]);
        run.arg(&program).args(arguments).args(RAN).arg0("setpriv");
        run.current_dir(&directory);
        run.output().unwrap()
    };
    check(
        &as_nobody("--nproc=1:1", &RUN),
        "COMMAND runs in place of jobcred, without an agent",
        "one",
    );
    // COMMAND comes first: the agent is what is missing then, and is tried again.
    check(
        &as_nobody("--nproc=2:2", &RUN),
        "cannot start the agent",
        "two",
    );
    check(&as_nobody("--nproc=3:3", &RUN), "", "three");
    // No room for the agent, and none beside it.
    for limit in ["--nproc=1:1", "--nproc=2:2"] {
        let output = as_nobody(limit, &REQUIRED);
        assert_eq!(text(&output.stdout), "", "{limit}");
        assert_eq!(output.status.code(), Some(122), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("an agent is required"));
    }
}

/// Needs root, as above, and a user of its own: a process of another test's would be one too many.
#[test]
fn a_signal_that_came_before_there_was_room_is_the_commands() {
    let place = Place::new();
    let (directory, program) = place.with_program_for_others();
    // Blocked, so that it waits for COMMAND.
    let starts = "import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])";
    let waiting = |run: &[&str]| {
        let mut command = place.command("setpriv");
        command.args(["--reuid=54323", "--clear-groups", "prlimit", "--nproc=2:2"]);
        command.args(["python3", "-S", "-c", starts]);
        // There is room for the agent, which is needed first, and none for COMMAND then.
        command.env("JOBCRED_RESOURCES", "https://storage.azure.com");
        let output = command
            .args(run)
            .args(["/bin/cat", "/proc/self/status"])
            .current_dir(&directory)
            .output();
        let output = output.unwrap();
        let told = text(&output.stdout);
        let line = told.lines().find(|line| line.starts_with("ShdPnd:"));
        (line.map(str::to_owned), text(&output.stderr))
    };
    let (plain, errors) = waiting(&[]);
    assert!(
        plain.as_ref().is_some_and(|line| line.ends_with("4000")),
        "{plain:?} {errors}"
    );
    let (ours, errors) = waiting(&[program.to_str().unwrap(), "run", "--sandbox", "--"]);
    assert!(
        errors.contains("COMMAND runs in place of jobcred"),
        "{errors}"
    );
    assert_eq!(ours, plain);
}

/// Needs root, as above, and a user of its own. An agent that was there for declared resources makes place for COMMAND, which finds nothing of it.
#[test]
fn a_command_that_takes_over_finds_its_directory_as_it_was() {
    assert!(nix::unistd::geteuid().is_root(), "run this as root");
    let place = Place::new();
    let (_, program) = place.with_program_for_others();
    let everybody = || std::os::unix::fs::PermissionsExt::from_mode(0o777);
    let mut taken_over = 0;
    for most in 1..10 {
        let work = place.file(&format!("work{most}"));
        fs::create_dir(&work).unwrap();
        fs::set_permissions(&work, everybody()).unwrap();
        let limit = format!("--nproc={most}:{most}");
        let mut run = place.command("setpriv");
        run.args(["--reuid=54322", "--clear-groups", "prlimit", &limit])
            .arg(&program)
            .args(RUN)
            .args(["/bin/mkdir", "logs"])
            .env("AZUREML_RUN_ID", "run-1")
            .env("JOBCRED_RESOURCES", "https://storage.azure.com")
            .env_remove("JOBCRED_JOB_LOG")
            .current_dir(&work);
        let output = run.output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{limit}: {errors}");
        let is_held = !errors.contains("cannot start the agent");
        taken_over += usize::from(is_held && errors.contains("in place of jobcred"));
    }
    assert!(
        taken_over > 0,
        "COMMAND never had to take over from an agent"
    );
}

#[test]
fn with_an_environment_as_large_as_there_can_be() {
    let place = Place::new();
    // A quarter of the stack's limit is what a program may be given. Of this process alone: its limit is inherited.
    let (_, hard) = getrlimit(Resource::RLIMIT_STACK).unwrap();
    setrlimit(Resource::RLIMIT_STACK, hard, hard).unwrap();
    // Three quarters of 8 MiB is what the kernel takes in all; one string may have 128 KiB.
    let large = |bytes: usize, words: &[&str]| {
        let words = [words, &RAN].concat();
        let mut run = place.command(words[0]);
        run.args(&words[1..]);
        let piece = "x".repeat(120_000);
        for number in 0..bytes / piece.len() {
            run.env(format!("PIECE_{number}"), &piece);
        }
        run.env("REST", "x".repeat(bytes % piece.len())).output()
    };
    let plain = |bytes| large(bytes, &[]).is_ok_and(|output| output.status.code() == Some(9));
    assert!(plain(5 << 20));
    check(
        &large(5 << 20, &[&[BINARY], &RUN[..]].concat()).unwrap(),
        "",
        "5 MiB",
    );
    // No program can be started with this, so neither can we.
    assert!(!plain(64 << 20));
    // The most that COMMAND takes; we get it from a file, since our own words would be too many.
    let (mut fits, mut fails) = (5 << 20, 7 << 20);
    while fails - fits > 64 {
        let middle = usize::midpoint(fits, fails);
        if plain(middle) {
            fits = middle;
        } else {
            fails = middle;
        }
    }
    let words = [&[BINARY], &RUN[..]].concat();
    // What our own words take is lost in any case: they were there before COMMAND's. The variables must not be lost, too.
    let own: usize = words
        .iter()
        .map(|word| word.len() + 1 + size_of::<usize>())
        .sum();
    let output = large(fits - own - 64, &words).unwrap();
    // It is the agent, with more words than COMMAND, that there is no room for.
    check(&output, "Argument list too long", "full");
}

#[test]
fn with_closed_streams() {
    let place = Place::new();
    let mark = place.file("mark");
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("exec \"$@\" {closed}");
        let status = place
            .command("sh")
            .args(["-c", &script, "sh", BINARY])
            .args(RUN)
            .args(["sh", "-c", "echo ran > $0; exit 9"])
            .arg(&mark)
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(9), "{closed}");
        assert_eq!(fs::read_to_string(&mark).unwrap(), "ran\n", "{closed}");
        fs::remove_file(&mark).unwrap();
    }
}
