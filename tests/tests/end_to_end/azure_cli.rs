//! The Azure CLI's login, played by a script on PATH.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use jobcred_tests::Secrets;

use crate::support::World;

const TOKEN: &str = "opaque-token-of-the-azure-cli-9c2f";

/// A home with an `az` that does what `script` says.
fn laptop(script: &str) -> World {
    let secrets = Secrets::new();
    secrets.add("token", TOKEN);
    let world = World::new().with_secrets(&secrets);
    let directory = world.path().join("bin");
    fs::create_dir(&directory).unwrap();
    let program = directory.join("az");
    fs::write(
        &program,
        format!("#!/bin/sh\ncd {}\n{script}\n", world.path().display()),
    )
    .unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.display());
    world.with_environment([("PATH", path), ("JOBCRED_STRATEGY", "azure-cli".to_owned())])
}

fn lines(world: &World, name: &str) -> usize {
    let text = fs::read_to_string(world.path().join(name)).unwrap_or_default();
    text.lines().count()
}

#[test]
fn a_login_is_asked_once_and_served_to_all() {
    let world = laptop(&format!(
        "echo \"$HOME $*\" >> calls\nexpires=$(($(date +%s) + 3000))\necho \"{{\\\"accessToken\\\":\\\"{TOKEN}\\\",\\\"expires_on\\\":$expires}}\""
    ));
    let agent = world.agent();
    for _ in 0..3 {
        assert_eq!(world.storage().token(), TOKEN);
    }
    assert_eq!(lines(&world, "calls"), 1);
    let calls = fs::read_to_string(world.path().join("calls")).unwrap();
    assert_eq!(
        calls.trim(),
        format!(
            "{} account get-access-token --output json --resource=https://storage.azure.com/",
            world.path().display()
        )
    );
    let output = agent.end().succeeded();
    assert!(
        output.stderr.contains("who: azure-cli"),
        "{}",
        output.stderr
    );
}

#[test]
fn no_login_is_said_with_what_to_do() {
    let world = laptop(
        "echo call >> calls\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1",
    );
    let _agent = world.agent();
    let refused = world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    assert!(
        refused.error("hint").contains("az login"),
        "{}",
        refused.body
    );
    for _ in 0..20 {
        assert_eq!(world.storage().code(), "rejected");
    }
    assert_eq!(lines(&world, "calls"), 1);
}

#[test]
fn a_login_that_has_ended_has_the_code_of_a_session_that_has() {
    let world = laptop(
        "echo \"ERROR: AADSTS50173: The provided grant has expired due to it being revoked.\" >&2\necho \"Interactive authentication is needed. Please run:\" >&2\necho \"az login\" >&2\nexit 1",
    );
    let _agent = world.agent();
    let token = world
        .jobcred(&["token", "https://storage.azure.com/"])
        .run();
    assert_eq!(token.code, Some(119), "{token:?}");
    assert!(token.stderr.contains("az login"), "{token:?}");
}

#[test]
fn no_program_is_an_error_at_start() {
    let world =
        World::new().with_environment([("PATH", "/nowhere"), ("JOBCRED_STRATEGY", "azure-cli")]);
    let output = world.jobcred(&["agent"]).run();
    assert_eq!(output.code, Some(121), "{output:?}");
    assert!(output.stderr.contains("no directory of PATH"), "{output:?}");
}
