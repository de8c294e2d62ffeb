//! What is said and decided before COMMAND starts.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{BINARY, LISTENS, Place, Running, text, wait_for_end};

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
fn that_there_is_no_identity_takes_three_lines_and_none_when_quiet() {
    let place = Place::new();
    let said = text(&place.output(&["run", "--", "true"]).stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "jobcred: no token can be had: nothing here leads to an identity",
            "jobcred: `jobcred explain` says what was looked for, and what to do",
            "jobcred: COMMAND runs all the same; token requests are answered with this reason",
        ]
    );
    let explained = text(&place.output(&["explain"]).stdout);
    assert!(explained.contains("A laptop: "), "{explained}");
    assert_eq!(text(&place.output(&["run", "-q", "--", "true"]).stderr), "");
}

#[test]
fn what_is_nearly_right_is_said_where_it_decided() {
    let place = Place::new();
    let said = |variables: &[(&str, &str)], options: &[&str]| {
        let mut run = place.jobcred(&["run"]);
        run.args(options).args(["--", "true"]);
        run.env("MSI_ENDPOINT", "http://127.0.0.1:9/")
            .env("MSI_SECRET", "a secret of some length")
            .envs(variables.iter().copied());
        text(&run.output().unwrap().stderr)
    };
    let flag = ("AZUREML_OBO_ENABLED", "true");
    let cut_short = (
        "DEFAULT_IDENTITY_CLIENT_ID",
        "11111111-2222-3333-4444-55555555555",
    );
    for near_miss in [flag, cut_short] {
        let errors = said(&[near_miss], &[]);
        let line = format!("jobcred: but: {} looks as if it was meant", near_miss.0);
        assert_eq!(errors.matches(&line).count(), 1, "{errors}");
        assert!(!said(&[near_miss], &["-q"]).contains("but:"));
        let configured = ["--strategy", "system-identity"];
        assert!(!said(&[near_miss], &configured).contains("but:"));
    }
    let placeholder = ("DEFAULT_IDENTITY_CLIENT_ID", "clientid");
    assert!(!said(&[placeholder], &[]).contains("but:"));
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
fn three_lines_at_start_unless_quiet() {
    let place = Place::new();
    let output = place.output(&["run", "--sandbox", "--", "true"]);
    let lines = text(&output.stderr);
    let mut said = lines.lines();
    for start in [
        "jobcred: who: sandbox",
        "jobcred: why: ",
        "jobcred: outages: ",
    ] {
        let line = said.next().unwrap_or_default();
        assert!(line.starts_with(start), "{lines}");
    }
    let output = place.output(&["run", "--sandbox", "--quiet", "--", "true"]);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_second_run_of_another_kind_has_its_own_agent_and_says_so() {
    let place = Place::new();
    let first = Running::start(place.jobcred(&["run", "-q", "--", "sh", "-c", LISTENS]));
    let output = place.output(&["run", "--sandbox", "--", "sh", "-c", "echo $JOBCRED_SOCKET"]);
    let path = text(&output.stdout);
    let path = Path::new(path.trim_end());
    assert_ne!(path, place.socket());
    assert!(path.starts_with(place.file("own")));
    assert!(!path.exists());
    assert!(text(&output.stderr).contains("has its own agent at"));
    let mut other = place.jobcred(&["run", "--", "true"]);
    let output = other.env("AZUREML_RUN_ID", "another").output().unwrap();
    assert!(text(&output.stderr).contains("has its own agent at"));
    let output = place.output(&["run", "--", "true"]);
    assert!(text(&output.stderr).contains("shares the agent at"));
    first.signal(Signal::SIGUSR1);
    first.end();
}

#[test]
fn what_a_killed_run_left_behind_is_removed_by_the_next() {
    let place = Place::new();
    let sandboxed = ["run", "-q", "--sandbox", "--", "sh", "-c"];
    let mut first = place.jobcred(&sandboxed);
    first.arg("echo ready; echo $$; exec tail -f /dev/null");
    let mut first = Running::start(first);
    let command: i32 = first.line().parse().unwrap();
    let left = place.sandbox_socket();
    let agent = place.agent_at(&left);
    // All at one go: an agent that outlived its supervisor would tidy up.
    kill(Pid::from_raw(agent), Signal::SIGSTOP).unwrap();
    first.signal(Signal::SIGKILL);
    for pid in [command, agent] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    first.end();
    wait_for_end(agent);
    assert!(left.exists());
    let mut second = place.jobcred(&sandboxed);
    assert!(second.arg("exit").status().unwrap().success());
    assert!(!left.exists());
}

/// What `run` says with this configuration path, and whether COMMAND ran. `timeout` ends one that waits for a pipe's writer.
fn with_config(place: &Place, path: &Path, by_flag: bool) -> (Option<i32>, String, bool) {
    let mark = place.file("ran");
    let mut run = place.command("timeout");
    run.args(["60", BINARY, "run"]);
    if by_flag {
        run.arg("--config").arg(path);
    } else {
        run.env("JOBCRED_CONFIG", path);
    }
    let output = run.args(["--", "touch"]).arg(&mark).output().unwrap();
    let ran = std::fs::remove_file(&mark).is_ok();
    (output.status.code(), text(&output.stderr), ran)
}

#[test]
fn c13_a_configuration_that_is_no_regular_file_is_refused_and_not_waited_for() {
    let place = Place::new();
    let pipe = place.file("pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = place.file("link.toml");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    for by_flag in [true, false] {
        for (path, kind) in [
            (pipe.as_path(), "a pipe"),
            (&link, "a pipe"),
            (&place.file(""), "a directory"),
            (Path::new("/dev/null"), "a device"),
        ] {
            let (code, errors, ran) = with_config(&place, path, by_flag);
            assert_eq!(code, Some(2), "{path:?}: {errors}");
            assert!(!ran, "{path:?}");
            let said = format!("it is {kind}, not a regular file");
            assert!(errors.contains(&said), "{path:?}: {errors}");
            assert!(errors.contains(path.to_str().unwrap()), "{errors}");
        }
    }
}

/// Needs root, which can give a file away.
#[test]
fn c13_a_configuration_that_another_user_can_write_is_refused_with_the_command_that_helps() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    assert!(nix::unistd::geteuid().is_root(), "run this as root");
    let place = Place::new();
    let file = place.file("it's.toml");
    std::fs::write(&file, "log = \"warn\"\n").unwrap();
    let set = |owner: u32, mode: u32| {
        chown(&file, Some(owner), Some(2000)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (owner, mode, said) in [
        (0, 0o666, "its mode 0666 lets every user write to it."),
        (0, 0o602, "its mode 0602 lets every user write to it."),
        (
            54_321,
            0o600,
            "it belongs to uid 54321, not to uid 0 or root.",
        ),
        (
            54_321,
            0o777,
            "it belongs to uid 54321, not to uid 0 or root, and its mode 0777",
        ),
    ] {
        set(owner, mode);
        let (code, errors, ran) = with_config(&place, &file, true);
        assert_eq!((code, ran), (Some(2), false), "{owner} {mode:o}: {errors}");
        assert!(errors.contains(said), "{errors}");
        let (_, command) = errors.split_once("Run: ").unwrap();
        let (command, copy) = match command.split_once(", and name that file") {
            None => (command, file.clone()),
            Some((command, _)) => (command, place.file("jobcred.toml")),
        };
        let mut shell = place.command("sh");
        let fixed = shell
            .args(["-c", command])
            .current_dir(place.file(""))
            .status();
        assert!(fixed.unwrap().success(), "{command}");
        let (code, errors, ran) = with_config(&place, &copy, false);
        assert_eq!((code, ran), (Some(0), true), "{command}: {errors}");
    }
    // As a volume of a ConfigMap has it: links to a file of root that everybody may read.
    set(0, 0o644);
    let link = place.file("config.toml");
    std::os::unix::fs::symlink("it's.toml", &link).unwrap();
    assert_eq!(with_config(&place, &link, true).0, Some(0));
    // As a pod's `fsGroup` and the usual umask of many systems make it.
    for mode in [0o660, 0o664] {
        set(0, mode);
        assert_eq!(with_config(&place, &file, true).0, Some(0));
    }
}

/// Needs root, which can become another user.
#[test]
fn c13_another_user_reads_its_own_configuration_and_roots() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    assert!(nix::unistd::geteuid().is_root(), "run this as root");
    let place = Place::new();
    let (home, program) = place.with_program_for_others();
    let file = home.join("config.toml");
    std::fs::write(&file, "log = \"warn\"\n").unwrap();
    for (owner, mode, code, said) in [
        (0, 0o644, 0, ""),
        (54_324, 0o600, 0, ""),
        (54_324, 0o622, 2, "Run: chmod o-w '"),
        (0, 0o666, 2, "Run: install -m 600 '"),
        (
            54_325,
            0o644,
            2,
            "it belongs to uid 54325, not to uid 54324 or root. Run: install -m 600 '",
        ),
    ] {
        chown(&file, Some(owner), None).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = place
            .command("setpriv")
            .args(["--reuid=54324", "--clear-groups"])
            .arg(&program)
            .args(["run", "--config"])
            .arg(&file)
            .args(["--", "true"])
            .current_dir(&home)
            .output()
            .unwrap();
        let errors = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{owner} {mode:o}: {errors}"
        );
        assert!(errors.contains(said), "{errors}");
    }
}

#[test]
fn c8_the_address_of_a_service_is_ignored_and_said_once() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let mut run = place.jobcred(arguments);
        run.env("JOBCRED_ENDPOINT_PORT", "tcp://10.0.0.1:80")
            .env("JOBCRED_ENDPOINT_PORT_80_TCP", "tcp://10.0.0.1:80")
            .env("JOBCRED_ENDPOINT_PORT_80_TCP_ADDR", "10.0.0.1")
            .env("JOBCRED_ENDPOINT_PORT_80_TCP_PORT", "80")
            .env("JOBCRED_ENDPOINT_PORT_80_TCP_PROTO", "tcp")
            .env("JOBCRED_ENDPOINT_SERVICE_HOST", "10.0.0.1")
            .env("JOBCRED_ENDPOINT_SERVICE_PORT", "80");
        let output = run.output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for sandbox in [&["run", "--sandbox"][..], &["run"]] {
        let (code, errors) = run(&[sandbox, &["--", "sh", "-c", "exit 9"]].concat());
        assert_eq!(code, Some(9), "{errors}");
        assert_eq!(errors.matches("is ignored").count(), 1, "{errors}");
        let sentence = "jobcred: JOBCRED_ENDPOINT_PORT is ignored: Kubernetes sets it";
        assert!(errors.contains(sentence), "{errors}");
        let quiet = [sandbox, &["-q", "--", "sh", "-c", "exit 9"]].concat();
        assert_eq!(run(&quiet), (Some(9), String::new()));
    }
}
