//! The real binary against a listener on a real Unix socket, by the letter of the credential helper protocol.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../tests/double/mod.rs"]
mod double;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::double::{Act, AgentDouble, error, json};

const NOT_FOUND: &str = "credentials not found in native keychain\n";
const REGISTRY: &str = r#"{"server":"myreg.azurecr.io","username":"00000000-0000-0000-0000-000000000000","secret":"s3cret","expires_on":2,"refresh_on":1}"#;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    (dir, path)
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_docker-credential-jobcred")
}

/// Runs the helper with nothing in its environment but the socket.
fn run(socket: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program())
        .args(arguments)
        .env_clear()
        .env("JOBCRED_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A helper that has all it needs may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), None);
    output
}

fn said(output: &Output) -> (i32, &str, &str) {
    (
        output.status.code().unwrap(),
        std::str::from_utf8(&output.stdout).unwrap(),
        std::str::from_utf8(&output.stderr).unwrap(),
    )
}

fn serving(path: &Path) -> AgentDouble {
    AgentDouble::start(path, |line, _| match line {
        "GET /v1/registry?server=myreg.azurecr.io" => json(200, REGISTRY),
        "GET /v1/registry?server=listed.example%3A5000" => json(
            200,
            &REGISTRY.replace("myreg.azurecr.io", "listed.example:5000"),
        ),
        line if line.starts_with("DELETE ") => {
            Act::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
        }
        _ => error(503, "unavailable"),
    })
}

#[test]
fn get_answers_every_form_of_a_served_address() {
    let (_dir, path) = place();
    let agent = serving(&path);
    let forms = [
        "myreg.azurecr.io",
        "myreg.azurecr.io\n",
        "myreg.azurecr.io:443",
        "https://myreg.azurecr.io",
        "http://myreg.azurecr.io",
        "https://myreg.azurecr.io:443/v1/",
        "MYREG.azurecr.io",
        "myreg.azurecr.io.",
        "myreg.azurecr.io/team/app",
    ];
    for form in forms {
        let output = run(&path, &["get"], form.as_bytes());
        let (code, stdout, stderr) = said(&output);
        assert_eq!((code, stderr), (0, ""), "{form}: {stdout}");
        let answer: serde_json::Value = serde_json::from_str(stdout).unwrap();
        assert_eq!(
            answer,
            serde_json::json!({
                "ServerURL": form.trim(),
                "Username": "00000000-0000-0000-0000-000000000000",
                "Secret": "s3cret",
            })
        );
    }
    assert_eq!(
        agent.requests(),
        vec!["GET /v1/registry?server=myreg.azurecr.io"; forms.len()]
    );
}

#[test]
fn get_asks_the_agent_about_hosts_it_may_have_been_given() {
    let (_dir, path) = place();
    let agent = serving(&path);
    let output = run(&path, &["get"], b"listed.example:5000");
    assert_eq!(said(&output).0, 0);
    let output = run(&path, &["get"], b"https://index.docker.io/v1/");
    assert_eq!(said(&output), (1, NOT_FOUND, ""));
    assert_eq!(agent.requests().len(), 2);
}

#[test]
fn get_never_asks_about_hosts_that_get_no_credential() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, _| json(200, REGISTRY));
    for host in [
        "mcr.microsoft.com",
        "https://mcr.microsoft.com/v2/",
        "myreg.westeurope.data.azurecr.io",
        "myreg.azurecr.io@evil.com",
        "user:pass@myreg.azurecr.io",
        "127.0.0.1:5000",
        "ftp://myreg.azurecr.io",
        "m\u{ff0e}azurecr.io",
    ] {
        let output = run(&path, &["get"], host.as_bytes());
        assert_eq!(said(&output), (1, NOT_FOUND, ""), "{host}");
    }
    let output = run(&path, &["get"], b"\xff\xfe");
    assert_eq!(said(&output), (1, NOT_FOUND, ""));
    assert_eq!(agent.connections(), 0);
}

#[test]
fn a_missing_agent_is_an_error_for_azure_and_no_matter_for_the_rest() {
    let (_dir, path) = place();
    for host in ["ghcr.io", "localhost:5000", "evil.azurecr.io.attacker.com"] {
        let output = run(&path, &["get"], host.as_bytes());
        assert_eq!(said(&output), (1, NOT_FOUND, ""), "{host}");
    }
    let output = run(&path, &["get"], b"myreg.azurecr.io");
    let (code, stdout, stderr) = said(&output);
    assert_eq!((code, stdout), (1, stderr), "the reason is on both streams");
    assert_eq!(stdout.lines().count(), 1);
    for part in [path.to_str().unwrap(), "JOBCRED_SOCKET"] {
        assert!(stdout.contains(part), "{stdout}");
    }
}

#[test]
fn what_the_agent_says_reaches_the_user() {
    for (status, kind, azure_only) in [
        (400, "invalid_request", true),
        (403, "denied", true),
        (503, "unavailable", true),
        (502, "rejected", false),
        (502, "grant_ended", false),
        (503, "transient", false),
        (500, "internal", false),
    ] {
        let (_dir, path) = place();
        let _agent = AgentDouble::start(&path, move |_, _| error(status, kind));
        let expected = format!("it is {kind}; look there (request r1)\n");
        let output = run(&path, &["get"], b"myreg.azurecr.io");
        assert_eq!(said(&output), (1, expected.as_str(), expected.as_str()));
        let output = run(&path, &["get"], b"other.example");
        let expected = if azure_only {
            (1, NOT_FOUND, "")
        } else {
            (1, expected.as_str(), expected.as_str())
        };
        assert_eq!(said(&output), expected, "{kind}");
    }
}

#[test]
fn a_registry_that_is_read_without_credentials_gets_none() {
    let (_dir, path) = place();
    let _agent = AgentDouble::start(&path, move |_, _| error(404, "anonymous"));
    for host in [&b"myreg.azurecr.io"[..], b"other.example"] {
        let output = run(&path, &["get"], host);
        assert_eq!(said(&output), (1, NOT_FOUND, ""));
    }
}

#[test]
fn an_agent_that_talks_nonsense_is_no_credential() {
    for answer in [
        "{}",
        "[]",
        r#"{"server":"m","username":"u","secret":"","expires_on":2,"refresh_on":1}"#,
    ] {
        let (_dir, path) = place();
        let _agent = AgentDouble::start(&path, move |_, _| json(200, answer));
        let output = run(&path, &["get"], b"myreg.azurecr.io");
        let (code, stdout, stderr) = said(&output);
        assert_eq!((code, stdout), (1, stderr));
        assert!(!stdout.contains("not found"));
    }
}

#[test]
fn an_empty_address_has_its_own_words() {
    let (_dir, path) = place();
    let expected = "no credentials server URL\n";
    for word in ["get", "erase"] {
        for input in ["", " \n", "https://"] {
            let output = run(&path, &[word], input.as_bytes());
            assert_eq!(said(&output), (1, expected, expected), "{word} {input:?}");
        }
    }
    let output = run(&path, &["store"], br#"{"Username":"u","Secret":"s3cret"}"#);
    assert_eq!(said(&output), (1, expected, expected));
    let output = run(
        &path,
        &["store"],
        br#"{"ServerURL":"myreg.azurecr.io","Secret":"s3cret"}"#,
    );
    let expected = "no credentials username\n";
    assert_eq!(said(&output), (1, expected, expected));
}

#[test]
fn input_without_end_is_refused() {
    let (_dir, path) = place();
    for word in ["get", "store", "erase"] {
        let output = run(&path, &[word], &vec![b'a'; 1 << 20]);
        let (code, stdout, _) = said(&output);
        assert_eq!((code, stdout), (1, "the input is too long\n"), "{word}");
    }
}

#[test]
fn store_is_accepted_and_forgotten_for_served_hosts_only() {
    let (_dir, path) = place();
    let store = |host: &str| {
        let input = format!(r#"{{"ServerURL":"{host}","Username":"u","Secret":"s3cret"}}"#);
        run(&path, &["store"], input.as_bytes())
    };
    assert_eq!(said(&store("myreg.azurecr.io")), (0, "", ""));
    let refusal = store("ghcr.io");
    let (code, stdout, stderr) = said(&refusal);
    assert_eq!((code, stdout), (1, stderr));
    assert!(!stdout.contains("s3cret"));
    let agent = serving(&path);
    assert_eq!(said(&store("myreg.azurecr.io")), (0, "", ""));
    assert_eq!(agent.connections(), 0, "nothing is passed on");
    assert_eq!(said(&store("listed.example:5000")), (0, "", ""));
    assert_eq!(said(&store("ghcr.io")).0, 1);
    let output = run(&path, &["store"], b"no JSON: s3cret");
    assert_eq!(said(&output).0, 1);
    assert!(!said(&output).1.contains("s3cret"));
}

#[test]
fn erase_drops_the_agents_copy_and_is_quiet_without_one() {
    let (_dir, path) = place();
    for host in ["myreg.azurecr.io", "ghcr.io", "mcr.microsoft.com"] {
        assert_eq!(said(&run(&path, &["erase"], host.as_bytes())), (0, "", ""));
    }
    let agent = serving(&path);
    for host in [
        "myreg.azurecr.io",
        "https://myreg.azurecr.io",
        "mcr.microsoft.com",
    ] {
        assert_eq!(said(&run(&path, &["erase"], host.as_bytes())), (0, "", ""));
    }
    assert_eq!(
        agent.requests(),
        vec!["DELETE /v1/registry?server=myreg.azurecr.io"; 2]
    );
}

#[test]
fn list_never_fails() {
    let (_dir, path) = place();
    assert_eq!(said(&run(&path, &["list"], b"unused")), (0, "{}\n", ""));
    let agent = AgentDouble::start(&path, |_, number| match number {
        0 => json(
            200,
            r#"{"version":"9","pid":1,"strategy":"s","fingerprint":"f","started_on":1,"ready":true,"callers":[],
               "tokens":[{"kind":"registry","identity":"default","resource":"myreg.azurecr.io","expires_on":9,"hits":0,"fetches":1,"failures":0},
                         {"kind":"registry","identity":"default","resource":"erased.azurecr.io","hits":0,"fetches":1,"failures":0},
                         {"kind":"token","identity":"default","resource":"r","expires_on":9,"hits":0,"fetches":1,"failures":0}]}"#,
        ),
        1 => json(200, "nonsense"),
        _ => error(500, "internal"),
    });
    let expected = "{\"myreg.azurecr.io\":\"00000000-0000-0000-0000-000000000000\"}\n";
    assert_eq!(said(&run(&path, &["list"], b"")), (0, expected, ""));
    assert_eq!(said(&run(&path, &["list"], b"")), (0, "{}\n", ""));
    assert_eq!(said(&run(&path, &["list"], b"")), (0, "{}\n", ""));
    assert_eq!(agent.requests(), vec!["GET /v1/status"; 3]);
}

#[test]
fn words_and_their_exit_status() {
    let (_dir, path) = place();
    let version = format!(
        "docker-credential-jobcred (jobcred) {}\n",
        env!("CARGO_PKG_VERSION")
    );
    for word in ["version", "--version", "-v"] {
        assert_eq!(said(&run(&path, &[word], b"")), (0, version.as_str(), ""));
    }
    for (arguments, status) in [
        (&["--help"][..], 0),
        (&["-h"], 0),
        (&[], 1),
        (&["nonsense"], 1),
        (&["get", "myreg.azurecr.io"], 1),
    ] {
        let output = run(&path, arguments, b"");
        let (code, stdout, stderr) = said(&output);
        assert_eq!((code, stderr), (status, ""), "{arguments:?}");
        assert!(
            stdout.starts_with("Usage: docker-credential-jobcred <get|store|erase|list|version>\n")
        );
    }
}
