//! Declared resources and faults of this machine's settings: they are said, and COMMAND starts. What heals is waited for.

use std::fs;

use jobcred_tests::{
    AzureMl, AzureMlOptions, Behavior, Entra, EntraOptions, Identities, Imds, ImdsOptions, TestCa,
};
use serde_json::json;

use crate::support::{Output, World, in_namespace_with_hosts};

const STORAGE: &str = "https://storage.azure.com/";

/// A pod with workload identity and a declared resource. Nothing names the root of its issuer.
fn pod() -> (Entra, TestCa, World) {
    let ca = TestCa::new().unwrap();
    let entra = Entra::start(EntraOptions::default(), &ca.usual_leaf().unwrap()).unwrap();
    let world = World::new().with_secrets(entra.secrets());
    let file = world.path().join("assertion");
    fs::write(&file, entra.new_assertion(600)).unwrap();
    let world = world
        .with_environment(entra.environment(file.to_str().unwrap()))
        .with_environment([
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("JOBCRED_RESOURCES", STORAGE),
        ]);
    (entra, ca, world)
}

fn run(world: &World, more: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut run = world
        .jobcred(&["run"])
        .args(more)
        .args(&["--", "echo", "ran"]);
    for (name, value) in variables {
        run = run.env(name, value);
    }
    run.run()
}

/// COMMAND starts and `said` is told; with `--required` it does not start.
fn starts_unless_required(world: &World, variables: &[(&str, &str)], said: &str) {
    let output = run(world, &[], variables);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "ran\n"),
        "{variables:?}: {}",
        output.stderr
    );
    assert!(output.stderr.contains(said), "{said}: {}", output.stderr);
    assert!(
        output.stderr.contains("is blocked here"),
        "{}",
        output.stderr
    );
    let output = run(world, &["--required"], variables);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(120), ""),
        "{variables:?}: {}",
        output.stderr
    );
}

#[test]
fn c1_a_proxy_that_cannot_be_used_does_not_keep_the_command_from_starting() {
    let (_entra, _ca, world) = pod();
    for proxy in [
        "socks5h://proxy.example:1080",
        "\"http://proxy.example:3128\"",
    ] {
        let variables = [
            ("AZURE_AUTHORITY_HOST", "https://login.example/"),
            ("HTTPS_PROXY", proxy),
        ];
        starts_unless_required(&world, &variables, "HTTPS_PROXY");
    }
}

#[test]
fn c1_no_proxy_is_asked_first_and_the_issuer_is_served() {
    const NAME: &str = "local_faults::c1_no_proxy_is_asked_first_and_the_issuer_is_served";
    if !in_namespace_with_hosts(NAME, &["login.example"]) {
        return;
    }
    let ca = TestCa::new().unwrap();
    let leaf = ca.leaf(&["login.example"]).unwrap();
    let entra = Entra::start(EntraOptions::default(), &leaf).unwrap();
    let world = World::new().with_secrets(entra.secrets());
    let file = world.path().join("assertion");
    fs::write(&file, entra.new_assertion(600)).unwrap();
    let root = ca.write_to(world.path()).unwrap();
    let authority = format!(
        "https://login.example:{}/",
        entra.endpoint().address().port()
    );
    let world = world
        .with_environment(entra.environment(file.to_str().unwrap()))
        .with_environment([
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("JOBCRED_RESOURCES", STORAGE),
            ("JOBCRED_CA_FILE", root.to_str().unwrap()),
            ("AZURE_AUTHORITY_HOST", authority.as_str()),
        ]);
    for proxy in [
        "https://proxy.invalid:8443",
        "socks5h://proxy.invalid:1080",
        "\"http://proxy.invalid:3128\"",
        "http://user:a blank@proxy.invalid:3128",
    ] {
        for exempt in ["login.example", "a *.example b", "login.example.,x", "x,*"] {
            let variables = [("HTTPS_PROXY", proxy), ("NO_PROXY", exempt)];
            let output = run(&world, &["--required"], &variables);
            assert_eq!(output.stdout, "ran\n", "{variables:?}: {}", output.stderr);
        }
    }
}

#[test]
fn c2_left_over_variables_of_roots_are_a_warning_and_the_token_comes() {
    let (_entra, ca, world) = pod();
    let root = ca.write_to(world.path()).unwrap();
    let root = root.to_str().unwrap();
    let empty = world.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for (name, value, warned) in [
        ("SSL_CERT_FILE", "", false),
        ("SSL_CERT_FILE", "/no/such/file.pem", true),
        ("SSL_CERT_DIR", empty.to_str().unwrap(), true),
    ] {
        let variables = [("JOBCRED_CA_FILE", root), (name, value)];
        let output = run(&world, &["--required"], &variables);
        assert_eq!(output.stdout, "ran\n", "{name}={value}: {}", output.stderr);
        assert_eq!(
            output.stderr.contains(name),
            warned,
            "{name}={value}: {}",
            output.stderr
        );
    }
    // Also where no TLS is needed yet.
    for (name, value) in [
        ("JOBCRED_CA_FILE", "/no/such/file.pem"),
        ("SSL_CERT_FILE", "/no/such/file.pem"),
        ("SSL_CERT_DIR", "/no/such/directory"),
    ] {
        let output = world.jobcred(&["explain"]).env(name, value).run();
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert!(
            output.stdout.contains("not there"),
            "{name}: {}",
            output.stdout
        );
    }
    // The variable alone adds the root, too.
    let output = run(&world, &["--required"], &[("SSL_CERT_FILE", root)]);
    assert_eq!(output.stdout, "ran\n", "{}", output.stderr);
}

#[test]
fn c2_an_issuer_that_is_not_trusted_does_not_keep_the_command_from_starting() {
    let (_entra, _ca, world) = pod();
    starts_unless_required(&world, &[], "certificate");
    let missing = [("JOBCRED_CA_FILE", "/no/such/file.pem")];
    starts_unless_required(&world, &missing, "/no/such/file.pem");
}

/// A cluster with a declared resource.
fn cluster() -> (AzureMl, World) {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_environment([("JOBCRED_RESOURCES", STORAGE)])
        .with_secrets(aml.secrets());
    (aml, world)
}

#[test]
fn c1_a_redirect_does_not_keep_the_command_from_starting() {
    let (aml, world) = cluster();
    aml.script().set_default(Behavior::status(302));
    starts_unless_required(&world, &[], "redirect");
}

#[test]
fn c1_an_address_or_a_secret_that_cannot_be_used_does_not_keep_the_command_from_starting() {
    let (_entra, _ca, pod) = pod();
    let (aml, cluster) = cluster();
    let (_, user) = self::cluster();
    let user = user.with_environment([("AZUREML_OBO_ENABLED", "True")]);
    let application = [
        (
            "JOBCRED_FEDERATED_CLIENT_ID",
            "5e4d3c2b-4444-4555-8666-777788889999",
        ),
        (
            "JOBCRED_FEDERATED_TENANT_ID",
            "7a7b7c7d-5555-4666-8777-88889999aaaa",
        ),
    ];
    let federated = self::cluster().1.with_environment(application);
    let http = ("AZURE_AUTHORITY_HOST", "http://login.example/");
    for (world, (name, value)) in [
        (&pod, http),
        (&federated, http),
        (&cluster, ("MSI_SECRET", "a\nb")),
        (&cluster, ("MSI_ENDPOINT", "ftp://127.0.0.1/")),
        (&user, ("OBO_ENDPOINT", "ftp://127.0.0.1/")),
    ] {
        let output = run(world, &[], &[(name, value)]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(0), "ran\n"),
            "{name}: {}",
            output.stderr
        );
        assert!(output.stderr.contains(name), "{name}: {}", output.stderr);
        // Nothing is tried that could come later.
        assert!(!output.stderr.contains("goes on"), "{}", output.stderr);
        let output = run(world, &["--required"], &[(name, value)]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(121), ""),
            "{name}: {}",
            output.stderr
        );
    }
    assert!(aml.requests().is_empty());
}

#[test]
fn b4_an_identity_that_the_metadata_service_finds_late_is_waited_for() {
    let imds = Imds::start(ImdsOptions {
        identities: Identities::system(),
        ..ImdsOptions::default()
    })
    .unwrap();
    let base = format!("http://{}", imds.endpoint().address());
    let world = World::new().with_secrets(imds.secrets()).with_environment([
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", base.as_str()),
        ("JOBCRED_RESOURCES", STORAGE),
    ]);
    let not_found = json!({"error": "invalid_request", "error_description": "Identity not found"});
    imds.script().push_times(Behavior::json(404, &not_found), 2);
    let output = run(&world, &["--required"], &[]);
    assert_eq!(output.stdout, "ran\n", "{}", output.stderr);
    assert_eq!(imds.requests().len(), 3);
    assert_eq!(imds.tokens().len(), 1);
}

#[test]
fn b4_what_heals_is_asked_again_before_the_command_starts() {
    for (status, body) in [
        (200, json!({"error": "server_error"})),
        (
            400,
            json!({"error": "server_error", "error_description": "busy"}),
        ),
        (
            400,
            json!({"error": "invalid_request", "error_description": "AADSTS50196: a loop"}),
        ),
    ] {
        let (aml, world) = cluster();
        aml.script().push(Behavior::json(status, &body));
        let output = run(&world, &["--required"], &[]);
        assert_eq!(output.stdout, "ran\n", "{body}: {}", output.stderr);
        assert_eq!(aml.requests().len(), 2, "{body}");
    }
}
