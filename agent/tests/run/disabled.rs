//! `JOBCRED_DISABLED`: COMMAND runs in place of jobcred, whatever is wrong around it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::place::{BINARY, Place, text};

/// `run` in a directory of its own, with as much wrong around it as there can be.
fn switched_off(place: &Place, value: &str, command: &[&str]) -> Command {
    let pipe = place.file("pipe.toml");
    if !pipe.exists() {
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let mut run = place.command("timeout");
    run.args([
        "--foreground",
        "60",
        BINARY,
        "run",
        "--required",
        "--strategy",
        "nonsense",
    ])
    .arg("--config")
    .arg(&pipe)
    .arg("--")
    .args(command)
    .env("JOBCRED_DISABLED", value)
    .env("JOBCRED_GRACE", "soon")
    .env("JOBCRED_STRATGEY", "x")
    .env("JOBCRED_ENDPOINT_PORT", "tcp://10.0.0.1:80")
    .env("JOBCRED_RESOURCES", "[\"https://storage.azure.com\"]")
    .env("HTTPS_PROXY", "http://127.0.0.1:9")
    .env_remove("JOBCRED_JOB_LOG")
    .current_dir(place.file(""));
    run
}

#[test]
fn a_run_that_is_switched_off_is_the_command_and_nothing_else() {
    let place = Place::new();
    let script = "tr '\\0' ' ' < /proc/$$/cmdline; cat /proc/$PPID/comm; env -0 | sort -z | tr '\\0' '|'; exit 9";
    for value in ["1", "true", "TRUE", "yes", "On", " 1 "] {
        let mut run = switched_off(&place, value, &["sh", "-c", script]);
        let output = run.output().unwrap();
        assert_eq!(text(&output.stderr), "", "{value}");
        assert_eq!(output.status.code(), Some(9), "{value}");
        let mut plain = place.command("timeout");
        plain.args(["--foreground", "60", "sh", "-c", script]);
        let variables = run
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        plain.env_clear().envs(variables);
        let plain = plain.current_dir(place.file("")).output().unwrap();
        // Its words, its parent and its variables.
        assert_eq!(text(&output.stdout), text(&plain.stdout), "{value}");
    }
    let left: Vec<_> = fs::read_dir(place.file("")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_value_that_is_neither_true_nor_false_switches_off_and_is_said() {
    let place = Place::new();
    let output = switched_off(&place, "hunter2", &["sh", "-c", "exit 9"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(
        text(&output.stderr),
        "jobcred: JOBCRED_DISABLED is neither true nor false. It counts as true, so COMMAND runs without jobcred.\n"
    );
}

#[test]
fn a_run_that_is_not_switched_off_is_as_ever() {
    let place = Place::new();
    for value in ["", " ", "0", "false", "No", "off"] {
        let mut run =
            place.jobcred(&["run", "--sandbox", "--", "sh", "-c", "echo $JOBCRED_SOCKET"]);
        let output = run.env("JOBCRED_DISABLED", value).output().unwrap();
        assert!(text(&output.stderr).contains("who: sandbox"), "{value}");
        assert!(text(&output.stdout).contains("/own/run-"), "{value}");
    }
    // A slip is said, and does not end the job.
    let output = place
        .jobcred(&["run", "--sandbox", "--", "true"])
        .env("JOBCRED_DISABLE", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = "JOBCRED_DISABLE is ignored. Did you mean JOBCRED_DISABLED?";
    assert!(text(&output.stderr).contains(said));
}

#[test]
fn what_cannot_be_started_has_the_codes_and_words_of_run() {
    let place = Place::new();
    let ended = |command: &[&str]| {
        let output = switched_off(&place, "1", command).output().unwrap();
        (
            output.status.code(),
            text(&output.stderr),
            text(&output.stdout),
        )
    };
    let (code, errors, _) = ended(&["no-such-command"]);
    assert_eq!(code, Some(127));
    assert_eq!(errors, "jobcred: no-such-command: command not found\n");
    assert!(ended(&["echo hi"]).1.contains("sh -c 'echo hi'"));
    let file = place.file("script");
    fs::write(&file, "echo \"script $1\"\n").unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(ended(&[path]).0, Some(126));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, errors, said) = ended(&[path, "one"]);
    assert_eq!(
        (code, errors.as_str(), said.as_str()),
        (Some(0), "", "script one\n")
    );
}
