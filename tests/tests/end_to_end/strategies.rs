//! Each strategy, in the environment that its platform sets: what goes upstream, and what comes back.

use jobcred_tests::{AzureMl, AzureMlOptions};

use crate::support::World;

fn cluster(aml: &AzureMl) -> World {
    World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets())
}

#[test]
fn compute_identity_asks_for_the_default_identity_by_its_client_id() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = cluster(&aml);
    let agent = world.agent();
    let answer = world.storage();
    assert_eq!(answer.token(), aml.tokens()[0].token);
    let json = answer.json();
    assert_eq!(json["token_type"], "Bearer");
    assert_eq!(json["expires_on"], aml.tokens()[0].expires_on);

    let requests = aml.requests();
    assert_eq!(requests.len(), 1, "one request upstream");
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/MSI/auth"));
    assert_eq!(request.parameter("api-version").as_deref(), Some("2017-09-01"));
    assert_eq!(request.header("secret"), Some(aml.secret()));
    let expected = aml.options().identities.first().unwrap();
    assert_eq!(request.parameter("clientid"), Some(expected.client_id.clone()));
    // A second caller is answered from memory.
    assert_eq!(world.storage().token(), answer.token());
    assert_eq!(aml.requests().len(), 1);
    agent.end().succeeded();
    assert!(!world.socket().exists(), "the agent removes its socket");
}
