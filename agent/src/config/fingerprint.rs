//! Whether two agents are interchangeable: a hash of whom they serve as, and by which rules.

use std::fmt::Write as _;

use jobcred_wire::Secret;
use ring::digest::{Context, SHA256};

use super::Config;
use crate::strategy::{Choice, Upstream};

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
        Upstream::AzureCli => hash.add("azure_cli", ""),
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

    use super::{Config, fingerprint};
    use crate::strategy::{Choice, Strategy, Upstream};

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
        let changes: [fn(&mut Config); 7] = [
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
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut other = Config::default();
            change(&mut other);
            assert_ne!(first, fingerprint(&other, &choice(SECRET)), "change {at}");
        }
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
