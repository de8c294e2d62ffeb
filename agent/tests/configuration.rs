//! The configuration from outside: every key by file and by variable, every mistake, and documents that keep step.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobcred::config::{
    Config, ConfigErrors, ConfigFile, Dialect, Federated, JobLog, KEYS, LogFormat, Override,
    PostMortem, RegistryConfig, UserDialects, reference,
};
use jobcred::platform::Environment;
use jobcred::resource::Cloud;
use jobcred::strategy::Strategy;

const GUID: &str = "11111111-2222-3333-4444-555555555555";

fn from_file(text: &str) -> Result<Config, ConfigErrors> {
    let file = ConfigFile {
        name: "jobcred.toml",
        text,
    };
    Config::load(Some(file), &Environment::default(), &[])
}

fn from_variables<const N: usize>(pairs: [(&str, &str); N]) -> Result<Config, ConfigErrors> {
    Config::load(None, &Environment::from(pairs), &[])
}

/// Each mistake on a line of its own, without the heading.
fn lines(result: Result<Config, ConfigErrors>) -> Vec<String> {
    let errors = result.expect_err("there is a mistake");
    let text = errors.to_string();
    let lines: Vec<String> = text
        .lines()
        .skip(1)
        .map(|line| line.trim().to_owned())
        .collect();
    assert_eq!(lines.len(), errors.mistakes().len(), "{text}");
    lines
}

#[test]
fn azure_ml_names_the_cloud_unless_the_configuration_does() {
    for (variables, expected) in [
        (&[][..], Cloud::Public),
        (
            &[("AZUREML_CURRENT_CLOUD", "AzureChinaCloud")],
            Cloud::China,
        ),
        (&[("AZUREML_CURRENT_CLOUD", "of one's own")], Cloud::Public),
        (
            &[
                ("AZUREML_CURRENT_CLOUD", "AzureUSGovernment"),
                ("JOBCRED_CLOUD", "china"),
            ],
            Cloud::China,
        ),
    ] {
        let environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let config = Config::load(None, &environment, &[]).unwrap();
        assert_eq!(config.cloud, expected, "{variables:?}");
    }
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(from_file("").unwrap(), Config::default());
    assert_eq!(from_variables([]).unwrap(), Config::default());
    // An empty variable is an unset one.
    assert_eq!(
        from_variables([("JOBCRED_STRATEGY", "")]).unwrap(),
        Config::default()
    );
}

fn everything() -> Config {
    let registry = RegistryConfig {
        client_id: Some(GUID.to_owned()),
        tenant_id: Some("contoso.example".to_owned()),
        audience: Some("https://management.azure.com/".to_owned()),
        federated: true,
        anonymous_when_denied: true,
    };
    Config {
        strategy: Some(Strategy::Kubernetes),
        cloud: Cloud::China,
        socket: Some("/run/x/agent.sock".into()),
        socket_group: Some(2000),
        allow_uids: vec![1000, 1001],
        resources: vec![
            "https://storage.azure.com/".to_owned(),
            "api://x/.default".to_owned(),
        ],
        allow_identities: Some(vec![
            "abcdef00-2222-3333-4444-555555555555".to_owned(),
            "/subscriptions/s/x".to_owned(),
        ]),
        allow_node_identity: true,
        expect: jobcred::config::Expect {
            tenant_id: Some(GUID.to_owned()),
            object_id: Some(GUID.to_owned()),
            client_id: Some(GUID.to_owned()),
        },
        federated: Federated {
            client_id: Some(GUID.to_owned()),
            tenant_id: Some("abcdef00-2222-3333-4444-555555555555".to_owned()),
            resources: Some(vec!["https://storage.azure.com/".to_owned()]),
        },
        azure_cli_tenant: Some("contoso.example".to_owned()),
        probe: false,
        authority_host: Some("https://login.chinacloudapi.cn".parse().unwrap()),
        ca_file: Some("/etc/ca.pem".into()),
        registry_arm_fallback: false,
        registries: BTreeMap::from([
            ("localhost:5443".to_owned(), RegistryConfig::default()),
            (
                ".azurecr.contoso.local".to_owned(),
                RegistryConfig::default(),
            ),
            ("myreg.azurecr.io".to_owned(), registry),
        ]),
        grace: Duration::from_secs(90),
        sandbox_lifetime: Duration::from_secs(120),
        required: true,
        prefetch_timeout: Duration::from_secs(12),
        post_mortem: PostMortem::Always,
        job_log: JobLog::In("/work/outputs".into()),
        dialects: Some(vec![Dialect::AppService, Dialect::Imds]),
        endpoint_port: Some(8460),
        exclusive: true,
        user_dialects: UserDialects::Refuse,
        log: Some("info,jobcred::broker=debug".to_owned()),
        log_format: LogFormat::Json,
    }
}

#[test]
fn every_key_can_be_given_in_the_file() {
    let config = from_file(
        r#"
        strategy = "kubernetes"
        cloud = "china"
        socket = "/run/x/agent.sock"
        socket_group = 2000
        allow_uids = [1000, 1001]
        resources = ["https://storage.azure.com/", "api://x/.default"]
        allow_identities = ["ABCDEF00-2222-3333-4444-555555555555", "/subscriptions/s/x"]
        allow_node_identity = true
        probe = false
        authority_host = "https://login.chinacloudapi.cn"
        ca_file = "/etc/ca.pem"
        registry_arm_fallback = false
        grace = 90
        sandbox_lifetime = "2m"
        required = true
        prefetch_timeout = "12s"
        post_mortem = "always"
        job_log = "/work/outputs"
        dialects = ["app_service", "imds"]
        endpoint_port = 8460
        exclusive = true
        user_dialects = "refuse"
        log = "info,jobcred::broker=debug"
        log_format = "json"
        [expect]
        tenant_id = "11111111-2222-3333-4444-555555555555"
        object_id = "11111111-2222-3333-4444-555555555555"
        client_id = "11111111-2222-3333-4444-555555555555"
        [federated]
        client_id = "11111111-2222-3333-4444-555555555555"
        tenant_id = "ABCDEF00-2222-3333-4444-555555555555"
        resources = ["https://storage.azure.com/"]
        [azure_cli]
        tenant_id = "contoso.example"
        [registries."LocalHost:5443"]
        [registries.".azurecr.contoso.local"]
        [registries."myreg.azurecr.io"]
        client_id = "11111111-2222-3333-4444-555555555555"
        tenant_id = "contoso.example"
        audience = "https://management.azure.com/"
        federated = true
        anonymous_when_denied = true
        "#,
    );
    assert_eq!(config.unwrap(), everything());
}

#[test]
fn every_key_can_be_given_as_a_variable() {
    let pairs = [
        ("JOBCRED_STRATEGY", "kubernetes"),
        ("JOBCRED_CLOUD", "china"),
        ("JOBCRED_SOCKET", "/run/x/agent.sock"),
        ("JOBCRED_SOCKET_GROUP", "2000"),
        ("JOBCRED_ALLOW_UIDS", "1000, 1001"),
        (
            "JOBCRED_RESOURCES",
            "https://storage.azure.com/,api://x/.default",
        ),
        (
            "JOBCRED_ALLOW_IDENTITIES",
            "ABCDEF00-2222-3333-4444-555555555555,/subscriptions/s/x",
        ),
        ("JOBCRED_ALLOW_NODE_IDENTITY", "TRUE"),
        ("JOBCRED_PROBE", "0"),
        ("JOBCRED_AUTHORITY_HOST", "https://login.chinacloudapi.cn"),
        ("JOBCRED_CA_FILE", "/etc/ca.pem"),
        ("JOBCRED_REGISTRY_ARM_FALLBACK", "false"),
        ("JOBCRED_GRACE", "90s"),
        ("JOBCRED_SANDBOX_LIFETIME", "120"),
        ("JOBCRED_REQUIRED", "1"),
        ("JOBCRED_PREFETCH_TIMEOUT", "12"),
        ("JOBCRED_POST_MORTEM", "always"),
        ("JOBCRED_JOB_LOG", "/work/outputs"),
        ("JOBCRED_DIALECTS", "app_service, imds"),
        ("JOBCRED_ENDPOINT_PORT", "8460"),
        ("JOBCRED_EXCLUSIVE", "true"),
        ("JOBCRED_USER_DIALECTS", "refuse"),
        ("JOBCRED_LOG", "info,jobcred::broker=debug"),
        ("JOBCRED_LOG_FORMAT", "json"),
        ("JOBCRED_EXPECT_TENANT_ID", GUID),
        ("JOBCRED_EXPECT_OBJECT_ID", GUID),
        ("JOBCRED_EXPECT_CLIENT_ID", GUID),
        ("JOBCRED_FEDERATED_CLIENT_ID", GUID),
        (
            "JOBCRED_FEDERATED_TENANT_ID",
            "ABCDEF00-2222-3333-4444-555555555555",
        ),
        ("JOBCRED_FEDERATED_RESOURCES", "https://storage.azure.com/"),
        ("JOBCRED_AZURE_CLI_TENANT_ID", "contoso.example"),
        (
            "JOBCRED_REGISTRIES",
            "localhost:5443, .azurecr.contoso.local, myreg.azurecr.io;client_id=11111111-2222-3333-4444-555555555555;\
             tenant_id=contoso.example;audience=https://management.azure.com/;federated=true;anonymous_when_denied=true",
        ),
    ];
    let names: Vec<&str> = KEYS.iter().map(|key| key.variable).collect();
    assert_eq!(names.len(), pairs.len());
    for (name, _) in pairs {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(from_variables(pairs).unwrap(), everything());
}

#[test]
fn an_application_is_told_by_both_of_its_ids() {
    for (text, mistake) in [
        (
            format!("[federated]\nclient_id = \"{GUID}\""),
            "nothing says in which tenant this application acts",
        ),
        (
            format!("[federated]\ntenant_id = \"{GUID}\""),
            "nothing says which application acts in this tenant",
        ),
        (
            "[federated]\nresources = [\"https://storage.azure.com/\"]".to_owned(),
            "nothing says for which application",
        ),
        (
            format!("[registries.\"a.example\"]\nfederated = true\nclient_id = \"{GUID}\""),
            "nothing says which application, or in which tenant",
        ),
    ] {
        let found = lines(from_file(&text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(mistake), "{found:?}");
    }
    let both = format!("[federated]\nclient_id = \"{GUID}\"\ntenant_id = \"{GUID}\"");
    assert!(from_file(&both).unwrap().federated.application().is_some());
    let none = [
        ("JOBCRED_FEDERATED_CLIENT_ID", GUID),
        ("JOBCRED_FEDERATED_TENANT_ID", GUID),
        ("JOBCRED_FEDERATED_RESOURCES", "none"),
    ];
    let resources = from_variables(none).unwrap().federated.resources;
    assert_eq!(resources, Some(Vec::new()));
}

#[test]
fn flags_beat_variables_and_variables_beat_the_file() {
    let file = ConfigFile {
        name: "jobcred.toml",
        text: "log = \"warn\"\ncloud = \"china\"\nstrategy = \"azure-cli\"\nallow_identities = []",
    };
    let environment = Environment::from([
        ("JOBCRED_LOG", "debug"),
        ("JOBCRED_CLOUD", "government"),
        ("JOBCRED_STRATEGY", "auto"),
        ("JOBCRED_ALLOW_IDENTITIES", "any"),
    ]);
    let flag = Override {
        flag: "--log",
        key: "log",
        value: "trace".to_owned(),
    };
    let config = Config::load(Some(file), &environment, &[flag]).unwrap();
    assert_eq!(config.log.as_deref(), Some("trace"));
    assert_eq!(config.cloud, Cloud::Government);
    assert_eq!(config.strategy, None);
    assert_eq!(config.allow_identities, None);
    let none = from_variables([("JOBCRED_ALLOW_IDENTITIES", "none")]).unwrap();
    assert_eq!(none.allow_identities, Some(Vec::new()));
    for (text, dialects) in [("auto", None), ("none", Some(Vec::new()))] {
        let config = from_variables([("JOBCRED_DIALECTS", text)]).unwrap();
        assert_eq!(config.dialects, dialects);
    }
}

/// Every kind of mistake: the text of the file, and what the report must say of it.
const MISTAKES: &[(&str, &str)] = &[
    (
        r#"strategy = "managed""#,
        r#"strategy = "managed": it is none of the known words; allowed: auto, user-identity,"#,
    ),
    (r#"strategy = "sandbox""#, "--sandbox"),
    (
        "strategy = 3",
        "strategy: it is a number, which it cannot be",
    ),
    (r#"strategy = """#, "it is empty"),
    (
        r#"cloud = "mars""#,
        r#"cloud = "mars": it is none of the known words; allowed: public, government, china"#,
    ),
    (
        r#"dialects = ["app_service", "arc"]"#,
        "it is none of the known words; allowed: auto, or a list of app_service,",
    ),
    (r#"dialects = "none""#, "dialects"),
    ("endpoint_port = 80", "it is not a port from 1024 to 65535"),
    ("endpoint_port = 65536", "it is not a port"),
    (
        "probe = \"yes\"",
        "probe: it is text, which it cannot be; allowed: true or false",
    ),
    ("required = 1", "required: it is a number"),
    ("socket = \"run/x.sock\"", "it is not an absolute path"),
    ("socket = \"/run/\"", "it is a directory"),
    (
        "socket_group = -1",
        r#"socket_group = "-1": it is out of range"#,
    ),
    ("socket_group = 4294967295", "out of range"),
    ("socket_group = \"staff\"", "it is text"),
    (
        "allow_uids = 7\nsocket_group = 1",
        "allow_uids: it is a number",
    ),
    (
        "allow_uids = [\"x\"]\nsocket_group = 1",
        "allow_uids: it is text",
    ),
    (
        "allow_uids = [1000]",
        "could never reach a socket that is private",
    ),
    ("resources = [\"\"]", "it is empty"),
    ("resources = [\"a b\"]", "it has white space in it"),
    (
        "resources = [\"a\\u0007\"]",
        "it has a control character in it",
    ),
    (
        "allow_identities = [\"me\"]",
        "it is neither a GUID nor an Azure resource id",
    ),
    (
        "authority_host = \"http://login.example\"",
        "it is not an https URL",
    ),
    ("authority_host = \"login.example\"", "it is not a URL"),
    (
        "authority_host = \"https://login.example/?x=1\"",
        "it has a query or fragment in it",
    ),
    ("ca_file = \"ca.pem\"", "it is not an absolute path"),
    ("grace = \"soon\"", "it is not a duration"),
    ("grace = -1", "it is not a duration"),
    ("grace = \"2h\"", r#"grace = "2h": it is out of range"#),
    ("grace = 99999999999999999", "out of range"),
    ("sandbox_lifetime = 0", "out of range"),
    ("log = \"jobcred=loud=x\"", "it is not a log filter"),
    ("log = \"infoo\"", "it is not a level"),
    ("log_format = \"xml\"", "allowed: text, json"),
    ("expect = 1", "expect: it is not a table"),
    (
        "[expect]\ntenant_id = \"contoso\"",
        r#"expect.tenant_id = "contoso": it is not a GUID"#,
    ),
    (
        "[expect]\nobject = \"x\"",
        "expect.object: there is no such key; did you mean object_id?",
    ),
    (
        "stratgy = \"kubernetes\"",
        "stratgy: there is no such key; did you mean strategy?",
    ),
    (
        "zzzzzzzz = 1",
        "zzzzzzzz: there is no such key; allowed: strategy,",
    ),
    ("registries = 1", "registries: it is a number"),
    (
        "registries.\"a.example\" = 1",
        r#"registries."a.example": it is a number, which it cannot be; allowed: a table"#,
    ),
    (
        "[registries.\"https://a.example\"]",
        "the registry's address is not a plain host name; allowed: a host name",
    ),
    (
        "[registries.\"mcr.microsoft.com\"]",
        "this registry is public",
    ),
    ("[registries.\"r.eastus.data.azurecr.io\"]", "data endpoint"),
    (
        "[registries.\"a.example\"]\n[registries.\"A.example\"]",
        "this host is given twice",
    ),
    (
        "[registries.\"a.example\"]\nclient_id = \"x\"",
        r#"registries."a.example".client_id = "x": it is not a GUID; allowed: a GUID"#,
    ),
    (
        "[registries.\"a.example\"]\ntenant_id = \"x y\"",
        "it is neither a GUID nor a domain name",
    ),
    (
        "[registries.\"a.example\"]\naudience = \"x y\"",
        "white space",
    ),
    (
        "[registries.\"a.example\"]\nclientid = \"x\"",
        "there is no such setting; did you mean client_id?",
    ),
    (
        "[registries.\"a.example\"]\nanonymous_when_denied = \"x\"",
        "it is text",
    ),
    ("x = ", "jobcred.toml: line 1, column"),
    ("probe = true\nprobe = true", "jobcred.toml: line 2, column"),
];

#[test]
fn every_mistake_in_a_file_is_named() {
    for (text, expected) in MISTAKES {
        check_mistake(text, expected);
    }
}

#[test]
fn limits_of_length_are_named() {
    // No mistake: it is said where the socket is made, and COMMAND runs all the same.
    from_file(&format!("socket = \"/{}\"", "s".repeat(107))).unwrap();
    let uids: Vec<u32> = (0..65).collect();
    check_mistake(
        &format!("allow_uids = {uids:?}\nsocket_group = 1"),
        "it has 65 entries, more than 64",
    );
    check_mistake(
        &format!("resources = [\"{}\"]", "r".repeat(2049)),
        "it is too long",
    );
}

fn check_mistake(text: &str, expected: &str) {
    let found = lines(from_file(text));
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    let has_origin = ["jobcred.toml: ", "allow_uids: "]
        .iter()
        .any(|origin| found[0].starts_with(origin));
    assert!(has_origin, "{found:?}");
    assert!(found[0].contains(expected), "{text}: {found:?}");
}

#[test]
fn mistakes_in_variables_are_named_by_their_variable() {
    for (name, value, expected) in [
        (
            "JOBCRED_PROBE",
            "maybe",
            r#"JOBCRED_PROBE: probe = "maybe": it is neither true nor false"#,
        ),
        ("JOBCRED_SOCKET_GROUP", "staff", "it is not a whole number"),
        ("JOBCRED_SOCKET_GROUP", "-5", "it is out of range"),
        ("JOBCRED_RESOURCES", "https://a.example,,", "it is empty"),
        ("JOBCRED_GRACE", "+5", "it is not a duration"),
        ("JOBCRED_GRACE", "5 m", "it is not a duration"),
        (
            "JOBCRED_REGISTRIES",
            "a.example;client_id",
            "a setting has no value",
        ),
        (
            "JOBCRED_REGISTRIES",
            "a.example;colour=red",
            "there is no such setting",
        ),
        (
            "JOBCRED_REGISTRIES",
            ";audience=x",
            "no registry host is given",
        ),
        (
            "JOBCRED_STRATGEY",
            "kubernetes",
            "there is no such variable; did you mean JOBCRED_STRATEGY?",
        ),
        ("JOBCRED_AGENT_UIDS", "1", "did you mean JOBCRED_AGENT_UID?"),
    ] {
        let found = lines(from_variables([(name, value)]));
        assert!(found[0].starts_with(&format!("{name}: ")), "{found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    }
    // Other parts' variables are theirs.
    from_variables([
        ("JOBCRED_AGENT_UID", "1"),
        ("JOBCRED_CONFIG", "x"),
        ("JOBCRED_SOMETHING_ELSE", "1"),
    ])
    .unwrap();
}

/// Every key that takes a list, with two values that are right.
const LISTS: &[(&str, &str, [&str; 2])] = &[
    (
        "JOBCRED_RESOURCES",
        "resources",
        ["https://storage.azure.com", "https://vault.azure.net"],
    ),
    (
        "JOBCRED_FEDERATED_RESOURCES",
        "federated.resources",
        ["https://storage.azure.com", "https://vault.azure.net"],
    ),
    (
        "JOBCRED_ALLOW_IDENTITIES",
        "allow_identities",
        ["/subscriptions/a/x", "/subscriptions/b/y"],
    ),
    ("JOBCRED_ALLOW_UIDS", "allow_uids", ["1000", "1001"]),
    ("JOBCRED_DIALECTS", "dialects", ["app_service", "imds"]),
    (
        "JOBCRED_REGISTRIES",
        "registries",
        ["a.azurecr.io", "b.azurecr.io"],
    ),
];

#[test]
fn c9_a_list_in_another_syntax_is_refused_with_the_right_one() {
    let mut lists = KEYS
        .iter()
        .filter(|key| key.allowed.contains("list of") || key.name == "registries");
    assert!(lists.all(|key| LISTS.iter().any(|(_, name, _)| *name == key.name)));
    for (variable, name, [one, two]) in LISTS {
        let mut spellings = vec![
            format!("[\"{one}\"]"),
            format!(" [\"{one}\", \"{two}\"]"),
            format!("['{one}']"),
            format!("[{one}]"),
            format!("\"{one}\""),
            format!("'{one}'"),
            format!("\"{one},{two}\""),
            format!("\"{one}\",\"{two}\""),
            format!("\u{201c}{one}\u{201d}"),
            format!("{one};{two}"),
            format!("{one}; {two}"),
            format!("{one} {two}"),
            format!("{one}\n{two}"),
        ];
        if *name == "registries" {
            spellings.push(format!("{{\"{one}\": {{}}}}"));
        }
        for text in spellings {
            let found = lines(from_variables([(variable, &text)]));
            let found: Vec<_> = found
                .into_iter()
                .filter(|line| !line.starts_with("allow_uids: ") && !line.starts_with("federated."))
                .collect();
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(&format!("{variable}: ")), "{found:?}");
            let rights = if *name == "registries" {
                ["separated by commas", "allowed: a host name"]
                    .map(str::to_owned)
                    .to_vec()
            } else {
                vec![format!("write it with commas: {variable}=")]
            };
            let has_right = rights.iter().any(|right| found[0].contains(right));
            assert!(has_right, "{text}: {found:?}");
        }
    }
}

#[test]
fn c9_a_list_in_the_file_has_one_value_in_each_text() {
    for (_, name, [one, two]) in LISTS {
        if ["registries", "allow_uids"].contains(name) {
            continue;
        }
        for value in [
            format!("['{one},{two}']"),
            format!("['{one};{two}']"),
            format!("['[\"{one}\"]']"),
            format!("['\"{one}\"']"),
            format!("['{one} {two}']"),
            format!("'{one}'"),
            format!("'[\"{one}\"]'"),
        ] {
            let found = lines(from_file(&format!("{name} = {value}")));
            assert!(
                found[0].contains(&format!("write it as {name} = [")),
                "{value}: {found:?}"
            );
        }
    }
    let audience = "[registries.\"a.example\"]\naudience = '\"https://a.example\"'";
    check_mistake(audience, "it has quotation marks in it");
}

#[test]
fn all_mistakes_come_in_one_report() {
    let file = ConfigFile {
        name: "/etc/jobcred.toml",
        text: "stratgy = \"x\"\ncloud = \"mars\"\nallow_uids = [\"a\", -1]\n[expect]\ntenant_id = 1\n\
               [registries.\"a b\"]\n[registries.\"a.example\"]\nclient_id = \"x\"\ntenant_id = \"\"",
    };
    let environment = Environment::from([
        ("JOBCRED_ALLOW_UIDS", "1000"),
        ("JOBCRED_LOG_FORMAT", "xml"),
        ("JOBCRED_PROB", "1"),
    ]);
    let flag = Override {
        flag: "--socket",
        key: "socket",
        value: "here".to_owned(),
    };
    let found = lines(Config::load(Some(file), &environment, &[flag]));
    let starts = [
        "/etc/jobcred.toml: stratgy: there",
        "/etc/jobcred.toml: cloud = ",
        "/etc/jobcred.toml: expect.tenant_id: it is a number",
        "/etc/jobcred.toml: allow_uids: it is text",
        "/etc/jobcred.toml: allow_uids = \"-1\"",
        "/etc/jobcred.toml: registries.\"a b\": ",
        "/etc/jobcred.toml: registries.\"a.example\".client_id",
        "/etc/jobcred.toml: registries.\"a.example\".tenant_id",
        "JOBCRED_LOG_FORMAT: log_format = \"xml\"",
        "JOBCRED_PROB: there",
        "--socket: socket = \"here\"",
        "allow_uids: these users",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for start in starts {
        assert!(
            found.iter().any(|line| line.starts_with(start)),
            "{start}: {found:#?}"
        );
    }
}

#[test]
fn a_broken_file_does_not_hide_mistakes_elsewhere() {
    let file = ConfigFile {
        name: "jobcred.toml",
        text: "this is no TOML",
    };
    let environment = Environment::from([("JOBCRED_CLOUD", "mars")]);
    let found = lines(Config::load(Some(file), &environment, &[]));
    assert_eq!(found.len(), 2, "{found:?}");
    let huge = "#".repeat(jobcred::config::MAX_FILE_BYTES + 1);
    assert!(lines(from_file(&huge))[0].contains("too long"));
}

#[test]
fn what_may_be_a_secret_is_never_repeated() {
    let jwt = "eyJhbGciOiJub25lIn0.eyJvaWQiOiJ4In0.c2VjcmV0";
    for text in [
        format!("cloud = \"{jwt}\""),
        format!("client_secret = \"{jwt}\""),
        "client_secret = \"hunter2\"".to_owned(),
        "authority_host = \"https://me:hunter2@login.example\"".to_owned(),
        "[registries.\"a.example\"]\npassword = \"hunter2\"".to_owned(),
        "[registries.\"me:hunter2@a.example\"]".to_owned(),
        "cloud = [\"hunter2\"]".to_owned(),
        "cloud = \"hunter2".to_owned(),
    ] {
        let errors = from_file(&text).unwrap_err();
        let report = errors.to_string();
        assert!(
            !report.contains("hunter2") && !report.contains("eyJ"),
            "{report}"
        );
    }
    let errors = from_variables([(
        "JOBCRED_REGISTRIES",
        "me:hunter2@a.example;password=hunter2",
    )]);
    assert!(!errors.unwrap_err().to_string().contains("hunter2"));
}

#[test]
fn values_in_a_report_stay_on_one_line_and_short() {
    let errors = from_variables([("JOBCRED_CLOUD", "a\nb\u{1b}[31m")])
        .unwrap_err()
        .to_string();
    assert_eq!(errors.lines().count(), 2, "{errors}");
    assert!(!errors.contains('\u{1b}'));
    let long = "x".repeat(10_000);
    let errors = from_variables([("JOBCRED_CLOUD", &long)])
        .unwrap_err()
        .to_string();
    assert!(errors.len() < 500, "{errors}");
    let items = vec!["\"x\""; 64].join(",");
    let errors = from_file(&format!("allow_identities = [{items}]")).unwrap_err();
    assert_eq!(errors.mistakes().len(), 64);
    assert!(errors.to_string().ends_with("and 14 more"));
}

#[test]
fn registries_are_found_by_host_and_by_suffix() {
    let config = from_variables([(
        "JOBCRED_REGISTRIES",
        "a.azurecr.io;audience=one,.azurecr.contoso.local;audience=two,localhost:5443;audience=three",
    )])
    .unwrap();
    let audience = |text: &str| {
        let server = config
            .login_server(text)
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(
            config
                .registry(&server)
                .and_then(|found| found.audience.clone()),
        )
    };
    assert_eq!(
        audience("https://A.azurecr.io/v2/"),
        Ok(Some("one".to_owned()))
    );
    assert_eq!(
        audience("x.azurecr.contoso.local"),
        Ok(Some("two".to_owned()))
    );
    assert_eq!(audience("localhost:5443"), Ok(Some("three".to_owned())));
    assert_eq!(audience("b.azurecr.io"), Ok(None));
    for refused in [
        "localhost",
        "localhost:5444",
        "a.azurecr.io:5443",
        "x.azurecr.contoso.local.evil.example",
        "127.0.0.1:5443",
    ] {
        audience(refused).unwrap_err();
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Replaces what is between the two markers, or says that they are not there.
fn with_section(text: &str, name: &str, section: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let (before, rest) = text
        .split_once(&begin)
        .expect("the document has the marker");
    let (_, after) = rest
        .split_once(&end)
        .expect("the document has the end marker");
    format!("{before}{begin}\n{section}{end}{after}")
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "UPDATE_DOCS is for the person who changed the table"
)]
fn documents_are_in_step_with_the_table() {
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    let reference_path = repository().join("docs/configuration.md");
    let old = std::fs::read_to_string(&reference_path).unwrap();
    let new = with_section(&old, "keys", &reference::keys_markdown());
    let new = with_section(
        &new,
        "registry settings",
        &reference::registry_keys_markdown(),
    );
    let example_path = repository().join("docs/jobcred.example.toml");
    if update {
        std::fs::write(&reference_path, &new).unwrap();
        std::fs::write(&example_path, reference::example_toml()).unwrap();
        return;
    }
    assert!(
        old == new,
        "docs/configuration.md: run this test with UPDATE_DOCS=1"
    );
    let example = std::fs::read_to_string(&example_path).unwrap();
    assert!(
        example == reference::example_toml(),
        "docs/jobcred.example.toml: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn the_example_is_valid_as_it_is_and_with_every_key_in_force() {
    let example = reference::example_toml();
    assert_eq!(from_file(&example).unwrap(), Config::default());
    let is_setting = |line: &str| {
        line.starts_with("# [")
            || line.split_once(" = ").is_some_and(|(name, _)| {
                name.strip_prefix("# ").is_some_and(|name| {
                    name.bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                })
            })
    };
    let in_force: Vec<&str> = example
        .lines()
        .filter(|line| is_setting(line))
        .map(|line| line.trim_start_matches("# "))
        .collect();
    let config = from_file(&in_force.join("\n")).unwrap();
    assert_eq!(config.registries.len(), 1);
    assert!(config.expect.client_id.is_some());
    assert!(config.federated.application().is_some());
    // All keys but the table of registries, all settings of a registry, and the heads of tables.
    assert_eq!(
        in_force.len(),
        KEYS.len() - 1 + jobcred::config::REGISTRY_KEYS.len() + 4
    );
}
