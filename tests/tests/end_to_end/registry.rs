//! Container tools' way in: `docker-credential-jobcred`, the agent and a registry.

use jobcred_tests::{Acr, AcrOptions, AzureMl, AzureMlOptions, NULL_GUID, TestCa};

use crate::support::{Output, World, binary};

const ACR_AUDIENCE: &str = "https://containerregistry.azure.net";
const NOT_FOUND: &str = "credentials not found in native keychain\n";

/// A cluster and a registry on a port of its own, which the configuration lists.
struct Scene {
    aml: AzureMl,
    acr: Acr,
    server: String,
    world: World,
}

impl Scene {
    fn new(options: AzureMlOptions) -> Self {
        let aml = AzureMl::start(options).unwrap();
        let ca = TestCa::new().unwrap();
        let acr = Acr::start(AcrOptions::default(), &ca.usual_leaf().unwrap()).unwrap();
        let (_, port) = acr
            .endpoint()
            .url("")
            .rsplit_once(':')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let server = format!("localhost:{}", port.trim_end_matches('/'));
        acr.update(|options| options.login_server.clone_from(&server));
        let world = World::new();
        let ca_file = ca.write_to(world.path()).unwrap();
        let world = world
            .with_environment(aml.environment())
            .with_environment([
                ("JOBCRED_CA_FILE", ca_file.to_str().unwrap()),
                ("JOBCRED_REGISTRIES", &server),
            ])
            .with_secrets(aml.secrets())
            .with_secrets(acr.secrets());
        Self {
            aml,
            acr,
            server,
            world,
        }
    }

    fn helper(&self, word: &str, input: &str) -> Output {
        let call = self
            .world
            .call(&binary("docker-credential-jobcred"), &[word])
            .input(input);
        // `get` alone may print a secret.
        if word == "get" {
            call.declared().run()
        } else {
            call.run()
        }
    }

    fn exchanges(&self) -> usize {
        let requests = self.acr.requests();
        requests
            .iter()
            .filter(|request| request.path == "/oauth2/exchange")
            .count()
    }
}

/// The failure that a tool shows: the same line on both streams.
#[track_caller]
fn is_failure(output: &Output, parts: &[&str]) {
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(output.stdout, output.stderr);
    for part in parts {
        assert!(
            output.stdout.contains(part),
            "{part} is not in {}",
            output.stdout
        );
    }
}

#[test]
fn get_gives_the_registrys_own_token_and_asks_upstream_once() {
    let scene = Scene::new(AzureMlOptions::default());
    let agent = scene.world.agent();
    let address = format!("https://{}", scene.server);
    let output = scene.helper("get", &format!("{address}\n")).succeeded();
    let json = output.json();
    assert_eq!(json["ServerURL"], address.as_str());
    assert_eq!(json["Username"], NULL_GUID);
    assert_eq!(json["Secret"], scene.acr.refresh_tokens()[0].as_str());
    assert_eq!(output.stderr, "");

    let requests = scene.acr.requests();
    assert_eq!(requests.len(), 1, "no challenge is needed");
    let request = &requests[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/oauth2/exchange")
    );
    let token = &scene.aml.tokens()[0];
    assert_eq!(token.audience.trim_end_matches('/'), ACR_AUDIENCE);
    assert_eq!(request.field("grant_type").as_deref(), Some("access_token"));
    assert_eq!(
        request.field("service").as_deref(),
        Some(scene.server.as_str())
    );
    assert_eq!(
        request.field("access_token").as_deref(),
        Some(token.token.as_str())
    );

    let again = scene.helper("get", &scene.server).succeeded();
    assert_eq!(again.json()["Secret"], json["Secret"]);
    assert_eq!((scene.exchanges(), scene.aml.requests().len()), (1, 1));

    let list = scene.helper("list", "").succeeded().json();
    assert_eq!(
        list,
        serde_json::json!({ scene.server.as_str(): NULL_GUID })
    );

    let erased = scene.helper("erase", &address).succeeded();
    assert_eq!((erased.stdout.as_str(), erased.stderr.as_str()), ("", ""));
    let fresh = scene.helper("get", &address).succeeded().json();
    assert_eq!(fresh["Secret"], scene.acr.refresh_tokens()[1].as_str());
    // The Entra token is still good.
    assert_eq!((scene.exchanges(), scene.aml.requests().len()), (2, 1));
    agent.end().succeeded();
}

#[test]
fn version_needs_no_agent() {
    let scene = Scene::new(AzureMlOptions::default());
    let version = scene.helper("version", "").succeeded();
    assert!(
        version.stdout.starts_with("docker-credential-jobcred "),
        "{}",
        version.stdout
    );
}

#[test]
fn where_the_registrys_audience_cannot_be_had_resource_managers_is_used_and_said() {
    let options = || AzureMlOptions {
        refused_resources: vec![ACR_AUDIENCE.to_owned()],
        ..AzureMlOptions::default()
    };
    let scene = Scene::new(options());
    let agent = scene.world.agent();
    let output = scene.helper("get", &scene.server).succeeded();
    assert_eq!(
        output.json()["Secret"],
        scene.acr.refresh_tokens()[0].as_str()
    );
    let asked: Vec<String> = scene
        .aml
        .requests()
        .iter()
        .map(|request| request.parameter("resource").unwrap())
        .map(|resource| resource.trim_end_matches('/').to_owned())
        .collect();
    assert_eq!(asked, [ACR_AUDIENCE, "https://management.azure.com"]);
    let log = agent.end().succeeded().stderr;
    assert!(log.contains("registry_arm_fallback"), "{log}");

    // A registry that takes no such token says so, and what to do.
    let scene = Scene::new(options());
    scene.acr.update(|options| options.arm_allowed = false);
    let _agent = scene.world.agent();
    is_failure(
        &scene.helper("get", &scene.server),
        &["401", "authentication-as-arm"],
    );

    let scene = Scene::new(options());
    let world = &scene.world;
    let agent = world
        .jobcred(&["agent"])
        .env("JOBCRED_REGISTRY_ARM_FALLBACK", "false")
        .start();
    agent.wait_for_stderr("listening at");
    is_failure(
        &scene.helper("get", &scene.server),
        &["registry_arm_fallback"],
    );
    assert_eq!((scene.exchanges(), scene.aml.requests().len()), (0, 1));
}

#[test]
fn a_registry_that_says_no_is_quoted_with_the_next_step() {
    let scene = Scene::new(AzureMlOptions::default());
    let _agent = scene.world.agent();
    scene.acr.update(|options| options.denied = true);
    is_failure(
        &scene.helper("get", &scene.server),
        &["403", "AcrPull", &scene.server],
    );
    // The refusal is remembered for a moment: a pull tries often.
    let exchanges = scene.exchanges();
    is_failure(&scene.helper("get", &scene.server), &["403"]);
    assert_eq!(scene.exchanges(), exchanges);

    let scene = Scene::new(AzureMlOptions::default());
    let _agent = scene.world.agent();
    scene.acr.update(|options| options.firewalled = true);
    is_failure(&scene.helper("get", &scene.server), &["403", "firewall"]);
    assert_eq!(scene.exchanges(), 1, "a firewall does not change its mind");
}

#[test]
fn other_hosts_get_nothing_and_are_not_asked() {
    let scene = Scene::new(AzureMlOptions::default());
    let agent = scene.world.agent();
    for host in [
        "https://index.docker.io/v1/",
        "docker.io",
        "ghcr.io",
        "mcr.microsoft.com",
        "myreg.azurecr.io.example.com",
        "azurecr.io",
        "myreg.azurecr.io@example.com",
        "myreg.westeurope.data.azurecr.io",
        "localhost:1",
        "localhost",
        "127.0.0.1:5000",
        "no host at all",
    ] {
        let output = scene.helper("get", host);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(1), NOT_FOUND),
            "{host}"
        );
        assert_eq!(output.stderr, "", "{host}");
        scene.helper("erase", host).succeeded();
    }
    is_failure(&scene.helper("get", ""), &["no credentials server URL"]);
    assert_eq!(
        (scene.acr.requests().len(), scene.aml.requests().len()),
        (0, 0)
    );
    // `docker login` for a registry that is served keeps nothing, and for another one is refused.
    let login = |host: &str| {
        format!(
            r#"{{"ServerURL":"{host}","Username":"u","Secret":"{}"}}"#,
            scene.aml.secret()
        )
    };
    scene
        .helper("store", &login("myreg.azurecr.io"))
        .succeeded();
    is_failure(&scene.helper("store", &login("ghcr.io")), &[]);
    agent.end().succeeded();
}

#[test]
fn without_an_agent_a_registry_is_told_and_other_pulls_go_on() {
    let scene = Scene::new(AzureMlOptions::default());
    is_failure(
        &scene.helper("get", "myreg.azurecr.io"),
        &[
            "no jobcred agent answers",
            scene.world.socket().to_str().unwrap(),
        ],
    );
    for host in ["ghcr.io", scene.server.as_str()] {
        let output = scene.helper("get", host);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(1), NOT_FOUND),
            "{host}"
        );
    }
    assert_eq!(scene.helper("list", "").succeeded().stdout, "{}\n");
    scene.helper("erase", "myreg.azurecr.io").succeeded();
    assert_eq!(scene.acr.requests().len(), 0);
}

#[test]
fn a_registry_whose_certificate_is_not_trusted_gets_no_token() {
    let scene = Scene::new(AzureMlOptions::default());
    let stranger = TestCa::new().unwrap();
    let directory = scene.world.path().join("stranger");
    std::fs::create_dir(&directory).unwrap();
    let ca_file = stranger.write_to(&directory).unwrap();
    let agent = scene
        .world
        .jobcred(&["agent"])
        .env("JOBCRED_CA_FILE", ca_file)
        .start();
    agent.wait_for_stderr("listening at");
    // The host is the agent's to serve, so it is an error and no "not found".
    let answer = scene
        .world
        .ask("GET", &format!("/v1/registry?server={}", scene.server));
    assert!(answer.status >= 500, "{}", answer.body);
    assert!(
        answer.error("message").contains(&scene.server),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("certificate"), "{}", answer.body);
    assert_eq!(scene.acr.requests().len(), 0);
}
