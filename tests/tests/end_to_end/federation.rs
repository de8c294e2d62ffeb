//! An application of another tenant, for storage and for a registry: the job's own token in place of a secret.

use jobcred_tests::{
    Acr, AcrOptions, AzureMl, AzureMlOptions, Entra, EntraOptions, Identities, NULL_GUID,
    Principal, TestCa,
};

use crate::support::{HUNG, World, binary};

const STORAGE: &str = "https://storage.azure.com/";
const VAULT: &str = "https://vault.azure.net";

/// A cluster in one tenant, an application that acts in another one, and a registry there.
struct Scene {
    aml: AzureMl,
    entra: Entra,
    acr: Acr,
    server: String,
    world: World,
}

impl Scene {
    fn new() -> Self {
        let aml = AzureMl::start(AzureMlOptions {
            identities: Identities::user_assigned(1),
            ..AzureMlOptions::default()
        })
        .unwrap();
        let own = aml.options().identities.first().unwrap().clone();
        let ca = TestCa::new().unwrap();
        let leaf = ca.usual_leaf().unwrap();
        let entra = Entra::start(
            EntraOptions {
                application: Principal {
                    tenant_id: "7a7b7c7d-5555-4666-8777-88889999aaaa".to_owned(),
                    ..Principal::application()
                },
                assertion_issuer: Some(format!(
                    "https://login.microsoftonline.com/{}/v2.0",
                    own.tenant_id
                )),
                assertion_subject: Some(own.object_id),
                home_tenant: Some(own.tenant_id),
                ..EntraOptions::default()
            },
            &leaf,
        )
        .unwrap();
        let acr = Acr::start(AcrOptions::default(), &leaf).unwrap();
        let server = format!("localhost:{}", acr.endpoint().address().port());
        acr.update(|options| options.login_server.clone_from(&server));
        let world = World::new();
        let ca_file = ca.write_to(world.path()).unwrap();
        let world = world
            .with_environment(aml.environment())
            .with_environment([
                ("JOBCRED_CA_FILE", ca_file.to_str().unwrap()),
                ("JOBCRED_AUTHORITY_HOST", &entra.authority()),
            ])
            .with_secrets(aml.secrets())
            .with_secrets(entra.secrets())
            .with_secrets(acr.secrets());
        Self {
            aml,
            entra,
            acr,
            server,
            world,
        }
    }

    fn application(&self) -> &Principal {
        &self.entra.options().application
    }

    /// The whole job acts as the application.
    fn of_the_whole_job(mut self) -> Self {
        let application = self.application().clone();
        self.world = self.world.with_environment([
            ("JOBCRED_FEDERATED_CLIENT_ID", application.client_id),
            ("JOBCRED_FEDERATED_TENANT_ID", application.tenant_id),
            ("JOBCRED_REGISTRIES", self.server.clone()),
        ]);
        self
    }

    fn docker_get(&self) -> serde_json::Value {
        let helper = binary("docker-credential-jobcred");
        let call = self.world.call(&helper, &["get"]).input(&self.server);
        call.declared().run().succeeded().json()
    }

    fn assertions(&self) -> usize {
        let tokens = self.aml.tokens();
        let of_exchange =
            |token: &&jobcred_tests::IssuedToken| token.audience == "api://AzureADTokenExchange";
        tokens.iter().filter(of_exchange).count()
    }
}

#[test]
fn a_job_acts_as_the_application_and_its_own_token_is_got_once() {
    let scene = Scene::new().of_the_whole_job();
    let agent = scene.world.agent();
    assert_eq!(scene.world.storage().token(), scene.entra.tokens()[0].token);
    assert_eq!(scene.entra.tokens()[0].principal, *scene.application());
    scene.world.get(&format!("resource={VAULT}")).token();
    assert_eq!(scene.entra.tokens().len(), 2);
    assert_eq!(scene.assertions(), 1, "one assertion serves both");
    assert_eq!(scene.aml.requests().len(), 1);
    assert_eq!(scene.world.storage().token(), scene.entra.tokens()[0].token);
    assert_eq!(scene.entra.requests().len(), 2, "answered from memory");

    let credential = scene.docker_get();
    assert_eq!(credential["Username"], NULL_GUID);
    assert_eq!(credential["Secret"], scene.acr.refresh_tokens()[0].as_str());
    let exchanged = scene.acr.requests()[0].field("access_token");
    assert_eq!(
        exchanged.as_deref(),
        Some(scene.entra.tokens()[2].token.as_str())
    );
    assert_eq!(scene.assertions(), 1);

    // Who names the job's own identity, or its tenant, gets that.
    let own = scene.aml.options().identities.first().unwrap().clone();
    let named = scene
        .world
        .get(&format!("resource={STORAGE}&client_id={}", own.client_id));
    assert_eq!(named.token(), scene.aml.tokens().last().unwrap().token);
    let at_home = scene
        .world
        .get(&format!("resource={STORAGE}&tenant_id={}", own.tenant_id));
    assert_eq!(at_home.token(), named.token());

    let output = agent.end().succeeded();
    for part in [
        "who: All tokens are those of the application",
        &scene.application().client_id,
        &scene.application().tenant_id,
    ] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
}

#[test]
fn a_registry_alone_and_resources_alone() {
    let scene = Scene::new();
    let application = scene.application().clone();
    let registry = format!(
        "{};federated=true;client_id={};tenant_id={}",
        scene.server, application.client_id, application.tenant_id
    );
    let scene = Scene {
        world: scene
            .world
            .with_environment([("JOBCRED_REGISTRIES", registry)]),
        ..scene
    };
    let _agent = scene.world.agent();
    scene.docker_get();
    let exchange = &scene.acr.requests()[0];
    assert_eq!(
        exchange.field("access_token").as_deref(),
        Some(scene.entra.tokens()[0].token.as_str())
    );
    assert_eq!(
        exchange.field("tenant").as_deref(),
        Some(application.tenant_id.as_str())
    );
    assert_eq!(
        scene.world.storage().token(),
        scene.aml.tokens().last().unwrap().token
    );
    assert_eq!(scene.entra.tokens().len(), 1);
}

#[test]
fn some_resources_are_the_applications_and_the_others_are_not() {
    let scene = Scene::new().of_the_whole_job();
    let scene = Scene {
        world: scene
            .world
            .with_environment([("JOBCRED_FEDERATED_RESOURCES", STORAGE)]),
        ..scene
    };
    let _agent = scene.world.agent();
    assert_eq!(scene.world.storage().token(), scene.entra.tokens()[0].token);
    let vault = scene.world.get(&format!("resource={VAULT}")).token();
    assert_eq!(vault, scene.aml.tokens().last().unwrap().token);
    let there = scene.world.get(&format!(
        "resource={VAULT}&tenant_id={}",
        scene.application().tenant_id
    ));
    assert_eq!(there.token(), scene.entra.tokens()[1].token);
}

#[test]
fn explain_says_it_and_a_probe_shows_the_application() {
    let scene = Scene::new().of_the_whole_job();
    let said = scene.world.jobcred(&["explain"]).run().succeeded();
    let words = said.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&scene.application().client_id), "{words}");
    assert!(words.contains("only proves who asks"), "{words}");
    assert_eq!(scene.aml.requests().len(), 0);

    let probed = scene
        .world
        .jobcred(&["explain", "--probe", "--json"])
        .run()
        .succeeded()
        .json();
    assert_eq!(
        probed["principal"]["app_id"],
        scene.application().client_id.as_str()
    );
    assert_eq!(
        probed["principal"]["tenant_id"],
        scene.application().tenant_id.as_str()
    );
}

#[test]
fn a_refusal_says_what_the_application_has_to_trust() {
    let scene = Scene::new().of_the_whole_job();
    scene.entra.remove_federated_credential(true);
    let agent = scene.world.agent();
    let refused = scene.world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    let hint = refused.error("hint");
    let own = scene.aml.options().identities.first().unwrap();
    for part in [&own.object_id, &own.tenant_id] {
        assert!(hint.contains(part.as_str()), "{hint}");
    }
    agent.is_unharmed();
    // Nobody else's token is given in its place.
    assert_eq!(scene.assertions(), scene.aml.tokens().len());
}

#[test]
fn an_issuer_that_answers_for_somebody_else_is_refused() {
    let scene = Scene::new().of_the_whole_job();
    scene
        .entra
        .mint()
        .set_impostor(Some(Principal::application()));
    let _agent = scene.world.agent();
    let refused = scene.world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    assert!(
        refused.error("message").contains("client id"),
        "{}",
        refused.body
    );
    assert!(scene.entra.endpoint().recorder().wait_for(1, HUNG));
}
