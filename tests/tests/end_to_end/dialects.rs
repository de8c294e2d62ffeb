//! What unmodified SDKs get of each dialect: its shapes, its errors, and nothing of anybody else's.

mod bad_requests;

use jobcred_tests::{AzureMl, AzureMlOptions, Identities};
use serde_json::Value;

use crate::support::{Answer, Held, SdkRequest, World};

const STORAGE: &str = "https://storage.azure.com";
const APP_SERVICE: &str = "api-version=2019-08-01&resource=https://storage.azure.com";
const AZURE_ML: &str = "api-version=2017-09-01&resource=https://storage.azure.com";

/// A job on a cluster of three identities, with an endpoint in every dialect there is for it.
struct Job {
    aml: AzureMl,
    run: Held,
    // Last: what it holds is searched when all others have ended.
    _world: World,
}

impl Job {
    fn on_cluster(dialects: &str) -> Self {
        Self::start(dialects, AzureMl::environment)
    }

    fn of_a_user(dialects: &str) -> Self {
        Self::start(dialects, user_alone)
    }

    fn start(dialects: &str, environment: fn(&AzureMl) -> Vec<(String, String)>) -> Self {
        let aml = AzureMl::start(AzureMlOptions {
            identities: Identities::user_assigned(3),
            ..AzureMlOptions::default()
        })
        .unwrap();
        let world = World::new()
            .with_environment(environment(&aml))
            .with_secrets(aml.secrets());
        let run = Held::start(&world, "job", &[], &[("JOBCRED_DIALECTS", dialects)]);
        Self {
            aml,
            run,
            _world: world,
        }
    }

    fn app_service(&self) -> SdkRequest {
        SdkRequest::get(&self.run.variable("IDENTITY_ENDPOINT"))
            .header("x-identity-header", &self.run.variable("IDENTITY_HEADER"))
            .query(APP_SERVICE)
    }

    fn azure_ml(&self) -> SdkRequest {
        SdkRequest::get(&self.run.variable("MSI_ENDPOINT"))
            .header("secret", &self.run.variable("MSI_SECRET"))
            .query(AZURE_ML)
    }

    fn imds(&self) -> SdkRequest {
        let base = self.run.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        SdkRequest::get(&format!("{base}/metadata/identity/oauth2/token"))
            .header("metadata", "true")
            .query(&format!("api-version=2018-02-01&resource={STORAGE}"))
    }

    fn on_behalf_of(&self) -> SdkRequest {
        SdkRequest::get(&self.run.variable("OBO_ENDPOINT")).query(&format!("resource={STORAGE}"))
    }
}

/// Whose token a good answer has in it.
#[track_caller]
fn object_id(answer: &Answer) -> String {
    let claims = jobcred_tests::decode_claims(&answer.token()).unwrap();
    claims["oid"].as_str().unwrap().to_owned()
}

/// A refusal of that status, as JSON, from a connection that is closed.
#[track_caller]
fn refused(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("connection"), Some("close"));
    answer.json()
}

/// What a user's job finds on a compute without an identity of its own.
fn user_alone(aml: &AzureMl) -> Vec<(String, String)> {
    let mut variables = aml.user_environment();
    let name = "DEFAULT_IDENTITY_CLIENT_ID";
    variables.retain(|(variable, _)| variable != name);
    variables.push((name.to_owned(), "clientid".to_owned()));
    variables
}

#[test]
fn app_service_as_its_sdks_want_it() {
    let job = Job::on_cluster("auto");
    let answer = job.app_service().send();
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(body["token_type"], "Bearer");
    let expires_on: i64 = body["expires_on"].as_str().unwrap().parse().unwrap();
    assert!(expires_on > 1_700_000_000);
    assert_eq!(body.get("expires_in"), None);
    // The caller's own spelling.
    assert_eq!(body["resource"], STORAGE);
    let encoded = "resource=https%3A%2F%2Fstorage.azure.com%2F&api-version=2019-08-01";
    let again = job.app_service().query(encoded).send();
    assert_eq!(again.json()["resource"], "https://storage.azure.com/");
    assert_eq!(again.token(), answer.token());
    let identities = &job.aml.options().identities;
    assert_eq!(object_id(&answer), identities.first().unwrap().object_id);
    assert_eq!(job.aml.requests().len(), 1);
    // The platform's own stay as they are: mounts use them.
    for (name, value) in job.aml.environment() {
        assert_eq!(job.run.variable(&name), value);
    }
    job.run.end();
}

#[test]
fn identities_are_named_in_every_spelling() {
    let job = Job::on_cluster("app_service,azure_ml,imds");
    let identities = job.aml.options().identities.clone();
    let (own, other) = (identities.first().unwrap(), &identities.user_assigned[1]);
    assert_eq!(object_id(&job.app_service().send()), own.object_id);
    for request in [job.app_service(), job.azure_ml(), job.imds()] {
        let query = request.url.query().unwrap().to_owned();
        let naming = |name: &str, value: &str| {
            let query = format!("{query}&{name}={value}");
            request.clone().query(&query).send()
        };
        for name in ["client_id", "clientid"] {
            let answer = naming(name, &other.client_id);
            assert_eq!(object_id(&answer), other.object_id, "{name}");
            let answer = naming(name, &own.client_id.to_uppercase());
            assert_eq!(object_id(&answer), own.object_id, "{name}");
        }
        // Azure ML's own endpoint knows identities by client id alone; by any other name it would have been the wrong one.
        for name in ["object_id", "principal_id"] {
            assert_eq!(object_id(&naming(name, &own.object_id)), own.object_id);
            refused(&naming(name, &other.object_id), 403);
        }
        for name in ["mi_res_id", "msi_res_id", "resource_id"] {
            refused(&naming(name, &Identities::resource_id(other)), 403);
        }
    }
    // One for each identity, whatever dialect and spelling it was named in.
    assert_eq!(job.aml.requests().len(), 2);
    job.run.end();
}

#[test]
fn azure_ml_as_its_sdks_want_it() {
    let job = Job::on_cluster("azure_ml");
    assert_eq!(job.run.variable("IDENTITY_ENDPOINT"), "");
    let own = job.aml.options().identities.first().unwrap().clone();
    let query = AZURE_ML.to_owned();
    for request in [
        job.azure_ml(),
        // As the data libraries spell it.
        job.azure_ml().path("/MSI/auth/"),
        // SDKs that send what is in DEFAULT_IDENTITY_CLIENT_ID for nobody.
        job.azure_ml().query(&format!("{query}&clientid=")),
        job.azure_ml().query(&format!("{query}&clientid=clientid")),
        job.azure_ml()
            .query(&format!("{query}&clientid={}", own.client_id)),
    ] {
        let answer = request.send();
        let body = answer.json();
        assert_eq!(object_id(&answer), own.object_id);
        assert!(body["expires_on"].is_i64(), "{body}");
        assert!(body["expires_in"].as_i64().unwrap() > 0, "{body}");
        assert_eq!(body["resource"], STORAGE);
        assert_eq!(body["token_type"], "Bearer");
    }
    let wrong = job.azure_ml().query(APP_SERVICE).send();
    let body = refused(&wrong, 400);
    assert_eq!(body["error"]["code"], "invalid_request");
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("2017-09-01")
    );
    refused(&job.azure_ml().header("secret", "wrong").send(), 401);
    job.run.end();
}

#[test]
fn imds_as_its_sdks_want_it() {
    let job = Job::on_cluster("imds");
    let own = job
        .aml
        .options()
        .identities
        .first()
        .unwrap()
        .object_id
        .clone();
    let path = job.imds().url.path().to_owned();
    for request in [
        job.imds(),
        job.imds().path(&format!("{path}/")),
        job.imds().path(&path.replace("/metadata/", "/Metadata/")),
        job.imds()
            .query(&format!("api-version=2019-08-01&resource={STORAGE}")),
        job.imds()
            .query(&format!("resource={STORAGE}&api-version=2025-01-01")),
    ] {
        let answer = request.send();
        let body = answer.json();
        assert_eq!(object_id(&answer), own);
        for name in ["expires_on", "expires_in", "ext_expires_in", "not_before"] {
            let number: i64 = body[name].as_str().unwrap().parse().unwrap();
            assert!(number > 0, "{name}");
        }
        assert_eq!(body["resource"], STORAGE);
    }
    // By this SDKs find out whether anybody is there.
    let probe = job.imds().without("metadata");
    let body = refused(&probe.clone().query("").send(), 400);
    assert_eq!(body["error"], "invalid_request");
    assert!(
        body["error_description"]
            .as_str()
            .unwrap()
            .contains("Metadata")
    );
    refused(&probe.send(), 400);
    for version in [
        "2017-12-01",
        "2018-02-0",
        "latest",
        "2018-02-01-preview",
        "",
    ] {
        let query = format!("api-version={version}&resource={STORAGE}");
        refused(&job.imds().query(&query).send(), 400);
    }
    // Without the prefix there is nothing, and nothing is passed on to the real service.
    for path in ["/metadata/identity/oauth2/token", "/metadata/instance"] {
        refused(&job.imds().path(path).send(), 400);
    }
    job.run.end();
}

#[test]
fn on_behalf_of_is_for_jobs_that_run_as_a_user() {
    let job = Job::of_a_user("on_behalf_of,imds");
    let user = job.aml.options().user.object_id.clone();
    for resource in [STORAGE, "https://storage.azure.com/"] {
        let answer = job
            .on_behalf_of()
            .query(&format!("resource={resource}"))
            .send();
        assert_eq!(object_id(&answer), user);
        assert!(answer.json()["expires_on"].is_i64());
        assert_eq!(answer.json()["resource"], resource);
    }
    // The platform's secret may come along; it is for another endpoint.
    let answer = job.on_behalf_of().header("secret", "any").send();
    assert_eq!(answer.status, 200);
    let body = refused(&job.on_behalf_of().query("").send(), 400);
    assert_eq!(body["error"]["code"], "invalid_request");
    job.run.end();

    let job = Job::on_cluster("on_behalf_of,imds");
    assert_eq!(job.run.variable("OBO_ENDPOINT"), "");
    let base = job.run.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    let asked = SdkRequest::get(&format!("{base}/OBO/token")).query("resource=x");
    let body = refused(&asked.send(), 403);
    assert_eq!(body["error"]["code"], "denied");
    job.run.end();
}

#[test]
fn a_users_job_serves_the_user_to_who_names_nobody() {
    let job = Job::of_a_user("auto");
    assert!(job.run.process.stderr().contains("get the user's tokens"));
    let answer = job.app_service().send();
    assert_eq!(object_id(&answer), job.aml.options().user.object_id);
    let identity = job.aml.options().identities.first().unwrap().clone();
    for (name, value) in [
        ("client_id", identity.client_id.clone()),
        ("object_id", identity.object_id.clone()),
        ("mi_res_id", Identities::resource_id(&identity)),
    ] {
        let named = format!("{APP_SERVICE}&{name}={value}");
        let body = refused(&job.app_service().query(&named).send(), 403);
        assert_eq!(body["statusCode"], 403);
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("submitting user"), "{message}");
    }
    job.run.end();
    // Where the compute has an identity as well, code that asks for that one is left to the platform.
    let both = Job::start("auto", AzureMl::user_environment);
    assert_eq!(both.run.variable("IDENTITY_ENDPOINT"), "");
    both.run.end();
}

#[test]
fn a_users_job_can_refuse_whoever_asks_for_a_managed_identity() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(user_alone(&aml))
        .with_secrets(aml.secrets());
    let refuse = ("JOBCRED_USER_DIALECTS", "refuse");
    let run = Held::start(&world, "auto", &[], &[refuse]);
    assert_eq!(run.variable("IDENTITY_ENDPOINT"), "");
    run.end();
    let all = ("JOBCRED_DIALECTS", "app_service,on_behalf_of");
    let run = Held::start(&world, "all", &[], &[refuse, all]);
    let request = SdkRequest::get(&run.variable("IDENTITY_ENDPOINT"))
        .header("x-identity-header", &run.variable("IDENTITY_HEADER"))
        .query(APP_SERVICE);
    let body = refused(&request.send(), 403);
    assert!(body["message"].as_str().unwrap().contains("user_dialects"));
    // Who asks for the user is another matter.
    let url = run.variable("OBO_ENDPOINT");
    let answer = SdkRequest::get(&url).query("resource=x").send();
    assert_eq!(object_id(&answer), aml.options().user.object_id);
    run.end();
}
