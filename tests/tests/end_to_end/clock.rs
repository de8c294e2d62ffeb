//! A machine whose clock is wrong: COMMAND runs, the fault is said once, and no token outlives the correction.

use std::fs;
use std::path::PathBuf;

use jobcred_tests::{AzureMl, AzureMlOptions};
use nix::sys::signal::Signal;

use crate::support::{Call, World};

const STORAGE: &str = "https://storage.azure.com/";
const SAYS_1970: &str = "this machine's clock says 1970-01-01 00:";
const DAY: i64 = 86_400;

/// A cluster whose processes take the time from a file.
struct Machine {
    aml: AzureMl,
    world: World,
    library: PathBuf,
}

impl Machine {
    fn new(time: &str) -> Self {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let world = World::new()
            .with_environment(aml.environment())
            .with_environment([("JOBCRED_RESOURCES", STORAGE)])
            .with_secrets(aml.secrets());
        let machine = Self {
            aml,
            world,
            library: library(),
        };
        machine.set(time);
        machine
    }

    fn file(&self) -> PathBuf {
        self.world.path().join("time")
    }

    /// Sets the clock, as libfaketime(1) writes it.
    fn set(&self, time: &str) {
        let new = self.world.path().join("new-time");
        fs::write(&new, format!("{time}\n")).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn jobcred(&self, arguments: &[&str]) -> Call<'_> {
        self.world
            .jobcred(arguments)
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            // Waiting is not by this clock.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

/// Where Debian's package `faketime` puts it.
fn library() -> PathBuf {
    let place = |directory: fs::DirEntry| directory.path().join("faketime/libfaketimeMT.so.1");
    fs::read_dir("/usr/lib")
        .unwrap()
        .filter_map(|directory| directory.ok().map(place))
        .find(|library| library.is_file())
        .expect("libfaketime is installed: run `tests/setup test`, as `make test` does")
}

#[test]
fn in_1970_tokens_are_served_and_renewed_when_the_clock_is_set() {
    let machine = Machine::new("@1970-01-01 00:00:10");
    let run = machine
        .jobcred(&[
            "run",
            "--",
            "sh",
            "-c",
            "echo ready; exec tail -f /dev/null",
        ])
        .start();
    run.wait_for_stdout("ready\n");
    let expires_on = |answer: &crate::support::Answer| answer.json()["expires_on"].as_i64();
    let early = machine.world.storage();
    assert_eq!(early.status, 200, "{}", early.body);
    // By the clock of this machine, on which it lives for a day at most.
    let end = expires_on(&early).unwrap();
    assert!((DAY / 2..2 * DAY).contains(&end), "{end}");

    let status = machine.jobcred(&["status"]).run().succeeded().stdout;
    for part in [SAYS_1970, " days behind the issuer's"] {
        assert!(status.contains(part), "{part:?} not in {status}");
    }
    // What `explain` says of the clock, once.
    let explained = |more: &[&str]| {
        let call = machine.jobcred(&["explain", "--json"]).args(more);
        let explanation = call.run().json();
        let mut said = explanation["notices"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|notice| notice["code"] == "clock_wrong");
        let message = said.next().unwrap()["message"].as_str().unwrap().to_owned();
        assert_eq!(said.next(), None);
        assert!(message.starts_with(SAYS_1970), "{message}");
        message
    };
    assert!(!explained(&[]).contains("behind"));
    assert!(explained(&["--probe"]).contains(" days behind the issuer's"));
    let check = [
        "check",
        "--json",
        "https://account.blob.core.windows.net/data",
    ];
    let check = machine.jobcred(&check).run().json();
    let findings = check["findings"].as_array().unwrap();
    assert!(
        findings
            .iter()
            .any(|finding| finding["code"] == "clock_skew"
                && finding["explanation"]
                    .as_str()
                    .unwrap()
                    .starts_with(SAYS_1970)),
        "{check:#}"
    );

    let before = machine.aml.requests().len();
    machine.set("+0s");
    let late = machine.world.storage();
    assert_eq!(late.status, 200, "{}", late.body);
    assert_eq!(machine.aml.requests().len(), before + 1);
    let issued = machine.aml.tokens().last().unwrap().expires_on;
    assert_eq!(expires_on(&late), Some(issued));
    run.wait_for_stderr("this machine's clock is right again");
    let status = machine.jobcred(&["status"]).run().succeeded().stdout;
    assert!(!status.contains("machine's clock"), "{status}");
    run.signal(Signal::SIGTERM);
    let said = run.finish().stderr;
    assert_eq!(
        said.matches("this machine's clock says").count(),
        1,
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn in_2100_the_command_runs_and_hears_why_there_are_no_tokens() {
    let machine = Machine::new("@2100-01-01 00:00:10");
    let output = machine
        .jobcred(&["run", "--", "echo", "ran"])
        .env("JOBCRED_PREFETCH_TIMEOUT", "1")
        .run()
        .succeeded();
    assert_eq!(output.stdout, "ran\n");
    for part in [
        "this machine's clock says 2100-01-01 00:",
        "correct the clock",
        "COMMAND starts all the same",
    ] {
        let said = &output.stderr;
        assert!(said.contains(part), "{part:?} not in {said}");
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}
