//! `jobcred check`, from a job's environment to storage that answers as the real one does.

use jobcred_tests::{
    AzureMl, AzureMlOptions, Behavior, Rights, Storage, StorageOptions, TestCa, decode_claims,
};
use serde_json::Value;

use crate::support::{Output, World, in_namespace_with_hosts};

const OTHER_TENANT: &str = "0badc0de-0000-4000-8000-000000000000";

/// A cluster and one account, which is reached by address.
struct Scene {
    aml: AzureMl,
    storage: Storage,
    world: World,
}

impl Scene {
    fn new() -> Self {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let ca = TestCa::new().unwrap();
        let leaf = ca.usual_leaf().unwrap();
        let storage = Storage::start(StorageOptions::default(), &leaf).unwrap();
        let world = World::new();
        let ca_file = ca.write_to(world.path()).unwrap();
        let world = world
            .with_environment(aml.environment())
            .with_environment([("JOBCRED_CA_FILE", ca_file.to_str().unwrap())])
            .with_secrets(aml.secrets());
        Self {
            aml,
            storage,
            world,
        }
    }

    fn url(&self, path: &str) -> String {
        self.storage.endpoint().url(&format!("/myaccount/{path}"))
    }

    /// The check of a path, by its JSON. Whatever it prints is searched for the token.
    fn json(&self, path: &str, arguments: &[&str]) -> (Value, Option<i32>) {
        let url = self.url(path);
        let output = self
            .world
            .jobcred(&["check", "--json", "--service", "blob", &url])
            .args(arguments)
            .run();
        (output.json(), output.code)
    }

    /// The code of the first finding.
    fn code(&self, path: &str, arguments: &[&str]) -> String {
        let (json, code) = self.json(path, arguments);
        assert_eq!(code, Some(125), "{json:#}");
        assert_eq!(json["ok"], false);
        json["findings"][0]["code"].as_str().unwrap().to_owned()
    }

    fn files(&self) -> usize {
        self.storage.options().containers["data"].len()
    }
}

fn outcomes(json: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = json["steps"].as_array().unwrap();
    steps
        .iter()
        .map(|step| (text(&step["step"]), text(&step["outcome"])))
        .collect()
}

#[test]
fn what_works_is_said_with_whose_token_it_is() {
    let scene = Scene::new();
    let own = scene.aml.options().identities.first().unwrap().clone();
    let (json, code) = scene.json("data/train/", &[]);
    assert_eq!(code, Some(0), "{json:#}");
    assert_eq!(json["ok"], true);
    assert_eq!(json["findings"], Value::Array(Vec::new()));
    assert_eq!(json["principal"]["object_id"], own.object_id);
    let steps: Vec<String> = outcomes(&json)
        .iter()
        .map(|(step, outcome)| format!("{step} {outcome}"))
        .collect();
    assert_eq!(
        steps,
        ["name ok", "connection ok", "tls ok", "token ok", "list ok"]
    );
    let requests = scene.storage.requests();
    assert_eq!(requests.len(), 1, "nothing is sent before the listing");
    assert_eq!(requests[0].path, "/myaccount/data");
    assert_eq!(
        requests[0].query,
        "restype=container&comp=list&maxresults=1&prefix=train%2F"
    );
    let token = &scene.aml.tokens()[0];
    assert_eq!(
        requests[0].header("authorization"),
        Some(format!("Bearer {}", token.token).as_str())
    );
    assert_eq!(
        token.audience.trim_end_matches('/'),
        "https://storage.azure.com"
    );

    let text = scene
        .world
        .jobcred(&["check", "--service", "dfs", &scene.url("data/train")])
        .run()
        .succeeded()
        .stdout;
    assert!(
        text.contains("it works: the identity can list here"),
        "{text}"
    );
    assert!(text.contains(&own.object_id), "{text}");
    // An empty listing is allowed, and looks like a mistake.
    let (json, code) = scene.json("data/Train", &[]);
    assert_eq!(code, Some(0));
    assert_eq!(json["findings"][0]["code"], "nothing_there");
    assert_eq!(json["findings"][0]["severity"], "warning");
}

#[test]
fn a_running_agents_token_is_taken() {
    let scene = Scene::new();
    let agent = scene.world.agent();
    scene.world.storage();
    let (json, code) = scene.json("data", &[]);
    assert_eq!(code, Some(0), "{json:#}");
    let token = &json["steps"][3];
    assert!(
        token["text"]
            .as_str()
            .unwrap()
            .contains("agent that runs here (compute-identity)"),
        "{json:#}"
    );
    assert_eq!(scene.aml.requests().len(), 1, "the agent's own");
    // A strategy that is named is not the agent's.
    let (json, _) = scene.json("data", &["--sandbox"]);
    assert_eq!(json["findings"][0]["code"], "sandbox_token", "{json:#}");
    agent.end().succeeded();
}

#[test]
fn a_missing_role_is_said_with_the_command_that_gives_it() {
    let scene = Scene::new();
    let own = scene.aml.options().identities.first().unwrap().clone();
    scene
        .storage
        .update(|options| options.rights = Rights::None);
    let refused = scene
        .world
        .jobcred(&["check", "--service", "blob", &scene.url("data/train")])
        .run();
    assert_eq!(refused.code, Some(125), "{}", refused.stdout);
    for part in [
        "  failed   list       403 AuthorizationPermissionMismatch",
        "request id",
        "x the identity may not list in data: no role allows it",
        &format!("        --assignee-object-id {} \\\n", own.object_id),
        "--assignee-principal-type ServicePrincipal",
        "--role \"Storage Blob Data Reader\"",
        "/storageAccounts/myaccount/blobServices/default/containers/data\"",
        "24 hours",
        "code: role_missing",
    ] {
        assert!(
            refused.stdout.contains(part),
            "no {part:?} in\n{}",
            refused.stdout
        );
    }
    let dfs = scene
        .world
        .jobcred(&[
            "check",
            "--json",
            "--service",
            "dfs",
            &scene.url("data/train"),
        ])
        .run()
        .json();
    let fixes = dfs["findings"][0]["fixes"].to_string();
    assert_eq!(dfs["findings"][0]["code"], "role_or_acl_missing", "{dfs:#}");
    assert!(
        fixes.contains("az storage fs access update-recursive"),
        "{fixes}"
    );

    // A reader who wants to write.
    scene
        .storage
        .update(|options| options.rights = Rights::Reader);
    let (json, code) = scene.json("data", &["--write"]);
    assert_eq!(code, Some(125));
    assert_eq!(json["findings"][0]["code"], "role_missing");
    assert!(
        json.to_string().contains("Storage Blob Data Contributor"),
        "{json:#}"
    );
    assert!(
        !json.to_string().contains("Storage Blob Data Reader"),
        "{json:#}"
    );
    assert_eq!(scene.files(), 2);
}

#[test]
fn the_write_probe_leaves_nothing_and_overwrites_nothing() {
    for service in ["blob", "dfs"] {
        let scene = Scene::new();
        let url = scene.url("data/out");
        let call = |arguments: &[&str]| {
            let output: Output = scene
                .world
                .jobcred(&["check", "--json", "--write", "--service", service, &url])
                .args(arguments)
                .run();
            output.json()
        };
        let json = if service == "dfs" {
            // The directory has to be there to be listed; the file makes it.
            scene.storage.update(|options| {
                options
                    .containers
                    .entry("data".to_owned())
                    .or_default()
                    .push("out/x".to_owned());
            });
            call(&[])
        } else {
            call(&[])
        };
        assert_eq!(json["ok"], true, "{service}: {json:#}");
        assert_eq!(
            outcomes(&json).last().unwrap(),
            &("delete".to_owned(), "ok".to_owned())
        );
        let requests = scene.storage.requests();
        let [.., made, ended] = requests.as_slice() else {
            panic!("{requests:?}")
        };
        assert_eq!(
            (made.method.as_str(), ended.method.as_str()),
            ("PUT", "DELETE")
        );
        assert!(
            made.path.starts_with("/myaccount/data/out/jobcred-check-"),
            "{}",
            made.path
        );
        assert_eq!(made.path, ended.path);
        assert_eq!(made.header("if-none-match"), Some("*"));
        assert_eq!(made.header("content-length"), Some("0"));
        assert_eq!(ended.header("if-match"), Some("\"0x8DC0FFEE\""));
        let left = &scene.storage.options().containers["data"];
        assert!(
            !left.iter().any(|name| name.contains("jobcred-check")),
            "{left:?}"
        );

        scene.storage.update(|options| {
            options.delete_refusal = Some((403, "AuthorizationPermissionMismatch".to_owned()));
        });
        let json = call(&[]);
        let codes: Vec<&str> = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|finding| finding["code"].as_str())
            .collect();
        assert!(codes.contains(&"left_behind"), "{json:#}");
    }
    let scene = Scene::new();
    scene.storage.update(|options| {
        options.write_refusal = Some((409, "BlobImmutableDueToPolicy".to_owned()));
    });
    assert_eq!(scene.code("data", &["--write"]), "immutable");
}

#[test]
fn a_write_probe_whose_answer_is_lost_is_taken_back() {
    for (then, is_left) in [(Behavior::Ok, false), (Behavior::Close, true)] {
        let scene = Scene::new();
        let script = scene.storage.script();
        script.push(Behavior::Ok).push(Behavior::Close).push(then);
        let (json, code) = scene.json("data", &["--write"]);
        assert_eq!(code, Some(125), "{json:#}");
        let requests = scene.storage.requests();
        let [_, made, ended] = requests.as_slice() else {
            panic!("{requests:?}")
        };
        assert_eq!(
            (made.method.as_str(), ended.method.as_str()),
            ("PUT", "DELETE")
        );
        assert_eq!(made.path, ended.path);
        let says_so = json["findings"].to_string().contains("left_behind");
        assert_eq!(says_so, is_left, "{json:#}");
    }
}

#[test]
fn each_reason_of_the_service_is_told_from_the_others() {
    let scene = Scene::new();
    let refuse = |status, code: &str| {
        scene
            .storage
            .update(|options| options.refusal = Some((status, code.to_owned())));
    };
    for (status, code, expected) in [
        (403, "AuthorizationFailure", "network_rules"),
        (403, "AccountIsDisabled", "account_disabled"),
        (403, "KeyBasedAuthenticationNotPermitted", "keys_disabled"),
        (409, "PublicAccessNotPermitted", "token_not_received"),
        (503, "ServerBusy", "busy"),
        (418, "Teapot", "refused"),
    ] {
        refuse(status, code);
        assert_eq!(scene.code("data", &[]), expected);
    }
    scene.storage.update(|options| options.refusal = None);
    assert_eq!(scene.code("nodata", &[]), "container_not_found");

    scene
        .storage
        .update(|options| options.tenant = OTHER_TENANT.to_owned());
    let (json, _) = scene.json("data", &[]);
    assert_eq!(json["findings"][0]["code"], "tenant", "{json:#}");
    assert!(
        json["findings"][0].to_string().contains(OTHER_TENANT),
        "{json:#}"
    );
    scene
        .storage
        .update(|options| options.tenant = StorageOptions::default().tenant);

    scene
        .aml
        .mint()
        .set_claims([("aud".to_owned(), Value::from("https://vault.azure.net"))]);
    let (json, _) = scene.json("data", &[]);
    let codes: Vec<&Value> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| &finding["code"])
        .collect();
    assert_eq!(codes, ["other_audience", "audience"], "{json:#}");
    scene.aml.mint().set_claims([]);

    // The service's clock is a day ahead: the token has ended there, and here it has not begun to.
    scene.storage.endpoint().clock().set_skew(2 * 86_400);
    let (json, _) = scene.json("data", &[]);
    let text = json["findings"].to_string();
    assert!(
        text.contains("token_expired") && text.contains("clock_skew"),
        "{json:#}"
    );
    scene.storage.endpoint().clock().set_skew(-86_400);
    let (json, _) = scene.json("data", &[]);
    assert!(
        json["findings"].to_string().contains("token_lifetime"),
        "{json:#}"
    );
    scene.storage.endpoint().clock().set_skew(0);

    // What a proxy says is not taken for the service's word.
    scene
        .storage
        .script()
        .push(Behavior::text(403, "<h1>Blocked</h1>"));
    assert_eq!(scene.code("data", &[]), "not_storage");
    // The service never quotes a token, but whatever answers might.
    let sent = scene.storage.requests();
    let token = sent
        .last()
        .unwrap()
        .header("authorization")
        .unwrap()
        .to_owned();
    assert!(decode_claims(token.trim_start_matches("Bearer ")).is_some());
    scene.aml.mint().set_repeat(true);
    scene.json("data", &[]);
    let sent = scene.storage.requests();
    let token = sent
        .last()
        .unwrap()
        .header("authorization")
        .unwrap()
        .to_owned();
    scene.storage.script().push(Behavior::text(
        403,
        &format!("<Code>Bad {token}</Code><Message>{token}</Message>"),
    ));
    assert_eq!(scene.code("data", &[]), "refused");
}

#[test]
fn the_way_there_is_told_step_by_step() {
    let scene = Scene::new();
    let stranger = TestCa::new().unwrap();
    let directory = scene.world.path().join("stranger");
    std::fs::create_dir(&directory).unwrap();
    let other = stranger.write_to(&directory).unwrap();
    let check = |url: &str, variables: &[(&str, &str)]| {
        let mut call = scene
            .world
            .jobcred(&["check", "--json", "--service", "blob", url]);
        for (name, value) in variables {
            call = call.env(name, value);
        }
        call.run()
    };
    let ca = [("JOBCRED_CA_FILE", other.to_str().unwrap())];
    let untrusted = check(&scene.url("data"), &ca).json();
    assert_eq!(
        untrusted["findings"][0]["code"], "tls_unknown_issuer",
        "{untrusted:#}"
    );
    assert!(
        untrusted.to_string().contains("JOBCRED_CA_FILE"),
        "{untrusted:#}"
    );
    let steps = outcomes(&untrusted);
    assert_eq!(
        steps.last().unwrap(),
        &("list".to_owned(), "skipped".to_owned())
    );
    assert!(
        steps.contains(&("token".to_owned(), "ok".to_owned())),
        "{steps:?}"
    );
    assert_eq!(
        scene.storage.requests().len(),
        0,
        "no token goes to a stranger"
    );

    // A port where nobody listens.
    let closed = check("https://127.0.0.1:1/myaccount/data", &[]);
    assert_eq!(closed.code, Some(125));
    assert_eq!(closed.json()["findings"][0]["code"], "no_connection");

    // No identity: the way is told all the same.
    let ca_file = scene.world.path().join("ca.pem");
    let bare = World::new().with_environment([
        ("JOBCRED_PROBE", "false"),
        ("JOBCRED_CA_FILE", ca_file.to_str().unwrap()),
    ]);
    let lost = bare
        .jobcred(&["check", "--json", "--service", "blob", &scene.url("data")])
        .run();
    assert_eq!(lost.code, Some(121), "{}", lost.stdout);
    let lost = lost.json();
    assert_eq!(lost["findings"][0]["code"], "no_identity");
    assert!(outcomes(&lost).contains(&("tls".to_owned(), "ok".to_owned())));

    // A token of somebody else than the strategy announced goes nowhere.
    scene
        .aml
        .mint()
        .set_impostor(Some(scene.aml.options().user.clone()));
    assert_eq!(scene.code("data", &[]), "promise_broken");
    assert_eq!(scene.storage.requests().len(), 0);
}

#[test]
fn a_url_that_cannot_be_checked_is_a_mistake_of_the_command_line() {
    let scene = Scene::new();
    for (url, part) in [
        ("https://127.0.0.1:1/myaccount/data", "--service"),
        (
            "azureml://datastores/mine/paths/x",
            "az ml datastore show --name mine",
        ),
        (
            "https://myaccount.blob.core.windows.net/data?sv=1&sig=c2lnbmF0dXJl",
            "shared access signature",
        ),
        ("az://data/train", "--account"),
    ] {
        let output = scene.world.jobcred(&["check", url]).run();
        assert_eq!(output.code, Some(2), "{url}: {}", output.stderr);
        assert!(output.stderr.contains(part), "{url}: {}", output.stderr);
        assert!(!output.stderr.contains("c2lnbmF0dXJl"), "{}", output.stderr);
    }
    assert_eq!(scene.aml.requests().len(), 0);
}

#[test]
fn azures_own_names_need_no_flag() {
    const NAME: &str = "check::azures_own_names_need_no_flag";
    const HOSTS: [&str; 2] = [
        "myaccount.blob.core.windows.net",
        "myaccount.dfs.core.windows.net",
    ];
    if !in_namespace_with_hosts(NAME, &HOSTS) {
        return;
    }
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let ca = TestCa::new().unwrap();
    let options = StorageOptions {
        bind: ([127, 0, 0, 1], 443).into(),
        ..StorageOptions::default()
    };
    let _storage = Storage::start(options, &ca.usual_leaf().unwrap()).unwrap();
    let world = World::new();
    let ca_file = ca.write_to(world.path()).unwrap();
    let world = world
        .with_environment(aml.environment())
        .with_environment([("JOBCRED_CA_FILE", ca_file.to_str().unwrap())])
        .with_secrets(aml.secrets());
    for url in [
        "https://myaccount.blob.core.windows.net/data/train",
        "abfss://data@myaccount.dfs.core.windows.net/train",
        "wasbs://data@myaccount.blob.core.windows.net/train",
    ] {
        let json = world
            .jobcred(&["check", "--json", "--write", url])
            .run()
            .succeeded()
            .json();
        assert_eq!(json["ok"], true, "{json:#}");
        let name = json["steps"][0]["text"].as_str().unwrap();
        assert!(name.contains("127.0.0.1 (this machine itself)"), "{name}");
    }
    let by_account = world
        .jobcred(&["check", "az://data/train"])
        .env("AZURE_STORAGE_ACCOUNT_NAME", "myaccount")
        .run()
        .succeeded();
    assert!(
        by_account
            .stdout
            .contains("https://myaccount.blob.core.windows.net/data/train")
    );
    // The certificate of another host.
    let foreign = ca.leaf(&["other.example"]).unwrap();
    let impostor = Storage::start(StorageOptions::default(), &foreign).unwrap();
    let url = impostor.endpoint().url_as(HOSTS[0], "/data/train");
    let json = world.jobcred(&["check", "--json", &url]).run().json();
    assert_eq!(json["findings"][0]["code"], "tls_wrong_name", "{json:#}");
    // No such account, and no resolver to say so.
    let json = world
        .jobcred(&[
            "check",
            "--json",
            "https://noaccount.blob.core.windows.net/data",
        ])
        .run()
        .json();
    let code = json["findings"][0]["code"].as_str().unwrap();
    assert!(
        ["name_not_found", "name_failed"].contains(&code),
        "{json:#}"
    );
    // Through a proxy that is not there.
    let json = world
        .jobcred(&[
            "check",
            "--json",
            "https://myaccount.blob.core.windows.net/data",
        ])
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .run()
        .json();
    assert_eq!(json["findings"][0]["code"], "proxy", "{json:#}");
    assert_eq!(json["proxy"], "http://127.0.0.1:9");
}
