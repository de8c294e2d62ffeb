//! COMMAND's state, streams and ending are what they would be.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::place::{BINARY, Place, Running, held, text};

#[test]
fn the_ending_is_the_commands() {
    let place = Place::new();
    for (script, code, signal) in [
        ("exit 0", Some(0), None),
        ("exit 7", Some(7), None),
        ("exit 255", Some(255), None),
        ("kill -TERM $$", None, Some(15)),
        ("kill -KILL $$", None, Some(9)),
        ("kill -PIPE $$", None, Some(13)),
        ("kill -SEGV $$", None, Some(11)),
        ("kill -USR1 $$", None, Some(10)),
    ] {
        let status = place.output(&["run", "--", "sh", "-c", script]).status;
        assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
    }
}

#[test]
fn what_cannot_be_started_has_the_codes_of_shells() {
    let place = Place::new();
    let plain = place.file("plain");
    fs::write(&plain, "echo no").unwrap();
    let output = place.output(&["run", "--", "no-such-command"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("no-such-command: command not found"));
    let output = place.output(&["run", "--", plain.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(126));
    assert!(!place.socket().exists());
}

#[test]
fn u10_a_line_for_a_shell_is_not_found_and_told_what_to_write() {
    let place = Place::new();
    for (line, said) in [
        (
            "echo hi",
            "jobcred: echo hi: command not found. COMMAND is a line for a shell, and jobcred does not start one. \
             Write: jobcred run -- sh -c 'echo hi'\n",
        ),
        ("cd", "Write: jobcred run -- sh -c 'cd'\n"),
        ("~/x", "Write: jobcred run -- sh -c '~/x'\n"),
    ] {
        let output = place.output(&["run", "-q", "--", line]);
        assert_eq!(output.status.code(), Some(127), "{line}");
        assert!(
            text(&output.stderr).ends_with(said),
            "{}",
            text(&output.stderr)
        );
    }
    // A program of such a name is one.
    let program = place.file("echo hi && ls");
    fs::write(&program, "#!/bin/sh\necho \"$@\"\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, executable).unwrap();
    let output = place.output(&["run", "-q", "--", program.to_str().unwrap(), "&&", "FOO=1"]);
    assert_eq!(text(&output.stdout), "&& FOO=1\n");
    // Its interpreter is what is missing here.
    fs::write(&program, "#!/not/there\n").unwrap();
    let output = place.output(&["run", "-q", "--", program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(127));
    assert!(
        !text(&output.stderr).contains("Write:"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn u32_an_assignment_before_the_command_is_told_to_go_after_env() {
    let place = Place::new();
    let output = place.output(&["run", "-q", "--", "FOO=hunter2", "python3", "x.py"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        text(&output.stderr),
        "jobcred: FOO=...: command not found. Only a shell takes an assignment before COMMAND. \
         Write: jobcred run -- env FOO=... python3 ...\n"
    );
    let output = place.output(&["run", "-q", "--", "env", "FOO=1", "sh", "-c", "echo $FOO"]);
    assert_eq!(text(&output.stdout), "1\n");
}

#[test]
fn a_script_without_interpreter_line_runs_as_in_a_shell() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let script = place.file("script");
    fs::write(&script, "echo \"script $1\"; exit 4\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = place.output(&["run", "--", script.to_str().unwrap(), "one"]);
    assert_eq!(text(&output.stdout), "script one\n");
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn streams_pass_through() {
    let place = Place::new();
    let mut command = place.jobcred(&["run", "-q", "--sandbox", "--", "sh", "-c"]);
    let mut child = command
        .arg("cat; echo error >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.stdout, bytes);
    assert!(text(&output.stderr).ends_with("error\n"));
}

#[test]
fn the_environment_gains_what_is_documented_and_nothing_else() {
    let place = Place::new();
    let variables = |prefix: &[&str]| {
        let mut words = prefix.to_vec();
        words.extend(["env", "-0"]);
        let output = place
            .command(words[0])
            .args(&words[1..])
            .env("no_proxy", "internal")
            .env("ODD", "a\nb")
            .output()
            .unwrap();
        text(&output.stdout)
            .split('\0')
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let plain = variables(&[]);
    let ours = variables(&[BINARY, "run", "-q", "--"]);
    // The socket is where JOBCRED_SOCKET said, and there is no identity that an endpoint could serve.
    assert_eq!(ours, plain);
}

/// `NO_PROXY` and `no_proxy` in COMMAND's environment, after a run with these arguments and variables.
fn exemptions(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let place = Place::new();
    let mut run = place.jobcred(&["run", "-q"]);
    run.args(arguments).args(["--", "env", "-0"]);
    let output = run.envs(variables.iter().copied()).output().unwrap();
    let stdout = text(&output.stdout);
    let entries = stdout.split('\0');
    let of_proxy = |entry: &&str| entry.to_lowercase().starts_with("no_proxy=");
    let mut found: Vec<_> = entries.filter(of_proxy).map(str::to_owned).collect();
    found.sort_unstable();
    found
}

#[test]
fn l1_no_proxy_is_untouched_without_an_endpoint_and_has_no_ipv6_with_one() {
    let one = ("no_proxy", "internal");
    let off = ("JOBCRED_DIALECTS", "none");
    for (arguments, variables, expected) in [
        // No identity.
        (&[][..], &[][..], &[][..]),
        (&[], &[one], &["no_proxy=internal"]),
        // An identity, and SDKs are off.
        (&["--sandbox"], &[off], &[]),
        (&["--sandbox"], &[off, one], &["no_proxy=internal"]),
        // An endpoint of ours.
        (
            &["--sandbox"],
            &[],
            &[
                "NO_PROXY=127.0.0.1,localhost",
                "no_proxy=127.0.0.1,localhost",
            ],
        ),
        (
            &["--sandbox"],
            &[one],
            &[
                "NO_PROXY=internal,127.0.0.1,localhost",
                "no_proxy=internal,127.0.0.1,localhost",
            ],
        ),
        (
            &["--sandbox"],
            &[("NO_PROXY", "*")],
            &["NO_PROXY=*", "no_proxy=*"],
        ),
    ] {
        assert_eq!(
            exemptions(arguments, variables),
            expected,
            "{arguments:?} {variables:?}"
        );
    }
}

#[test]
fn l1_a_run_inside_a_run_keeps_the_entries_once() {
    let nested = exemptions(
        &["--sandbox", "--", BINARY, "run", "-q", "--sandbox"],
        &[("NO_PROXY", "internal")],
    );
    assert_eq!(
        nested,
        [
            "NO_PROXY=internal,127.0.0.1,localhost",
            "no_proxy=internal,127.0.0.1,localhost"
        ]
    );
    // The outer endpoint is still in the environment, and still needs them.
    let off = exemptions(
        &[
            "--sandbox",
            "--",
            "env",
            "JOBCRED_DIALECTS=none",
            BINARY,
            "run",
            "-q",
            "--sandbox",
        ],
        &[],
    );
    assert_eq!(
        off,
        [
            "NO_PROXY=127.0.0.1,localhost",
            "no_proxy=127.0.0.1,localhost"
        ]
    );
}

/// Ways for COMMAND to run: `run` as such, and with a declared resource it waits for, so that the agent is started before it; and
/// with jobcred switched off.
const WAYS: [(&str, &str); 3] = [
    ("NOTHING", ""),
    ("JOBCRED_RESOURCES", "https://storage.azure.com"),
    ("JOBCRED_DISABLED", "1"),
];

/// What `script` prints directly, and what it prints under `run`, each started in the same odd state: a signal blocked, two
/// ignored (one of them as nohup does it), a lower limit, descriptors 7 and 8 open. `way` is a variable.
fn with_and_without(script: &str, way: (&str, &str)) -> [String; 2] {
    let odd = "ulimit -c 0; ulimit -n 500; exec 7</dev/null 8>/dev/null;
        exec env --ignore-signal=HUP,USR2 --block-signal=USR1,WINCH \"$@\"";
    [&[][..], &[BINARY, "run", "-q", "--sandbox", "--"]].map(|prefix| {
        let place = Place::new();
        let mut command = place.command("sh");
        command
            .args(["-c", odd, "sh"])
            .args(prefix)
            .args(["sh", "-c", script])
            .env(way.0, way.1);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    })
}

#[test]
fn the_process_status_is_what_it_would_be() {
    for way in WAYS {
        let [plain, ours] = with_and_without("exec cat /proc/self/status", way).map(|status| {
            status
                .lines()
                .filter(|line| {
                    let name = line.split(':').next().unwrap_or_default();
                    // Who and how large it is differs from start to start; everything else is inherited state.
                    !(name.starts_with("Vm")
                        || name.starts_with("Rss")
                        || name.ends_with("ctxt_switches")
                        || ["Tgid", "Pid", "PPid", "NStgid", "NSpid", "SigQ"].contains(&name)
                        || ["NSpgid", "Cpus_allowed", "Mems_allowed"].contains(&name))
                })
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        assert!(
            plain
                .iter()
                .any(|line| line.starts_with("SigBlk:\t0000000008000200"))
        );
        assert_eq!(plain, ours, "{way:?}");
    }
}

#[test]
fn limits_and_descriptors_are_what_they_would_be() {
    for way in WAYS {
        let [plain, ours] = with_and_without("exec cat /proc/self/limits", way);
        assert!(plain.contains("Max open files            500"), "{plain}");
        assert_eq!(plain, ours);
        let [plain, ours] = with_and_without("exec ls -l /proc/self/fd", way).map(|list| {
            list.lines()
                .filter_map(|line| line.split_once(" -> "))
                .filter_map(|(before, target)| Some((before.rsplit(' ').next()?, target)))
                // The streams are this test's, and the last one is where ls itself reads.
                .filter(|(number, _)| number.len() > 1 || *number > "2")
                .filter(|(_, target)| !target.starts_with("/proc/"))
                .map(|(number, target)| format!("{number} {target}"))
                .collect::<Vec<_>>()
        });
        assert!(plain.contains(&"7 /dev/null".to_owned()), "{plain:?}");
        assert_eq!(plain, ours);
    }
}

#[test]
fn an_agent_that_was_started_first_keeps_nothing_of_the_commands() {
    let place = Place::new();
    let fifo = place.file("fifo");
    let script = "mkfifo $1; exec 9<>$1; exec $2 run -q --sandbox -- sh -c 'echo ready; exec 9>&-; echo $PPID; cat; exit 3'";
    let mut command = place.command("sh");
    command
        .args(["-c", script, "sh", fifo.to_str().unwrap(), BINARY])
        .env("JOBCRED_RESOURCES", "https://storage.azure.com")
        .stdin(Stdio::piped());
    let mut running = Running::start(command);
    let supervisor: i32 = running.line().parse().unwrap();
    let agent = place.agent_at(&place.sandbox_socket());
    for pid in [supervisor, agent] {
        assert!(
            !held(pid).contains(&fifo),
            "process {pid} of supervisor {supervisor} and agent {agent}"
        );
    }
    drop(running.child.stdin.take());
    assert_eq!(running.end().1.code(), Some(3));
}

#[test]
fn a_reader_of_the_output_sees_its_end_when_the_command_closes_it() {
    let place = Place::new();
    let script = "echo ready; exec >&-; exec sleep 1000";
    let mut running =
        Running::start(place.jobcred(&["run", "-q", "--sandbox", "--", "sh", "-c", script]));
    // Blocks for ever if the supervisor or the agent keeps the pipe open.
    assert_eq!(running.line(), "");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().1.signal(), Some(15));
}
