//! Text and environment in, one typed [`Config`] out, all mistakes in one report.

mod error;
mod fingerprint;
mod keys;
mod load;
mod nearest;
pub mod reference;
mod registries;
mod service_link;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jobcred_wire::{ListedHost, LoginServer, LoginServerError};
use url::Url;

use crate::resource::Cloud;
use crate::strategy::Strategy;

pub use self::error::{ConfigErrors, Mistake};
pub use self::fingerprint::{fingerprint, place_fingerprint};
pub use self::keys::{DISABLED_VARIABLE, FILE_VARIABLE, KEYS, Key, REGISTRY_KEYS, RegistryKey};
pub use self::load::{ConfigFile, MAX_FILE_BYTES, Override};
pub use self::service_link::ignored_variables;
pub use self::value::parse_boolean;

/// All that can be configured, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of its own, and they do not exclude each other"
)]
pub struct Config {
    /// The strategy, when detection shall not decide.
    pub strategy: Option<Strategy>,
    /// The cloud.
    pub cloud: Cloud,
    /// Where the agent listens; `None` for the first of the standard places that can be used.
    pub socket: Option<PathBuf>,
    /// The group (by number) the socket is shared with; `None` is private.
    pub socket_group: Option<u32>,
    /// Uids that may ask besides the agent's own and root; needs `socket_group`.
    pub allow_uids: Vec<u32>,
    /// Resources whose tokens are got at start and always kept fresh, as given.
    pub resources: Vec<String>,
    /// Client, object or resource ids a request may name; `None` is any, an empty list none.
    pub allow_identities: Option<Vec<String>>,
    /// Whether a Kubernetes pod outside Azure ML may use the node's identity from IMDS.
    pub allow_node_identity: bool,
    /// Who the tokens must belong to.
    pub expect: Expect,
    /// The application that the job acts as in another tenant.
    pub federated: Federated,
    /// The tenant that the Azure CLI is asked for; `None` is its login's own.
    pub azure_cli_tenant: Option<String>,
    /// Whether IMDS may be probed when the environment names no endpoint.
    pub probe: bool,
    /// The issuer's base URL (https); `None` is `AZURE_AUTHORITY_HOST` or the cloud's.
    pub authority_host: Option<Url>,
    /// A PEM file of roots to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether a registry token may be got with a Resource Manager token when the registry's own audience cannot be had.
    pub registry_arm_fallback: bool,
    /// Settings per registry, by login server.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// How long the agent goes on answering after SIGTERM when it runs as a sidecar.
    pub grace: Duration,
    /// How long the sandbox's tokens live.
    pub sandbox_lifetime: Duration,
    /// How long COMMAND is held back for the declared resources; zero is not at all.
    pub prefetch_timeout: Duration,
    /// When `run` says what became of the tokens.
    pub post_mortem: PostMortem,
    /// Where what happens is written down for after the job.
    pub job_log: JobLog,
    /// Whether COMMAND must not start when no tokens can be had.
    pub required: bool,
    /// The dialects whose variables COMMAND gets; `None` is App Service's where that takes nothing away.
    pub dialects: Option<Vec<Dialect>>,
    /// The port of a sidecar's identity endpoint; `None` is no endpoint.
    pub endpoint_port: Option<u16>,
    /// Whether COMMAND's SDKs shall ask nobody but jobcred.
    pub exclusive: bool,
    /// Whether a user's tokens are served to who asks for a managed identity.
    pub user_dialects: UserDialects,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`; `None` is `info` for a sidecar and `warn` under `run`.
    pub log: Option<String>,
    /// How it is logged.
    pub log_format: LogFormat,
}

/// Who tokens must belong to; what is `None` is not checked. Ids are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The tenant (`tid`).
    pub tenant_id: Option<String>,
    /// The object id (`oid`).
    pub object_id: Option<String>,
    /// The client id (`appid` or `azp`).
    pub client_id: Option<String>,
}

/// The application that accepts the job's identity in place of a secret; its ids are given together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Federated {
    /// Its client id.
    pub client_id: Option<String>,
    /// The tenant it acts in.
    pub tenant_id: Option<String>,
    /// The resources whose tokens are the application's when a request names nobody; `None` is all.
    pub resources: Option<Vec<String>>,
}

/// An application in the tenant it acts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Application<'a> {
    /// Its client id.
    pub client_id: &'a str,
    /// The tenant.
    pub tenant_id: &'a str,
}

impl Federated {
    /// The application, where one is configured.
    #[must_use]
    pub fn application(&self) -> Option<Application<'_>> {
        Some(Application {
            client_id: self.client_id.as_deref()?,
            tenant_id: self.tenant_id.as_deref()?,
        })
    }
}

/// Settings of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// The identity to use, by client id; `None` is the job's.
    pub client_id: Option<String>,
    /// The tenant that issues the token and is named in the exchange.
    pub tenant_id: Option<String>,
    /// The audience to ask for, pinned; `None` is the registry's own with the fallback above.
    pub audience: Option<String>,
    /// Whether `client_id` is an application in `tenant_id` that accepts the job's identity in place of a secret.
    pub federated: bool,
    /// Answer "no credentials" instead of an error when the exchange is denied, for registries with anonymous pull.
    pub anonymous_when_denied: bool,
}

/// A managed-identity protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// App Service, 2019-08-01.
    AppService,
    /// Azure ML, 2017-09-01.
    AzureMl,
    /// Azure ML on behalf of a user.
    OnBehalfOf,
    /// The instance metadata service.
    Imds,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::AppService,
        Self::AzureMl,
        Self::OnBehalfOf,
        Self::Imds,
    ];

    /// The name in configuration and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AppService => "app_service",
            Self::AzureMl => "azure_ml",
            Self::OnBehalfOf => "on_behalf_of",
            Self::Imds => "imds",
        }
    }
}

/// Whether a user's tokens are served to who asks, in a dialect, for a managed identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserDialects {
    /// They are: the job was submitted to run as the user.
    #[default]
    Serve,
    /// They are not.
    Refuse,
}

/// When `run` says, after COMMAND, what became of the job's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostMortem {
    /// When COMMAND failed and was not told to end.
    #[default]
    Auto,
    /// Whenever COMMAND has ended.
    Always,
    /// Never.
    Off,
}

/// Where the job's log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JobLog {
    /// `logs/jobcred` of the working directory, where that is a place to leave something.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// This directory.
    In(PathBuf),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads a login server as a caller spelt it: one of Azure's, or one that `registries` lists.
    ///
    /// # Errors
    /// Why a credential may not be sent there.
    pub fn login_server(&self, text: &str) -> Result<LoginServer, LoginServerError> {
        let listed: Vec<ListedHost> = self
            .registries
            .keys()
            .filter_map(|host| host.parse().ok())
            .collect();
        LoginServer::parse(text, &listed)
    }

    /// The settings of a registry: its own entry, else the longest suffix entry (a leading dot) that covers it.
    #[must_use]
    pub fn registry(&self, server: &LoginServer) -> Option<&RegistryConfig> {
        let name = server.to_string();
        self.registries.get(&name).or_else(|| {
            self.registries
                .iter()
                .filter(|(entry, _)| entry.starts_with('.') && name.ends_with(entry.as_str()))
                .max_by_key(|(entry, _)| entry.len())
                .map(|(_, registry)| registry)
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strategy: None,
            cloud: Cloud::Public,
            socket: None,
            socket_group: None,
            allow_uids: Vec::new(),
            resources: Vec::new(),
            allow_identities: None,
            allow_node_identity: false,
            expect: Expect::default(),
            federated: Federated::default(),
            azure_cli_tenant: None,
            probe: true,
            authority_host: None,
            ca_file: None,
            registry_arm_fallback: true,
            registries: BTreeMap::new(),
            grace: Duration::from_secs(25),
            sandbox_lifetime: Duration::from_secs(60 * 60),
            prefetch_timeout: Duration::from_secs(30),
            post_mortem: PostMortem::Auto,
            job_log: JobLog::Auto,
            required: false,
            dialects: None,
            endpoint_port: None,
            exclusive: false,
            user_dialects: UserDialects::Serve,
            log: None,
            log_format: LogFormat::Text,
        }
    }
}
