//! On Kubernetes: workload identity, an endpoint in the pod, and the metadata service where it may be asked.

use std::fs;

use jobcred_tests::{
    AzureMlOptions, Entra, EntraOptions, Identities, Imds, ImdsOptions, Principal, RecordedRequest,
    TestCa, WithoutClientId,
};

use crate::strategies::{STORAGE, is_azure_ml, parameters, started};
use crate::support::{World, in_namespace_with_imds};

const IN_A_POD: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");

#[test]
fn on_kubernetes_workload_identity_reads_its_assertion_anew_each_time() {
    let ca = TestCa::new().unwrap();
    let entra = Entra::start(EntraOptions::default(), &ca.usual_leaf().unwrap()).unwrap();
    let world = World::new().with_secrets(entra.secrets());
    let file = world.path().join("azure-identity-token");
    fs::write(&file, entra.new_assertion(600)).unwrap();
    let ca_file = ca.write_to(world.path()).unwrap();
    let world = world
        .with_environment(entra.environment(file.to_str().unwrap()))
        .with_environment([
            IN_A_POD,
            ("JOBCRED_CA_FILE", ca_file.to_str().unwrap()),
            // The compute's identity is not what a pod runs as.
            (
                "DEFAULT_IDENTITY_CLIENT_ID",
                "11111111-2222-3333-4444-555555555555",
            ),
        ]);
    let agent = world.agent();
    assert_eq!(world.storage().token(), entra.tokens()[0].token);
    let application = &entra.options().application;
    let check = |request: &RecordedRequest, assertion: &str, scope: &str| {
        assert_eq!(request.method, "POST");
        let path = format!("/{}/oauth2/v2.0/token", application.tenant_id);
        assert_eq!(request.path, path);
        for (field, value) in [
            ("grant_type", "client_credentials"),
            ("client_id", &application.client_id),
            ("client_assertion", assertion),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("scope", scope),
        ] {
            assert_eq!(request.field(field).as_deref(), Some(value), "{field}");
        }
    };
    let posts = || -> Vec<RecordedRequest> {
        entra
            .requests()
            .into_iter()
            .filter(|request| request.method == "POST")
            .collect()
    };
    let first = fs::read_to_string(&file).unwrap();
    check(&posts()[0], &first, "https://storage.azure.com/.default");

    entra.expire_seen_assertions();
    let second = entra.new_assertion(600);
    fs::write(&file, &second).unwrap();
    assert_eq!(world.get("resource=https://vault.azure.net").status, 200);
    assert_eq!(posts().len(), 2);
    check(&posts()[1], &second, "https://vault.azure.net/.default");

    // Its own name is no other identity.
    let own = format!("resource={STORAGE}&client_id={}", application.client_id);
    assert_eq!(world.get(&own).status, 200);
    let other = format!(
        "resource={STORAGE}&client_id={}",
        Principal::application().client_id
    );
    assert_eq!(world.get(&other).code(), "denied");
    agent.end().succeeded();
}

#[test]
fn on_kubernetes_an_endpoint_is_asked_without_a_client_id() {
    let (aml, world) = started(AzureMlOptions {
        without_client_id: WithoutClientId::FirstIdentity,
        ..AzureMlOptions::default()
    });
    let world = world.with_environment([IN_A_POD]);
    let agent = world.agent();
    assert_eq!(world.storage().token(), aml.tokens()[0].token);
    is_azure_ml(&aml.requests()[0], &aml, None);
    let own = &aml.options().identities.first().unwrap().client_id;
    let named = |id: &str| world.get(&format!("resource={STORAGE}&client_id={id}"));
    assert_eq!(named(own).token(), aml.tokens()[0].token);
    let refused = named(&Principal::application().client_id);
    assert_eq!((refused.status, refused.code().as_str()), (403, "denied"));
    assert_eq!(aml.requests().len(), 1, "names are never sent upstream");
    let output = agent.end().succeeded();
    assert!(output.stderr.contains("kubernetes"), "{}", output.stderr);
}

#[test]
fn on_kubernetes_an_endpoint_that_refuses_is_not_tried_with_an_empty_client_id() {
    let (aml, world) = started(AzureMlOptions {
        without_client_id: WithoutClientId::RefuseUnlessEmpty,
        ..AzureMlOptions::default()
    });
    let world = world.with_environment([IN_A_POD]);
    let _agent = world.agent();
    let refused = world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    assert_eq!(aml.requests().len(), 1);
}

#[test]
fn on_kubernetes_the_metadata_service_is_asked_in_azure_ml_jobs_only() {
    let name = "kubernetes::on_kubernetes_the_metadata_service_is_asked_in_azure_ml_jobs_only";
    if !in_namespace_with_imds(name) {
        return;
    }
    let imds = Imds::start(ImdsOptions {
        bind: "169.254.169.254:80".parse().unwrap(),
        identities: Identities::system(),
        ..ImdsOptions::default()
    })
    .unwrap();
    let world = || {
        World::new()
            .with_secrets(imds.secrets())
            .with_environment([IN_A_POD])
    };
    let refused = world().jobcred(&["agent"]).run();
    assert_eq!(refused.code, Some(121));
    assert!(
        refused.stderr.contains("allow_node_identity"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        imds.endpoint().recorder().connections(),
        0,
        "not even a probe"
    );

    for allowed in [
        ("AZUREML_RUN_ID", "keen_rhubarb_1"),
        ("JOBCRED_ALLOW_NODE_IDENTITY", "true"),
    ] {
        imds.endpoint().recorder().clear();
        let world = world().with_environment([allowed]);
        let _agent = world.agent();
        let token = world.storage().token();
        assert_eq!(imds.tokens().last().unwrap().token, token);
        let requests: Vec<RecordedRequest> = imds
            .requests()
            .into_iter()
            .filter(|request| request.header("metadata").is_some())
            .collect();
        assert_eq!(requests.len(), 1, "{allowed:?}");
        assert_eq!(requests[0].path, "/metadata/identity/oauth2/token");
        assert_eq!(requests[0].header("metadata"), Some("true"));
        let expected = [("api-version", "2018-02-01"), ("resource", STORAGE)];
        assert_eq!(parameters(&requests[0]), expected);
    }
}
