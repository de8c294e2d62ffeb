//! The frame itself: a test in it fails when a secret shows.

use std::path::Path;

use jobcred_tests::Secrets;

use crate::support::World;

const SECRET: &str = "kY9-a-secret-of-this-test-alone-3f7";

fn world() -> World {
    let secrets = Secrets::new();
    secrets.add("the test's own", SECRET);
    World::new()
        .with_secrets(&secrets)
        .with_environment([("HIDDEN", SECRET)])
}

fn shell(script: &str) {
    world().call(Path::new("/bin/sh"), &["-c", script]).run();
}

#[test]
#[should_panic(expected = "stdout of sh shows secrets")]
fn a_secret_on_standard_output_is_found() {
    shell("echo a $HIDDEN b");
}

#[test]
#[should_panic(expected = "stderr of sh shows secrets")]
fn a_secret_on_standard_error_is_found() {
    shell("echo $HIDDEN | od -An -tx1 | tr -d ' \\n' >&2");
}

#[test]
#[should_panic(expected = "stderr of sleep shows secrets")]
fn a_process_that_is_only_dropped_is_searched_too() {
    let script = "echo $HIDDEN >&2; exec sleep 1000";
    let world = world();
    let process = world
        .call(Path::new("/bin/sh"), &["-c", script])
        .named("sleep")
        .start();
    process.wait_for_stderr("kY9");
    drop(process);
}

#[test]
#[should_panic(expected = "a command line shows secrets")]
fn a_secret_among_the_arguments_is_found() {
    shell(&format!("kill -STOP $$; : {SECRET}"));
}

#[test]
fn the_declared_channel_is_standard_output_alone() {
    let output = world()
        .call(Path::new("/bin/sh"), &["-c", "echo $HIDDEN"])
        .declared()
        .run();
    assert_eq!(output.stdout.trim(), SECRET);
}
