//! `tests/isolated`, and the proof that it isolates.

use std::process::{Command, Output};

use crate::{check_isolation, require_isolation};

fn isolated(arguments: &[&str]) -> Output {
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/isolated");
    Command::new(wrapper).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn inside_there_is_no_way_out() {
    let this = std::env::current_exe().unwrap();
    let output = isolated(&[
        this.to_str().unwrap(),
        "--exact",
        "tests::isolation::proof_for_the_test_above",
        "--ignored",
    ]);
    assert!(stdout(&output).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run inside a namespace by the test above"]
fn proof_for_the_test_above() {
    require_isolation();
    assert_eq!(check_isolation(), Ok(()));
}

#[test]
fn the_commands_status_and_arguments_are_its_own() {
    let output = isolated(&[
        "sh",
        "-c",
        "printf '%s|' \"$@\"; exit 7",
        "sh",
        "a b",
        "c'\"d",
        "",
    ]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"a b|c'\"d||");
    assert_eq!(isolated(&["/nonexistent"]).status.code(), Some(127));
}

#[test]
fn an_agents_usual_place_is_the_namespaces_own_where_there_can_be_one() {
    // Two of them, one in the other, with a file of the outer one's in that place.
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/isolated");
    let nested = "
        touch /run/jobcred/outer
        before=$(ls -A /run)
        inside=$(\"$0\" sh -c 'ls -A /run/jobcred; touch /run/jobcred/inner; ls -A /run')
        [ \"$inside\" = \"$before\" ]
        ls -A /run/jobcred";
    let output = isolated(&["sh", "-ec", nested, wrapper]);
    assert_eq!(stdout(&output), "outer\n");
    // Where it cannot be made.
    let without = "mount -t tmpfs -o ro none /run; exec \"$0\" ls -A /run";
    let words = ["unshare", "--mount", "sh", "-ec", without, wrapper];
    assert_eq!(stdout(&isolated(&words)), "");
}

#[test]
fn names_and_the_metadata_address_can_be_had() {
    let script = "echo $JOBCRED_ISOLATED; getent hosts myreg.azurecr.io; ip -br -4 addr show lo";
    let output = isolated(&[
        "--imds-address",
        "--host",
        "myreg.azurecr.io",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let text = stdout(&output);
    let lines: Vec<Vec<_>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["1"]);
    assert_eq!(lines[1], ["127.0.0.1", "myreg.azurecr.io"]);
    assert!(lines[2].contains(&"169.254.169.254/32"), "{lines:?}");
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    assert!(!hosts.contains("myreg.azurecr.io"));
}

#[test]
fn what_it_can_not_do_it_refuses() {
    for arguments in [
        &[][..],
        &["--nonsense", "true"],
        &["--host", "a b", "true"],
        &["--host"],
    ] {
        let output = isolated(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(output.stderr.starts_with(b"isolated: "), "{output:?}");
    }
}
