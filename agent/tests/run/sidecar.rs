//! An agent of its own, and the subcommands that ask one.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::place::{BINARY, Place, text};

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
fn an_answer_that_cannot_be_written_is_no_success() {
    let place = Place::new();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = place
        .jobcred(&["completions", "bash"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(120));
    assert!(text(&output.stderr).contains("cannot write the answer"));
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
