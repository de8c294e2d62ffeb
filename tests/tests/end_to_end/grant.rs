//! The end of the user's session behind a job: said with a code of its own, and upstream left alone.

use std::time::Duration;

use jobcred_tests::{AzureMl, AzureMlOptions, Recorder};

use crate::support::{HUNG, World};

const STORAGE: &str = "https://storage.azure.com/";
const GRANT_ENDED: Option<i32> = Some(119);

fn user_job() -> (AzureMl, World) {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.user_environment())
        .with_secrets(aml.secrets());
    (aml, world)
}

/// The same job in another place, with resources declared.
fn user_job_with_resources(aml: &AzureMl) -> World {
    World::new()
        .with_environment(aml.user_environment())
        .with_environment([("JOBCRED_RESOURCES", STORAGE)])
        .with_secrets(aml.secrets())
}

/// Between two looks at something that changes with time alone.
fn pause() {
    assert!(!Recorder::new().wait_for(1, Duration::from_millis(100)));
}

#[test]
fn commands_end_with_its_own_code_and_upstream_is_asked_once() {
    let (aml, world) = user_job();
    aml.end_user_grant(true);
    let _agent = world.agent();
    for _ in 0..5 {
        let token = world.jobcred(&["token", STORAGE]).run();
        assert_eq!(token.code, GRANT_ENDED, "{token:?}");
        assert!(token.stderr.contains("submit the job again"), "{token:?}");
        assert_eq!(world.storage().code(), "grant_ended");
    }
    assert_eq!(aml.obo().requests().len(), 1, "ten callers, one request");

    let declared = user_job_with_resources(&aml);
    let _other = declared.agent();
    let waited = declared.jobcred(&["wait", "--timeout", "60"]).run();
    assert_eq!(waited.code, GRANT_ENDED, "{waited:?}");

    let probe = world.jobcred(&["explain", "--probe"]).run();
    assert_eq!(probe.code, GRANT_ENDED, "{probe:?}");
    assert!(probe.stderr.contains("submit the job again"), "{probe:?}");
    assert_eq!(aml.msi().requests().len(), 0, "never as somebody else");
}

#[test]
fn a_token_that_is_held_is_served_to_its_end_and_renewal_stops() {
    let (aml, world) = user_job();
    let world = world.with_environment([("JOBCRED_RESOURCES", STORAGE)]);
    aml.user_mint().set_lifetime(6);
    let _agent = world.agent();
    assert!(aml.obo().recorder().wait_for(1, HUNG));
    let token = world.storage().token();
    aml.end_user_grant(true);
    // The one renewal that is due finds out.
    assert!(aml.obo().recorder().wait_for(2, HUNG));
    let ended = loop {
        let answer = world.storage();
        if answer.status != 200 {
            break answer;
        }
        assert_eq!(answer.token(), token);
        pause();
    };
    assert_eq!((ended.status, ended.code().as_str()), (502, "grant_ended"));
    for _ in 0..20 {
        assert_eq!(world.storage().code(), "grant_ended");
        pause();
    }
    assert_eq!(aml.obo().requests().len(), 2);
}
