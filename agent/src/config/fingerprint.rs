//! Whether two agents are interchangeable: a hash of whom they serve as, and by which rules.

use std::fmt::Write as _;

use jobcred_wire::Secret;
use ring::digest::{Context, SHA256};

use super::{Config, UserDialects};
use crate::platform::Clock;
use crate::strategy::{Choice, Facts, ProbeResult, Strategy, Upstream, select, wants_probe};
use crate::transport::{LOOPBACK, TransportConfig, entries};

/// How much of the hash is kept, in bytes: more than enough to tell a handful of agents apart.
const KEPT_BYTES: usize = 16;
/// A secret shorter than this could be found again by trying, so it does not even go into the hash.
const LEAST_SECRET_BYTES: usize = 16;

/// A short, stable hash. Equal ones mean that a caller gets the same tokens from either agent, by the same rules.
///
/// Left out is what changes neither: where the agent listens, how it was found out what to do, how it logs.
#[must_use]
pub fn fingerprint(config: &Config, choice: &Choice) -> String {
    let mut hash = Fields(Context::new(&SHA256));
    hash.add("version", "1");
    add_choice(&mut hash, choice);
    add_rules(&mut hash, config);
    hash.finish()
}

/// The same before anything was decided: a hash of what a decision comes from. Equal ones mean that two processes would come
/// to the same, whatever the metadata service answers; so one of them may use the agent that the other one started.
///
/// It is made of what *would be* decided for each kind of answer, rather than of the variables that are looked at: nothing
/// that decides can be forgotten, and what does not (a rank's own number, say) keeps nobody apart.
#[must_use]
pub fn place_fingerprint(config: &Config, facts: &Facts) -> String {
    let mut hash = Fields(Context::new(&SHA256));
    hash.add("place version", "1");
    for probe in possible_probes(config, facts) {
        let facts = Facts {
            probe,
            ..facts.clone()
        };
        match select(&facts, config).outcome {
            Ok(choice) => {
                add_choice(&mut hash, &choice);
                if choice.strategy == Strategy::AzureCli {
                    // Whose login it is depends on where the program looks, and which one it is.
                    for name in ["HOME", "AZURE_CONFIG_DIR", "PATH"] {
                        hash.add_some(name, facts.environment.get(name));
                    }
                }
            }
            Err(error) => {
                hash.add("error", error.code);
                hash.add("message", &error.message);
            }
        }
    }
    add_rules(&mut hash, config);
    add_way_out(&mut hash, facts);
    // On behalf of a user, two jobs with the same endpoint are two users' all the same.
    hash.add_some("run", facts.environment.get("AZUREML_RUN_ID"));
    hash.finish()
}

/// The answers of the metadata service that are told apart, where it would be asked.
fn possible_probes(config: &Config, facts: &Facts) -> Vec<Option<ProbeResult>> {
    if !wants_probe(facts, config) {
        return vec![facts.probe.clone()];
    }
    let answered = |status| Some(ProbeResult::Answered { status, ms: 0 });
    let silent = ProbeResult::NoAnswer {
        reason: String::new(),
    };
    vec![answered(400), answered(403), Some(silent)]
}

/// How Entra and registries are reached.
fn add_way_out(hash: &mut Fields, facts: &Facts) {
    let way = TransportConfig::from_environment(&facts.environment, None, Clock::system());
    // Without the password that may be in front of it.
    let proxy = way.https_proxy.as_ref().map(|proxy| &*proxy.value);
    hash.add_some("proxy", proxy.and_then(|proxy| proxy.rsplit('@').next()));
    // Without those that `run` appends for COMMAND, which may start another `run`.
    let exemptions: Vec<&str> = entries(way.no_proxy.as_deref().unwrap_or_default())
        .filter(|name| !LOOPBACK.contains(name))
        .collect();
    hash.add("no_proxy", &exemptions.join(","));
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        hash.add_some(name, facts.environment.get(name));
    }
}

/// Names and values, each with its length in front, so that no two lists of them look alike.
struct Fields(Context);

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        for text in [name, value] {
            self.0.update(&(text.len() as u64).to_be_bytes());
            self.0.update(text.as_bytes());
        }
    }

    fn add_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn add_secret(&mut self, name: &str, secret: &Secret) {
        if secret.expose().len() >= LEAST_SECRET_BYTES {
            self.add(name, secret.expose());
        } else {
            self.add(name, "short");
        }
    }

    fn finish(self) -> String {
        let digest = self.0.finish();
        let mut text = String::with_capacity(2 * KEPT_BYTES);
        for byte in digest.as_ref().iter().take(KEPT_BYTES) {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

fn add_choice(hash: &mut Fields, choice: &Choice) {
    hash.add("strategy", choice.strategy.name());
    hash.add_some("client_id", choice.client_id.as_deref());
    match &choice.upstream {
        Upstream::AzureMl { endpoint, secret } => {
            hash.add("azure_ml", endpoint.as_str());
            if let Some(secret) = secret {
                hash.add_secret("secret", secret);
            }
        }
        Upstream::AppService2017 { endpoint, secret } => {
            hash.add("app_service_2017", endpoint.as_str());
            hash.add_secret("secret", secret);
        }
        Upstream::OnBehalfOf { endpoint, secret } => {
            hash.add("on_behalf_of", endpoint.as_str());
            if let Some(secret) = secret {
                hash.add_secret("secret", secret);
            }
        }
        Upstream::AppService { endpoint, header } => {
            hash.add("app_service", endpoint.as_str());
            hash.add_secret("header", header);
        }
        Upstream::Imds { base } => hash.add("imds", base.as_str()),
        Upstream::WorkloadIdentity {
            authority,
            tenant,
            client_id,
            token_file,
        } => {
            hash.add("workload_identity", authority.as_str());
            hash.add("tenant", tenant);
            hash.add("client_id", client_id);
            hash.add("token_file", &token_file.to_string_lossy());
        }
        // Whichever secret proves it, it is the same application; and people choose these secrets themselves.
        Upstream::ServicePrincipal {
            authority,
            tenant,
            client_id,
            secret: _,
        } => {
            hash.add("service_principal", authority.as_str());
            hash.add("tenant", tenant);
            hash.add("client_id", client_id);
        }
        Upstream::AzureCli {
            program,
            config_dir,
            tenant,
        } => {
            hash.add("azure_cli", &program.to_string_lossy());
            if let Some(directory) = config_dir {
                hash.add("config_dir", &directory.to_string_lossy());
            }
            hash.add_some("tenant", tenant.as_deref());
        }
        Upstream::Sandbox => hash.add("sandbox", ""),
    }
}

fn add_rules(hash: &mut Fields, config: &Config) {
    hash.add("cloud", &format!("{:?}", config.cloud));
    if let Some(ids) = &config.allow_identities {
        hash.add("allow_identities", &sorted(ids).join(","));
    }
    hash.add_some("expect.tenant_id", config.expect.tenant_id.as_deref());
    hash.add_some("expect.object_id", config.expect.object_id.as_deref());
    hash.add_some("expect.client_id", config.expect.client_id.as_deref());
    if let Some(application) = config.federated.application() {
        hash.add("federated.client_id", application.client_id);
        hash.add("federated.tenant_id", application.tenant_id);
        if let Some(resources) = &config.federated.resources {
            hash.add("federated.resources", &sorted(resources).join(" "));
        }
    }
    if config.federated.application().is_some() || config.registries.values().any(|r| r.federated) {
        hash.add_some(
            "authority_host",
            config.authority_host.as_ref().map(url::Url::as_str),
        );
    }
    if config.user_dialects == UserDialects::Refuse {
        hash.add("user_dialects", "refuse");
    }
    hash.add("resources", &sorted(&config.resources).join(" "));
    if let Some(group) = config.socket_group {
        hash.add("socket_group", &group.to_string());
    }
    let mut uids = config.allow_uids.clone();
    uids.sort_unstable();
    hash.add("allow_uids", &format!("{uids:?}"));
    if let Some(file) = &config.ca_file {
        hash.add("ca_file", &file.to_string_lossy());
    }
    hash.add(
        "registry_arm_fallback",
        if config.registry_arm_fallback {
            "1"
        } else {
            "0"
        },
    );
    for (host, registry) in &config.registries {
        hash.add("registry", host);
        hash.add_some("client_id", registry.client_id.as_deref());
        hash.add_some("tenant_id", registry.tenant_id.as_deref());
        hash.add_some("audience", registry.audience.as_deref());
        if registry.federated {
            hash.add("federated", "1");
        }
        if registry.anonymous_when_denied {
            hash.add("anonymous_when_denied", "1");
        }
    }
    hash.add(
        "sandbox_lifetime",
        &config.sandbox_lifetime.as_secs().to_string(),
    );
}

fn sorted(items: &[String]) -> Vec<String> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Config, UserDialects, fingerprint, place_fingerprint};
    use crate::platform::Environment;
    use crate::strategy::{Choice, Facts, Strategy, Upstream};

    fn choice(secret: &str) -> Choice {
        Choice {
            strategy: Strategy::ComputeIdentity,
            upstream: Upstream::AzureMl {
                endpoint: Url::parse("http://127.0.0.1:46808/MSI/auth").unwrap(),
                secret: Some(secret.into()),
            },
            client_id: None,
        }
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn what_makes_no_difference_changes_nothing() {
        let config = Config::default();
        let same = Config {
            socket: Some("/run/x/agent.sock".into()),
            log: Some("debug".to_owned()),
            required: true,
            exclusive: true,
            dialects: Some(Vec::new()),
            probe: false,
            ..Config::default()
        };
        let first = fingerprint(&config, &choice(SECRET));
        assert_eq!(first, fingerprint(&same, &choice(SECRET)));
        assert_eq!(first.len(), 32);
        let order = |ids: [&str; 2]| Config {
            resources: ids.map(str::to_owned).to_vec(),
            ..Config::default()
        };
        assert_eq!(
            fingerprint(&order(["a", "b"]), &choice(SECRET)),
            fingerprint(&order(["b", "a"]), &choice(SECRET))
        );
    }

    #[test]
    fn whatever_makes_a_difference_changes_it() {
        let config = Config::default();
        let first = fingerprint(&config, &choice(SECRET));
        let mut other = choice(SECRET);
        other.client_id = Some("11111111-2222-3333-4444-555555555555".to_owned());
        assert_ne!(first, fingerprint(&config, &other));
        other = choice(SECRET);
        other.strategy = Strategy::SystemIdentity;
        assert_ne!(first, fingerprint(&config, &other));
        assert_ne!(
            first,
            fingerprint(&config, &choice("fedcba9876543210fedcba9876543210"))
        );
        let changes: [fn(&mut Config); 8] = [
            |config| config.allow_identities = Some(Vec::new()),
            |config| config.expect.object_id = Some("x".to_owned()),
            |config| config.expect.tenant_id = Some("x".to_owned()),
            |config| config.registry_arm_fallback = false,
            |config| config.socket_group = Some(7),
            |config| {
                config.registries.insert(
                    "a.example".to_owned(),
                    super::super::RegistryConfig::default(),
                );
            },
            |config| config.resources = vec!["a".to_owned()],
            |config| config.user_dialects = UserDialects::Refuse,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut other = Config::default();
            change(&mut other);
            assert_ne!(first, fingerprint(&other, &choice(SECRET)), "change {at}");
        }
    }

    fn place(config: &Config, variables: &[(&str, &str)]) -> String {
        let environment: Environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let facts = Facts {
            environment,
            ..Facts::default()
        };
        place_fingerprint(config, &facts)
    }

    const JOB: [(&str, &str); 3] = [
        ("MSI_ENDPOINT", "http://127.0.0.1:46808/MSI/auth"),
        ("MSI_SECRET", SECRET),
        ("AZUREML_RUN_ID", "run-1"),
    ];

    #[test]
    fn the_ranks_of_a_launcher_and_what_a_command_starts_are_of_one_kind() {
        let config = Config::default();
        let first = place(&config, &JOB);
        for more in [
            [("RANK", "3"), ("LOCAL_RANK", "3")],
            [
                ("NO_PROXY", "127.0.0.1,localhost"),
                ("no_proxy", "127.0.0.1,localhost"),
            ],
            [
                ("JOBCRED_SOCKET", "/x/agent.sock"),
                ("OMP_NUM_THREADS", "1"),
            ],
        ] {
            let all: Vec<_> = JOB.into_iter().chain(more).collect();
            assert_eq!(place(&config, &all), first, "{more:?}");
        }
        // What `run` makes of each of these is of the same kind.
        for value in ["a", "a b", "a, b ,", "*", "*,a", "* "] {
            let outer = Environment::from([("no_proxy", value)]);
            let inner = crate::supervisor::with_loopback(&outer);
            let with = |pairs: &[(&str, &str)]| {
                let all: Vec<_> = JOB.into_iter().chain(pairs.iter().copied()).collect();
                place(&config, &all)
            };
            let inner: Vec<_> = inner
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            assert_eq!(with(&inner), with(&[("no_proxy", value)]), "{value:?}");
        }
    }

    #[test]
    fn whatever_decides_makes_another_kind() {
        let config = Config::default();
        let mut seen = vec![place(&config, &JOB), place(&config, &[])];
        let id = (
            "DEFAULT_IDENTITY_CLIENT_ID",
            "11111111-2222-3333-4444-555555555555",
        );
        let other = (
            "DEFAULT_IDENTITY_CLIENT_ID",
            "99999999-2222-3333-4444-555555555555",
        );
        for more in [
            id,
            other,
            ("AZUREML_RUN_ID", "run-2"),
            ("AZUREML_OBO_ENABLED", "True"),
            ("MSI_SECRET", "fedcba9876543210fedcba9876543210"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("SSL_CERT_FILE", "/x.pem"),
        ] {
            let all: Vec<_> = JOB.into_iter().chain([more]).collect();
            seen.push(place(&config, &all));
        }
        let off = Config {
            probe: false,
            ..Config::default()
        };
        seen.push(place(&off, &[]));
        let expects = Config {
            resources: vec!["https://vault.azure.net".to_owned()],
            ..Config::default()
        };
        seen.push(place(&expects, &JOB));
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_short_secret_leaves_no_trace() {
        let config = Config::default();
        assert_eq!(
            fingerprint(&config, &choice("hunter2")),
            fingerprint(&config, &choice("letmein"))
        );
    }
}
