//! A namespace of one test's own, for what only one can have at a time: the address of the metadata service, and
//! names of hosts.

use std::process::Command;

use jobcred_tests::require_isolation;

const MARK: &str = "JOBCRED_TEST_NESTED";

/// Runs this very test again where 169.254.169.254 is the loopback device's, unless it runs there already. True there.
///
/// `name` is the test's own, with its modules.
#[must_use]
pub fn in_namespace_with_imds(name: &str) -> bool {
    in_namespace(name, &["--imds-address"])
}

/// The same where these names resolve to 127.0.0.1.
#[must_use]
pub fn in_namespace_with_hosts(name: &str, hosts: &[&str]) -> bool {
    let options: Vec<&str> = hosts.iter().flat_map(|host| ["--host", *host]).collect();
    in_namespace(name, &options)
}

fn in_namespace(name: &str, options: &[&str]) -> bool {
    require_isolation();
    #[expect(
        clippy::disallowed_methods,
        reason = "a mark for the same program, run again"
    )]
    let nested = std::env::var_os(MARK).is_some_and(|mark| mark == name);
    if nested {
        return true;
    }
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/isolated"))
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MARK, name)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stdout = text(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{name} in its own namespace: {}\n{stdout}\n{}",
        output.status,
        text(&output.stderr)
    );
    false
}
