//! An independent client of the protocol, the crate `docker_credential`, gets its credential through the real binary: it
//! finds the registry in docker's configuration and the helper by name on the path.
//!
//! That crate reads its environment, and so does the helper. So this binary is both halves: run with `ask` it is the
//! client, otherwise it is the agent and starts the other half with an environment of its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops at the first surprise, and says at its end what it has done"
)]

#[path = "../../tests/double/mod.rs"]
mod double;

use std::path::Path;
use std::process::Command;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential};

use crate::double::{AgentDouble, json};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "ask") {
        return ask();
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let agent = AgentDouble::start(&socket, |_, _| {
        json(
            200,
            r#"{"server":"myreg.azurecr.io","username":"00000000-0000-0000-0000-000000000000","secret":"s3cret","expires_on":2,"refresh_on":1}"#,
        )
    });
    std::fs::write(
        dir.path().join("config.json"),
        r#"{"credHelpers":{"myreg.azurecr.io":"jobcred","mcr.microsoft.com":"jobcred"}}"#,
    )
    .unwrap();
    let helper = Path::new(env!("CARGO_BIN_EXE_docker-credential-jobcred"));
    let status = Command::new(std::env::current_exe().unwrap())
        .arg("ask")
        .env_clear()
        .env("PATH", helper.parent().unwrap())
        .env("DOCKER_CONFIG", dir.path())
        .env("JOBCRED_SOCKET", &socket)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(
        agent.requests(),
        ["GET /v1/registry?server=myreg.azurecr.io"]
    );
    println!("conformance: docker_credential got its credential");
}

fn ask() {
    assert_eq!(
        get_credential("myreg.azurecr.io"),
        Ok(DockerCredential::UsernamePassword(
            "00000000-0000-0000-0000-000000000000".to_owned(),
            "s3cret".to_owned(),
        ))
    );
    match get_credential("mcr.microsoft.com") {
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. }) => {
            assert_eq!(stdout, "credentials not found in native keychain\n");
            assert_eq!(stderr, "");
        }
        other => panic!("a public registry got {other:?}"),
    }
}
