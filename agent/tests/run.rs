//! `jobcred run` with real processes: whoever runs COMMAND through it must not be able to tell, except by the tokens.
//!
//! Nothing here asks for an identity outside: the sandbox, or an environment that names none and forbids the probe.

#![expect(
    clippy::unwrap_used,
    reason = "also outside the test functions, what fails here fails the test"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_jobcred");
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A COMMAND that answers signals until USR1 ends it with code 3.
const LISTENS: &str = "tail -f /dev/null > /dev/null 2>&1 & child=$!
    trap 'echo TERM' TERM; trap 'kill $child; echo USR1; exit 3' USR1
    echo ready; while :; do wait $child; done";

/// A directory with the socket's place in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("own").join("agent.sock")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program in an environment that leads to no identity and to this place.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("JOBCRED_PROBE", "false")
            .env("JOBCRED_LOG", "warn")
            .env("JOBCRED_SOCKET", self.socket())
            .stdin(Stdio::null());
        command
    }

    fn jobcred(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(BINARY);
        command.args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.jobcred(arguments).output().unwrap()
    }

    /// The pid of the agent that answers.
    fn agent(&self) -> i32 {
        let output = self.output(&["status", "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }
}

/// A `run` under way whose COMMAND has said "ready".
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, stdout };
        assert_eq!(running.line(), "ready");
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// The rest of the output and the status.
    fn end(mut self) -> (String, std::process::ExitStatus) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a process that is not our child has ended.
fn wait_for_end(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let mut wait = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut wait, PollTimeout::from(10_000_u16)).unwrap();
    assert_eq!(ended, 1, "process {pid:?} is still there");
}

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
fn mistakes_stop_before_the_command() {
    let place = Place::new();
    let trace = place.file("trace");
    let touch = ["touch", trace.to_str().unwrap()];
    let mut wrong = place.jobcred(&["run", "--"]);
    let output = wrong
        .args(touch)
        .env("JOBCRED_STRATEGY", "nonsense")
        .env("JOBCRED_GRACE", "soon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let report = text(&output.stderr);
    assert!(
        report.contains("2 mistakes") && report.contains("JOBCRED_GRACE"),
        "{report}"
    );
    assert_eq!(place.output(&["run"]).status.code(), Some(2));
    assert_eq!(
        place.output(&["run", "--no-such-flag", "x"]).status.code(),
        Some(2)
    );
    assert!(!trace.exists());
}

#[test]
fn without_an_identity_the_command_runs_and_requests_are_answered_with_the_reason() {
    let place = Place::new();
    let output = place.output(&["run", "--", "sh", "-c", &format!("{BINARY} token; echo $?")]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "125\n");
    let errors = text(&output.stderr);
    assert!(
        errors.contains("no token can be had") && errors.contains("COMMAND runs all the same"),
        "{errors}"
    );
}

#[test]
fn required_stops_before_the_command() {
    let place = Place::new();
    let trace = place.file("trace");
    let touch = trace.to_str().unwrap();
    let output = place.output(&["run", "--required", "--", "touch", touch]);
    assert_eq!(output.status.code(), Some(121));
    assert!(text(&output.stderr).contains("COMMAND is not started"));
    assert!(!trace.exists());
    let output = place.output(&["run", "--sandbox", "--required", "--", "touch", touch]);
    assert_eq!(output.status.code(), Some(0));
    assert!(trace.exists());
}

#[test]
fn without_a_place_for_the_socket_the_command_runs() {
    let place = Place::new();
    let output = place
        .jobcred(&["run", "--", "sh", "-c", "echo ran; echo $JOBCRED_SOCKET"])
        .env("JOBCRED_SOCKET", "/proc/none/agent.sock")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(text(&output.stdout).starts_with("ran\n"));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("COMMAND runs all the same, without an agent"),
        "{errors}"
    );
    let output = place
        .jobcred(&["run", "--required", "--", "true"])
        .env("MSI_ENDPOINT", "http://127.0.0.1:9/")
        .env("MSI_SECRET", "s3cret")
        .env("JOBCRED_SOCKET", "/proc/none/agent.sock")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(122), "{}", text(&output.stderr));
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
fn three_lines_at_start_unless_quiet() {
    let place = Place::new();
    let output = place.output(&["run", "--sandbox", "--", "true"]);
    let lines = text(&output.stderr);
    for (line, start) in lines.lines().zip([
        "jobcred: who: sandbox",
        "jobcred: why: ",
        "jobcred: outages: ",
    ]) {
        assert!(line.starts_with(start), "{lines}");
    }
    let output = place.output(&["run", "--sandbox", "--quiet", "--", "true"]);
    assert_eq!(text(&output.stderr), "");
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
    let added: Vec<&str> = ours.difference(&plain).map(String::as_str).collect();
    assert_eq!(
        added,
        [
            "NO_PROXY=internal,127.0.0.1,localhost,::1",
            "no_proxy=internal,127.0.0.1,localhost,::1"
        ]
    );
    // The socket is where JOBCRED_SOCKET said; the one value that went is the one that was appended to.
    let gone: Vec<&str> = plain.difference(&ours).map(String::as_str).collect();
    assert_eq!(gone, ["no_proxy=internal"]);
}

/// What `script` prints directly, and what it prints under `run`, each started in the same odd state: a signal blocked, two
/// ignored (one of them as nohup does it), a lower limit, descriptors 7 and 8 open.
fn with_and_without(script: &str) -> [String; 2] {
    let odd = "ulimit -c 0; ulimit -n 500; exec 7</dev/null 8>/dev/null;
        exec env --ignore-signal=HUP,USR2 --block-signal=USR1,WINCH \"$@\"";
    [&[][..], &[BINARY, "run", "-q", "--sandbox", "--"]].map(|prefix| {
        let place = Place::new();
        let output = place
            .command("sh")
            .args(["-c", odd, "sh"])
            .args(prefix)
            .args(["sh", "-c", script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    })
}

#[test]
fn the_process_status_is_what_it_would_be() {
    let [plain, ours] = with_and_without("exec cat /proc/self/status").map(|status| {
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
    assert_eq!(plain, ours);
}

#[test]
fn limits_and_descriptors_are_what_they_would_be() {
    let [plain, ours] = with_and_without("exec cat /proc/self/limits");
    assert!(plain.contains("Max open files            500"), "{plain}");
    assert_eq!(plain, ours);
    let [plain, ours] = with_and_without("exec ls -l /proc/self/fd").map(|list| {
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
fn a_second_run_has_its_own_agent_and_says_so() {
    let place = Place::new();
    let first = Running::start(place.jobcred(&["run", "-q", "--", "sh", "-c", LISTENS]));
    let output = place.output(&["run", "--sandbox", "--", "sh", "-c", "echo $JOBCRED_SOCKET"]);
    let path = text(&output.stdout);
    let path = Path::new(path.trim_end());
    assert_ne!(path, place.socket());
    assert!(path.starts_with(place.file("own")));
    assert!(!path.exists());
    assert!(text(&output.stderr).contains("has its own agent at"));
    let output = place.output(&["run", "--", "true"]);
    assert!(text(&output.stderr).contains("an agent already answers at"));
    first.signal(Signal::SIGUSR1);
    first.end();
}

#[test]
fn subcommands_inside_a_sandboxed_run() {
    let place = Place::new();
    let script = format!(
        "set -e; {BINARY} wait --timeout 20; {BINARY} health --ready; {BINARY} token --json; eval \"$({BINARY} env)\"; {BINARY} token --raw | cut -c1-3"
    );
    let output = place.output(&["run", "-q", "--sandbox", "--", "sh", "-c", &script]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let (claims, raw) = printed.rsplit_once("}\n").unwrap();
    let claims: serde_json::Value = serde_json::from_str(&format!("{claims}}}")).unwrap();
    assert_eq!(claims["claims"]["sandbox"], true);
    assert!(claims["expires_in"].as_i64().unwrap() > 0);
    assert_eq!(raw, "eyJ\n");
    assert!(!printed.contains("access_token"));
}

#[test]
fn without_an_agent_subcommands_say_where_they_looked() {
    let place = Place::new();
    for words in [&["token"][..], &["status"], &["env"], &["health"]] {
        let output = place.output(words);
        assert_eq!(output.status.code(), Some(123), "{words:?}");
        let errors = text(&output.stderr);
        assert!(
            errors.contains(place.socket().to_str().unwrap()),
            "{errors}"
        );
    }
    let output = place.output(&["wait", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(124));
}

#[test]
fn a_sidecar_agent_answers_and_ends_with_its_grace() {
    let place = Place::new();
    let mut agent = place
        .jobcred(&["agent", "--sandbox"])
        .env("JOBCRED_GRACE", "1s")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut path = None;
    let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
    for line in lines.by_ref() {
        if let Some((_, after)) = line.unwrap().split_once("listening at ") {
            path = Some(after.to_owned());
            break;
        }
    }
    let path = path.unwrap();
    let output = place.output(&["health", "--socket", &path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    kill(
        Pid::from_raw(i32::try_from(agent.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert!(agent.wait().unwrap().success());
    assert!(!Path::new(&path).exists());
}

#[test]
fn an_agent_takes_the_socket_it_is_given() {
    use command_fds::{CommandFdExt as _, FdMapping};
    let place = Place::new();
    let path = place.file("given.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mapping = FdMapping {
        parent_fd: listener.into(),
        child_fd: 3,
    };
    let mut command = place.jobcred(&["agent", "--sandbox"]);
    command.env("LISTEN_FDS", "1").env("JOBCRED_GRACE", "0s");
    let mut agent = command
        .stderr(Stdio::null())
        .fd_mappings(vec![mapping])
        .unwrap()
        .spawn()
        .unwrap();
    // It may still be starting: the question waits in the queue.
    let output = place.output(&["status", "--json", "--socket", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    kill(
        Pid::from_raw(i32::try_from(agent.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert!(agent.wait().unwrap().success());
    assert!(path.exists(), "what others made is not ours to remove");

    let output = place
        .jobcred(&["agent", "--sandbox"])
        .env("LISTEN_FDS", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(122), "there is no descriptor 3");
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
