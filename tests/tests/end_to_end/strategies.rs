//! Each strategy, in the environment that its platform sets: what goes upstream, and what comes back.

use jobcred_tests::{
    AppService, AppServiceOptions, AzureMl, AzureMlOptions, Identities, Imds, ImdsOptions,
    Principal, RecordedRequest, WithoutClientId,
};

use crate::support::{World, in_namespace_with_imds};

pub const STORAGE: &str = "https://storage.azure.com/";

pub fn started(options: AzureMlOptions) -> (AzureMl, World) {
    let aml = AzureMl::start(options).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets());
    (aml, world)
}

fn without(name: &str, variables: Vec<(String, String)>) -> Vec<(String, String)> {
    variables.into_iter().filter(|(n, _)| n != name).collect()
}

/// What Azure ML's managed-identity endpoint has to be sent, to the letter.
#[track_caller]
pub fn is_azure_ml(request: &RecordedRequest, aml: &AzureMl, client_id: Option<&str>) {
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("GET", "/MSI/auth")
    );
    let mut expected = vec![("api-version", "2017-09-01"), ("resource", STORAGE)];
    expected.extend(client_id.map(|id| ("clientid", id)));
    assert_eq!(parameters(request), expected);
    assert_eq!(request.header("secret"), Some(aml.secret()));
    assert_eq!(request.header("metadata"), None);
    assert_eq!(request.body, "");
}

pub fn parameters(request: &RecordedRequest) -> Vec<(&str, &str)> {
    // Nothing that is sent here has to be decoded but these.
    request
        .query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| match value {
            "https%3A%2F%2Fstorage.azure.com%2F" => (name, STORAGE),
            plain => (name, plain),
        })
        .collect()
}

#[test]
fn compute_identity_asks_for_the_default_identity_by_its_client_id() {
    let (aml, world) = started(AzureMlOptions::default());
    let agent = world.agent();
    let answer = world.storage();
    assert_eq!(answer.token(), aml.tokens()[0].token);
    let json = answer.json();
    assert_eq!(json["token_type"], "Bearer");
    assert_eq!(json["expires_on"], aml.tokens()[0].expires_on);
    let own = &aml.options().identities.first().unwrap().client_id;
    assert_eq!(aml.requests().len(), 1);
    is_azure_ml(&aml.requests()[0], &aml, Some(own));

    // All spellings of the resource are one entry, answered from memory.
    for query in [
        "resource=https://storage.azure.com",
        "resource=https%3A%2F%2Fstorage.azure.com%2F",
        "scope=https://storage.azure.com/.default",
        "scope=https://storage.azure.com//.default",
    ] {
        assert_eq!(world.get(query).token(), answer.token(), "{query}");
    }
    assert_eq!(aml.requests().len(), 1);
    assert_eq!(aml.obo().requests().len(), 0);
    let output = agent.end().succeeded();
    assert!(output.stderr.contains("who: compute-identity"));
    assert!(!world.socket().exists(), "the agent removes its socket");
}

#[test]
fn a_request_may_name_another_identity_of_the_cluster_where_policy_allows() {
    let (aml, world) = started(AzureMlOptions {
        identities: Identities::user_assigned(3),
        ..AzureMlOptions::default()
    });
    let named = |index: usize| {
        aml.options().identities.user_assigned[index]
            .client_id
            .clone()
    };
    let world = world.with_environment([("JOBCRED_ALLOW_IDENTITIES", named(1))]);
    let _agent = world.agent();
    let query = |id: &str| format!("resource={STORAGE}&client_id={id}");
    let token = world.get(&query(&named(1))).token();
    assert_eq!(aml.tokens()[0].token, token);
    assert_eq!(aml.tokens()[0].principal.client_id, named(1));
    is_azure_ml(&aml.requests()[0], &aml, Some(&named(1)));

    let refused = world.get(&query(&named(2)));
    assert_eq!((refused.status, refused.code().as_str()), (403, "denied"));
    assert_eq!(
        aml.requests().len(),
        1,
        "a refusal is not asked about upstream"
    );
    // The job's own needs no permission.
    assert_ne!(world.get(&query(&named(0))).token(), token);
}

#[test]
fn user_identity_asks_the_on_behalf_of_endpoint_alone() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.user_environment())
        .with_secrets(aml.secrets());
    let agent = world.agent();
    assert_eq!(world.storage().token(), aml.tokens()[0].token);
    assert_eq!(aml.tokens()[0].principal, aml.options().user);
    let requests = aml.obo().requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0].method.as_str(), requests[0].path.as_str()),
        ("GET", "/OBO/token")
    );
    assert_eq!(parameters(&requests[0]), [("resource", STORAGE)]);
    assert_eq!(requests[0].header("secret"), Some(aml.secret()));

    let refused = world.get(&format!(
        "resource={STORAGE}&client_id={}",
        aml.options().identities.first().unwrap().client_id
    ));
    assert_eq!((refused.status, refused.code().as_str()), (403, "denied"));
    assert!(
        refused.error("message").contains("user"),
        "{}",
        refused.body
    );

    aml.end_user_grant(true);
    let ended = world.get("resource=https://vault.azure.net");
    assert_eq!((ended.status, ended.code().as_str()), (502, "grant_ended"));
    assert!(
        ended.error("hint").contains("submit the job again"),
        "{}",
        ended.body
    );
    // What was got before still holds.
    assert_eq!(world.storage().token(), aml.tokens()[0].token);
    assert_eq!(aml.msi().requests().len(), 0);
    assert_eq!(aml.msi().recorder().connections(), 0);
    agent.end().succeeded();
}

#[test]
fn user_identity_without_its_endpoint_is_a_start_up_error_and_nobody_else_is_asked() {
    for endpoint in [
        None,
        Some(""),
        Some("obo-not-enabled"),
        Some("ftp://127.0.0.1/"),
    ] {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let mut environment = without("OBO_ENDPOINT", aml.user_environment());
        environment.extend(endpoint.map(|value| ("OBO_ENDPOINT".to_owned(), value.to_owned())));
        let world = World::new()
            .with_environment(environment)
            .with_secrets(aml.secrets());
        let output = world.jobcred(&["agent"]).run();
        assert_eq!(output.code, Some(121), "{}", output.stderr);
        assert!(output.stderr.contains("OBO_ENDPOINT"), "{}", output.stderr);
        assert!(!world.socket().exists());

        // `run` says so too, and COMMAND runs: every token request is answered with the reason.
        let jobcred = crate::support::binary("jobcred").display().to_string();
        let script = format!("echo started; {jobcred} token; echo $?; exit 7");
        let output = world.jobcred(&["run", "--", "sh", "-c", &script]).run();
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(7), "started\n125\n")
        );
        assert!(
            output.stderr.contains("COMMAND runs all the same"),
            "{}",
            output.stderr
        );
        assert!(output.stderr.contains("denied"), "{}", output.stderr);

        let output = world
            .jobcred(&["run", "--required", "--", "echo", "started"])
            .run();
        assert_eq!((output.code, output.stdout.as_str()), (Some(121), ""));
        assert_eq!(aml.msi().recorder().connections(), 0, "{endpoint:?}");
        assert_eq!(aml.obo().recorder().connections(), 0, "{endpoint:?}");
    }
}

#[test]
fn where_only_the_metadata_service_answers_it_is_system_identity() {
    let name = "strategies::where_only_the_metadata_service_answers_it_is_system_identity";
    if !in_namespace_with_imds(name) {
        return;
    }
    let imds = Imds::start(ImdsOptions {
        bind: "169.254.169.254:80".parse().unwrap(),
        identities: Identities::system(),
        ..ImdsOptions::default()
    })
    .unwrap();
    let world = World::new().with_secrets(imds.secrets());
    let agent = world.agent();
    assert_eq!(world.storage().token(), imds.tokens()[0].token);
    let output = agent.end().succeeded();
    assert!(
        output.stderr.contains("who: system-identity"),
        "{}",
        output.stderr
    );

    // `run` does not make COMMAND wait for the probe: the agent makes it, and says who it is.
    let jobcred = crate::support::binary("jobcred").display().to_string();
    let output = world
        .jobcred(&["run", "--", &jobcred, "token", "--json"])
        .run();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let own = imds.options().identities.first().unwrap();
    assert_eq!(output.json()["claims"]["object_id"], own.object_id);
    assert!(
        output.stderr.contains("who: system-identity"),
        "{}",
        output.stderr
    );
}

#[test]
fn system_identity_tries_an_empty_client_id_once_where_none_is_refused() {
    let (aml, _) = started(AzureMlOptions {
        without_client_id: WithoutClientId::RefuseUnlessEmpty,
        identities: Identities::system(),
        ..AzureMlOptions::default()
    });
    let world = World::new()
        .with_environment(without("DEFAULT_IDENTITY_CLIENT_ID", aml.environment()))
        .with_secrets(aml.secrets());
    let agent = world.agent();
    assert_eq!(world.storage().token(), aml.tokens()[0].token);
    let requests = aml.requests();
    assert_eq!(requests.len(), 2);
    is_azure_ml(&requests[0], &aml, None);
    is_azure_ml(&requests[1], &aml, Some(""));
    let output = agent.end().succeeded();
    assert!(
        output.stderr.contains("who: system-identity"),
        "{}",
        output.stderr
    );
}

#[test]
fn system_identity_speaks_app_services_dialect_where_its_variables_are() {
    let service = AppService::start(AppServiceOptions {
        identities: Identities::system(),
        ..AppServiceOptions::default()
    })
    .unwrap();
    let environment = service.environment();
    let header = environment
        .iter()
        .find(|(name, _)| name == "IDENTITY_HEADER")
        .map(|(_, value)| value.clone());
    let world = World::new()
        .with_environment(environment)
        .with_secrets(service.secrets());
    let _agent = world.agent();
    let token = world.storage().token();
    assert_eq!(service.tokens()[0].token, token);
    let requests = service.requests();
    assert_eq!(requests.len(), 1);
    let expected = [("api-version", "2019-08-01"), ("resource", STORAGE)];
    assert_eq!(parameters(&requests[0]), expected);
    assert_eq!(requests[0].header("x-identity-header"), header.as_deref());
}

#[test]
fn placeholders_count_as_absent() {
    let (aml, world) = started(AzureMlOptions {
        without_client_id: WithoutClientId::FirstIdentity,
        ..AzureMlOptions::default()
    });
    let world = world.with_environment([
        ("DEFAULT_IDENTITY_CLIENT_ID", "clientid"),
        // A batch node, so that no compute instance can be meant.
        ("AZ_BATCH_NODE_ID", "tvmps_1"),
    ]);
    let agent = world.agent();
    assert_eq!(world.storage().token(), aml.tokens()[0].token);
    is_azure_ml(&aml.requests()[0], &aml, None);
    let output = agent.end().succeeded();
    assert!(
        output.stderr.contains("who: system-identity"),
        "{}",
        output.stderr
    );

    let world = World::new().with_environment([
        ("MSI_ENDPOINT", "identity-responder-not-enabled"),
        ("DEFAULT_IDENTITY_CLIENT_ID", "clientid"),
        ("JOBCRED_PROBE", "false"),
    ]);
    let output = world.jobcred(&["agent"]).run();
    assert_eq!(output.code, Some(121), "{}", output.stderr);
    assert!(
        output.stderr.contains("no token can be had"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_users_token_is_never_served_as_the_computes() {
    let (aml, world) = started(AzureMlOptions::default());
    aml.mint().set_impostor(Some(aml.options().user.clone()));
    let agent = world.agent();
    let refused = world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    assert!(
        refused.error("hint").contains("single sign-on"),
        "{}",
        refused.body
    );
    let log = agent.end().succeeded().stderr;
    assert!(
        log.contains(&aml.options().user.object_id),
        "said loudly, with ids: {log}"
    );
    assert!(!log.contains("someone@example.org"), "no user names: {log}");
}

#[test]
fn on_a_compute_instance_the_users_token_is_served_for_what_it_is() {
    let (aml, world) = started(AzureMlOptions {
        without_client_id: WithoutClientId::SignedInUser,
        ..AzureMlOptions::default()
    });
    let world = world.with_environment([
        ("DEFAULT_IDENTITY_CLIENT_ID", "clientid"),
        ("JOBCRED_STRATEGY", "compute-instance-user"),
    ]);
    let agent = world.agent();
    assert_eq!(world.storage().token(), aml.tokens()[0].token);
    is_azure_ml(&aml.requests()[0], &aml, None);
    let status = world.ask("GET", "/v1/status").json();
    assert_eq!(status["strategy"], "compute-instance-user");
    assert_eq!(status["principal"]["kind"], "user");
    agent.end().succeeded();
}

#[test]
fn another_principal_half_way_is_refused_while_the_old_token_is_still_served() {
    let (aml, world) = started(AzureMlOptions::default());
    let agent = world.agent();
    let token = world.storage().token();
    let own = aml.options().identities.first().unwrap().clone();
    let stranger = Principal::application();
    let liars = [
        stranger.clone(),
        // The same application, said to be of another tenant, or with another object id.
        Principal {
            tenant_id: stranger.client_id.clone(),
            ..own.clone()
        },
        Principal {
            object_id: Principal::application().object_id,
            ..own
        },
    ];
    for (index, liar) in liars.iter().enumerate() {
        aml.mint().set_impostor(Some(liar.clone()));
        let fetches = aml.requests().len();
        let refused = world.get(&format!("resource=https://example.org/{index}"));
        assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
        assert_eq!(aml.requests().len(), fetches + 1);
        agent.wait_for_log(&liar.object_id);
        assert_eq!(world.storage().token(), token);
    }
    // So is one past the cache, of the very token that is held.
    let fetches = aml.requests().len();
    let challenged = world.get(&format!("resource={STORAGE}&claims=%7B%7D"));
    assert_eq!(challenged.code(), "rejected", "{}", challenged.body);
    assert_eq!(aml.requests().len(), fetches + 1);
    assert_eq!(world.storage().token(), token);

    aml.mint().set_impostor(None);
    assert_eq!(world.get("resource=https://example.org/4").status, 200);
    agent.end().succeeded();
}

#[test]
fn what_the_configuration_expects_is_held() {
    let (aml, world) = started(AzureMlOptions::default());
    let stranger = Principal::application();
    for (name, value) in [
        ("JOBCRED_EXPECT_OBJECT_ID", &stranger.object_id),
        ("JOBCRED_EXPECT_CLIENT_ID", &stranger.client_id),
        ("JOBCRED_EXPECT_TENANT_ID", &stranger.client_id),
    ] {
        let process = world.jobcred(&["agent"]).env(name, value).start();
        process.wait_for_stderr("listening at");
        let refused = world.storage();
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (502, "rejected"),
            "{name}"
        );
    }
    assert_eq!(aml.obo().requests().len(), 0);
}

#[test]
fn no_proxy_of_the_job_comes_between_the_agent_and_its_endpoint() {
    let (aml, world) = started(AzureMlOptions::default());
    let proxy = AzureMl::start(AzureMlOptions::default()).unwrap();
    let address = proxy.msi().url("");
    let names = [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ];
    let world = world.with_environment(names.map(|name| (name, address.clone())));
    let _agent = world.agent();
    assert_eq!(world.storage().token(), aml.tokens()[0].token);
    assert_eq!(proxy.msi().recorder().connections(), 0);
}
