//! Every key there is: name, variable, type, default, meaning, danger, and how its value is read. Loading, the reference
//! in `docs/configuration.md` and the example file all come from this one table.

use std::time::Duration;

use super::error::Wrong;
use super::value::{
    self, Given, boolean, duration, guid, https_url, id_number, identity_id, list, log_filter,
    path, port, resource, socket_path, tenant, word,
};
use super::{Config, Dialect, JobLog, LogFormat, PostMortem, RegistryConfig, UserDialects};
use crate::resource::Cloud;
use crate::strategy::Strategy;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name in the file; a dot stands for a table.
    pub name: &'static str,
    /// The variable that says the same and beats the file.
    pub variable: &'static str,
    /// What is allowed, in words.
    pub allowed: &'static str,
    /// What holds when it is not given, in words.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// What it can cost; empty when nothing.
    pub danger: &'static str,
    /// A value for the example file, in TOML.
    pub example: &'static str,
    pub(super) set: fn(Given<'_>, &mut Config) -> Result<(), Vec<Wrong>>,
}

/// One setting of a registry: `registries."<host>".<name>`.
#[derive(Clone, Copy, Debug)]
pub struct RegistryKey {
    /// The name below the host.
    pub name: &'static str,
    /// What is allowed, in words.
    pub allowed: &'static str,
    /// What holds when it is not given, in words.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// What it can cost; empty when nothing.
    pub danger: &'static str,
    /// A value for the example file, in TOML.
    pub example: &'static str,
    pub(super) set: fn(Given<'_>, &mut RegistryConfig) -> Result<(), Vec<Wrong>>,
}

/// The key of the table of registries.
pub(super) const REGISTRIES: &str = "registries";
/// The variable that names the configuration file.
pub const FILE_VARIABLE: &str = "JOBCRED_CONFIG";
/// The variable that switches `jobcred run` off. It is not a key: a broken configuration must not matter to it.
pub const DISABLED_VARIABLE: &str = "JOBCRED_DISABLED";

const STRATEGIES: [(&str, Option<Strategy>); 8] = [
    ("auto", None),
    ("user-identity", Some(Strategy::UserIdentity)),
    ("compute-identity", Some(Strategy::ComputeIdentity)),
    ("kubernetes", Some(Strategy::Kubernetes)),
    ("system-identity", Some(Strategy::SystemIdentity)),
    ("compute-instance-user", Some(Strategy::ComputeInstanceUser)),
    ("service-principal", Some(Strategy::ServicePrincipal)),
    ("azure-cli", Some(Strategy::AzureCli)),
];
const CLOUDS: [(&str, Cloud); 3] = [
    ("public", Cloud::Public),
    ("government", Cloud::Government),
    ("china", Cloud::China),
];
const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const POST_MORTEMS: [(&str, PostMortem); 3] = [
    ("auto", PostMortem::Auto),
    ("always", PostMortem::Always),
    ("off", PostMortem::Off),
];
const USER_DIALECTS: [(&str, UserDialects); 2] = [
    ("serve", UserDialects::Serve),
    ("refuse", UserDialects::Refuse),
];
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    Key {
        name: "strategy",
        variable: "JOBCRED_STRATEGY",
        allowed: "auto, user-identity, compute-identity, kubernetes, system-identity, compute-instance-user, service-principal, azure-cli",
        default: "auto",
        meaning: "How the job gets tokens. `auto` decides from what the platform provides; `jobcred explain` shows how. The sandbox has no name here: it is started with `--sandbox` only. `service-principal` and `azure-cli` are never detected.",
        danger: "A wrong one fails at start: jobcred never falls back to another identity.",
        example: r#""compute-identity""#,
        set: |given, config| put(strategy(given), &mut config.strategy),
    },
    Key {
        name: "cloud",
        variable: "JOBCRED_CLOUD",
        allowed: "public, government, china",
        default: "what AZUREML_CURRENT_CLOUD says, else public",
        meaning: "The Azure cloud. It decides the issuer and the audience of Azure Resource Manager.",
        danger: "",
        example: r#""government""#,
        set: |given, config| put(word(given, &CLOUDS), &mut config.cloud),
    },
    Key {
        name: "authority_host",
        variable: "JOBCRED_AUTHORITY_HOST",
        allowed: "an https URL",
        default: "`AZURE_AUTHORITY_HOST`, else the cloud's",
        meaning: "The issuer's base URL, for workload identity and service principals.",
        danger: "Whoever owns this host gets the job's assertions.",
        example: r#""https://login.microsoftonline.us""#,
        set: |given, config| put_some(https_url(given), &mut config.authority_host),
    },
    Key {
        name: "ca_file",
        variable: "JOBCRED_CA_FILE",
        allowed: "an absolute path of a PEM file",
        default: "the system's roots",
        meaning: "Certificate authorities to trust besides the system's, for the issuer, for registries and for an https proxy. A file without certificates is ignored, with a warning.",
        danger: "Whoever has one of their keys can read the job's assertions and registry credentials.",
        example: r#""/etc/ssl/company-ca.pem""#,
        set: |given, config| put_some(path(given), &mut config.ca_file),
    },
    Key {
        name: "probe",
        variable: "JOBCRED_PROBE",
        allowed: "true or false",
        default: "true",
        meaning: "Whether the instance metadata service may be probed, once and for about a second, when the environment names no endpoint.",
        danger: "",
        example: "false",
        set: |given, config| put(boolean(given), &mut config.probe),
    },
    Key {
        name: "allow_node_identity",
        variable: "JOBCRED_ALLOW_NODE_IDENTITY",
        allowed: "true or false",
        default: "false",
        meaning: "Whether a Kubernetes pod outside Azure ML may use what the instance metadata service gives: the identity of the node.",
        danger: "The node's identity is shared by all of its pods and can usually pull images and read what the cluster reads.",
        example: "true",
        set: |given, config| put(boolean(given), &mut config.allow_node_identity),
    },
    Key {
        name: "allow_identities",
        variable: "JOBCRED_ALLOW_IDENTITIES",
        allowed: "a list of client ids, object ids (GUIDs) or Azure resource ids; as a variable also `any` or `none`",
        default: "any identity of the cluster",
        meaning: "The identities that a request may name besides the job's own. Matters on clusters alone: elsewhere there is one identity, or none that can be named. Give the same kind of id that requests name.",
        danger: "",
        example: r#"["11111111-2222-3333-4444-555555555555"]"#,
        set: |given, config| match given {
            Given::Text("any") => put(Ok(None), &mut config.allow_identities),
            Given::Text("none") => put(Ok(Some(Vec::new())), &mut config.allow_identities),
            given => put_list(list(given, identity_id), |ids| {
                config.allow_identities = Some(ids);
            }),
        },
    },
    Key {
        name: "expect.tenant_id",
        variable: "JOBCRED_EXPECT_TENANT_ID",
        allowed: "a GUID",
        default: "not checked",
        meaning: "The tenant that every token must be of, but those of an application that the configuration itself names (`federated`). A token of another one is refused.",
        danger: "",
        example: r#""11111111-2222-3333-4444-555555555555""#,
        set: |given, config| put_some(guid(given), &mut config.expect.tenant_id),
    },
    Key {
        name: "expect.object_id",
        variable: "JOBCRED_EXPECT_OBJECT_ID",
        allowed: "a GUID",
        default: "not checked",
        meaning: "The object id that the job's own tokens must have. Tokens of an identity that a request names are held to that name instead.",
        danger: "",
        example: r#""11111111-2222-3333-4444-555555555555""#,
        set: |given, config| put_some(guid(given), &mut config.expect.object_id),
    },
    Key {
        name: "expect.client_id",
        variable: "JOBCRED_EXPECT_CLIENT_ID",
        allowed: "a GUID",
        default: "not checked, but what the strategy announced is",
        meaning: "The client id that the job's own tokens must have.",
        danger: "",
        example: r#""11111111-2222-3333-4444-555555555555""#,
        set: |given, config| put_some(guid(given), &mut config.expect.client_id),
    },
    Key {
        name: "federated.client_id",
        variable: "JOBCRED_FEDERATED_CLIENT_ID",
        allowed: "a GUID; needs `federated.tenant_id`",
        default: "none: tokens are the job's own",
        meaning: "An application that the job acts as in another tenant. It is registered in the tenant of the job's managed identity (or workload identity), trusts that identity by a federated credential, and has been added to the other tenant. The job's own token only proves who asks.",
        danger: "Tokens are the application's, with its roles.",
        example: r#""11111111-2222-3333-4444-555555555555""#,
        set: |given, config| put_some(guid(given), &mut config.federated.client_id),
    },
    Key {
        name: "federated.tenant_id",
        variable: "JOBCRED_FEDERATED_TENANT_ID",
        allowed: "a GUID; needs `federated.client_id`",
        default: "none",
        meaning: "The tenant that the application acts in. A request that names this tenant, or the application's client id, gets the application's token for any resource.",
        danger: "",
        example: r#""66666666-7777-8888-9999-000000000000""#,
        set: |given, config| put_some(guid(given), &mut config.federated.tenant_id),
    },
    Key {
        name: "federated.resources",
        variable: "JOBCRED_FEDERATED_RESOURCES",
        allowed: "a list of resources or scopes, without white space, each at most 2048 bytes; as a variable also `none`",
        default: "all resources, registries included",
        meaning: "The resources whose tokens are the application's when a request names nobody; those of other resources are the job's own. Container registries go with `https://containerregistry.azure.net`, unless `registries` says otherwise.",
        danger: "",
        example: r#"["https://storage.azure.com/"]"#,
        set: |given, config| match given {
            Given::Text("none") => put(Ok(Some(Vec::new())), &mut config.federated.resources),
            given => put_list(list(given, resource), |all| {
                config.federated.resources = Some(all);
            }),
        },
    },
    Key {
        name: "azure_cli.tenant_id",
        variable: "JOBCRED_AZURE_CLI_TENANT_ID",
        allowed: "a GUID or a domain name",
        default: "the tenant of the login's default subscription",
        meaning: "The tenant that the Azure CLI is asked for, with the strategy `azure-cli`.",
        danger: "",
        example: r#""66666666-7777-8888-9999-000000000000""#,
        set: |given, config| put_some(tenant(given), &mut config.azure_cli_tenant),
    },
    Key {
        name: "resources",
        variable: "JOBCRED_RESOURCES",
        allowed: "a list of resources or scopes, without white space, each at most 2048 bytes",
        default: "none",
        meaning: "Resources whose tokens are got at start and always kept fresh. The agent is ready once they all exist.",
        danger: "`jobcred run` does not start COMMAND when one of them is refused for good; see `prefetch_timeout`.",
        example: r#"["https://storage.azure.com/"]"#,
        set: |given, config| {
            put_list(list(given, resource), |all| {
                config.resources = all;
            })
        },
    },
    Key {
        name: "prefetch_timeout",
        variable: "JOBCRED_PREFETCH_TIMEOUT",
        allowed: "seconds, or text with a unit, from 0 to 30 s",
        default: "30 s",
        meaning: "How long `jobcred run` holds COMMAND back until every one of `resources` is there. When one is refused for good, COMMAND is not started; when time is over, that is said and COMMAND starts all the same, unless `required` is set. Without `resources` nothing waits; 0 switches the wait off.",
        danger: "",
        example: r#""10s""#,
        set: |given, config| {
            put(
                duration(given, Duration::ZERO, Duration::from_secs(30)),
                &mut config.prefetch_timeout,
            )
        },
    },
    Key {
        name: "required",
        variable: "JOBCRED_REQUIRED",
        allowed: "true or false",
        default: "false",
        meaning: "Whether `jobcred run` stops before COMMAND when the agent can't serve tokens at all. Otherwise it says so and runs COMMAND all the same.",
        danger: "With `true` a job that needs no token can fail for want of one.",
        example: "true",
        set: |given, config| put(boolean(given), &mut config.required),
    },
    Key {
        name: "socket",
        variable: "JOBCRED_SOCKET",
        allowed: "an absolute path of at most 107 bytes",
        default: "the first that can be used of `/run/jobcred/agent.sock`, `$XDG_RUNTIME_DIR/jobcred/agent.sock`, `/tmp/jobcred-$UID/agent.sock`",
        meaning: "Where the agent listens. Clients read the same variable.",
        danger: "",
        example: r#""/run/jobcred/agent.sock""#,
        set: |given, config| put_some(socket_path(given), &mut config.socket),
    },
    Key {
        name: "socket_group",
        variable: "JOBCRED_SOCKET_GROUP",
        allowed: "a group's number",
        default: "private to the agent's own user",
        meaning: "The group the socket is shared with, for a sidecar and the pod's `fsGroup`.",
        danger: "Every member of the group gets the job's tokens, unless `allow_uids` narrows it.",
        example: "2000",
        set: |given, config| put_some(id_number(given), &mut config.socket_group),
    },
    Key {
        name: "allow_uids",
        variable: "JOBCRED_ALLOW_UIDS",
        allowed: "a list of user numbers; needs `socket_group`",
        default: "every member of `socket_group`",
        meaning: "Narrows `socket_group` to these users, and the agent's own and root.",
        danger: "They get every token that the job can get.",
        example: "[1000]",
        set: |given, config| {
            put_list(list(given, id_number), |uids| {
                config.allow_uids = uids;
            })
        },
    },
    Key {
        name: "registry_arm_fallback",
        variable: "JOBCRED_REGISTRY_ARM_FALLBACK",
        allowed: "true or false",
        default: "true",
        meaning: "Whether a registry may be given a token of Azure Resource Manager when no token for the registry's own audience can be had, as on Azure ML compute. Each such use is logged.",
        danger: "A token of Azure Resource Manager is good for all that the identity may do in its subscriptions; the registry's service sees it.",
        example: "false",
        set: |given, config| put(boolean(given), &mut config.registry_arm_fallback),
    },
    Key {
        name: REGISTRIES,
        variable: "JOBCRED_REGISTRIES",
        allowed: "tables by login server: `host`, `host:port`, or `.suffix` of a cloud of one's own; as a variable `host;setting=value;...`, separated by commas",
        default: "Azure's registries, with the defaults below",
        meaning: "Settings per registry, and hosts that are served besides Azure's own. As a variable it takes the place of all tables of the file.",
        danger: "A host listed here is given the job's tokens.",
        example: "",
        set: super::registries::set,
    },
    Key {
        name: "dialects",
        variable: "JOBCRED_DIALECTS",
        allowed: "auto, or a list of app_service, azure_ml, on_behalf_of, imds; as a variable also `none`",
        default: "auto",
        meaning: "The managed-identity endpoints that `jobcred run` gives COMMAND, so that unmodified Azure SDKs ask jobcred. `app_service` sets IDENTITY_ENDPOINT and IDENTITY_HEADER; `azure_ml` replaces MSI_ENDPOINT and MSI_SECRET, `on_behalf_of` replaces OBO_ENDPOINT, and `imds` sets AZURE_POD_IDENTITY_AUTHORITY_HOST, for old SDKs and for tools that look at nothing else. `auto` is `app_service` where it takes nothing away from COMMAND: see docs/dialects.md.",
        danger: "With `azure_ml` and `on_behalf_of`, what the platform's own libraries do with those variables goes through jobcred too. Clients of `on_behalf_of` and `imds` send no secret: who learns the URL may ask, if he has the right uid.",
        example: r#"["app_service", "azure_ml"]"#,
        set: dialects,
    },
    Key {
        name: "endpoint_port",
        variable: "JOBCRED_ENDPOINT_PORT",
        allowed: "a port from 1024 to 65535",
        default: "a sidecar has no identity endpoint",
        meaning: "The port on loopback at which `jobcred agent` answers unmodified Azure SDKs of other containers, in the `dialects` that are listed (`app_service` where none are). `endpoint.env` beside the socket, readable for `socket_group`, has the variables for them, to be sourced. `jobcred run` chooses ports by itself.",
        danger: "The secret is in that file, and stays the same when the sidecar is started again, unless it finds the port taken. A program that can read it gets the job's tokens, unless `allow_uids` narrows that. An outgoing connection can have a port above 32767, and is taken for another program then.",
        example: "8460",
        set: |given, config| put_some(port(given), &mut config.endpoint_port),
    },
    Key {
        name: "exclusive",
        variable: "JOBCRED_EXCLUSIVE",
        allowed: "true or false",
        default: "false",
        meaning: "Whether COMMAND's Azure SDKs shall ask nobody but jobcred: its endpoint is given even where `dialects` would leave the platform's, and AZURE_TOKEN_CREDENTIALS is set to ManagedIdentityCredential, so that DefaultAzureCredential passes over secrets and files in the environment. Also `jobcred run --exclusive`.",
        danger: "Identities that only the platform's own endpoint would have given are refused.",
        example: "true",
        set: |given, config| put(boolean(given), &mut config.exclusive),
    },
    Key {
        name: "user_dialects",
        variable: "JOBCRED_USER_DIALECTS",
        allowed: "serve, refuse",
        default: "serve",
        meaning: "Whether a job that runs as a user serves that user's tokens to SDKs that ask for a managed identity without naming one. Those that name one are always refused.",
        danger: "",
        example: r#""refuse""#,
        set: |given, config| put(word(given, &USER_DIALECTS), &mut config.user_dialects),
    },
    Key {
        name: "grace",
        variable: "JOBCRED_GRACE",
        allowed: "seconds, or text with a unit (`90s`, `5m`), up to 1 h",
        default: "25 s",
        meaning: "How long a sidecar goes on answering after SIGTERM, because checkpoints are written then. Keep it below the pod's grace period.",
        danger: "",
        example: "60",
        set: |given, config| put(duration(given, Duration::ZERO, HOUR), &mut config.grace),
    },
    Key {
        name: "sandbox_lifetime",
        variable: "JOBCRED_SANDBOX_LIFETIME",
        allowed: "seconds, or text with a unit (`90s`, `1h`), from 1 s to 24 h",
        default: "1 h",
        meaning: "How long the sandbox's tokens live. Short ones show whether a program copes with renewal.",
        danger: "",
        example: r#""2m""#,
        set: |given, config| {
            put(
                duration(given, Duration::from_secs(1), DAY),
                &mut config.sandbox_lifetime,
            )
        },
    },
    Key {
        name: "log",
        variable: "JOBCRED_LOG",
        allowed: "a level (error, warn, info, debug, trace), or filters like `info,jobcred::broker=debug`",
        default: "info; warn for the agent of `jobcred run`, whose log goes where COMMAND's errors go",
        meaning: "What is logged. Tokens and secrets never are, at any level.",
        danger: "",
        example: r#""debug""#,
        set: |given, config| put_some(log_filter(given), &mut config.log),
    },
    Key {
        name: "post_mortem",
        variable: "JOBCRED_POST_MORTEM",
        allowed: "auto, always, off",
        default: "auto",
        meaning: "When `jobcred run` says on stderr, in a few lines, what became of the job's tokens: `auto` is when COMMAND has failed without being told to end.",
        danger: "",
        example: r#""off""#,
        set: |given, config| put(word(given, &POST_MORTEMS), &mut config.post_mortem),
    },
    Key {
        name: "job_log",
        variable: "JOBCRED_JOB_LOG",
        allowed: "auto, off, or an absolute path of a directory",
        default: "auto",
        meaning: "Where the agent keeps a log of what happened to the job's tokens, one JSON object a line, at most 2 MiB for each node and user. `auto` is `logs/jobcred` in the working directory, once COMMAND has ended and if there is a `logs` then; in an Azure ML job, which uploads it, `logs` is made then when COMMAND has failed, and one that was there before COMMAND is written to at once. A directory given here is made, and written to at once. Ids, resources and errors are in it; tokens, secrets and user names are not.",
        danger: "",
        example: r#""/var/log/jobcred""#,
        set: |given, config| match given {
            Given::Text("auto") => put(Ok(JobLog::Auto), &mut config.job_log),
            Given::Text("off") => put(Ok(JobLog::Off), &mut config.job_log),
            Given::Toml(toml::Value::String(text)) if text == "auto" => {
                put(Ok(JobLog::Auto), &mut config.job_log)
            }
            Given::Toml(toml::Value::String(text)) if text == "off" => {
                put(Ok(JobLog::Off), &mut config.job_log)
            }
            given => put(path(given).map(JobLog::In), &mut config.job_log),
        },
    },
    Key {
        name: "log_format",
        variable: "JOBCRED_LOG_FORMAT",
        allowed: "text, json",
        default: "text",
        meaning: "How log lines look: for people, or one JSON object a line.",
        danger: "",
        example: r#""json""#,
        set: |given, config| put(word(given, &LOG_FORMATS), &mut config.log_format),
    },
];

/// Every setting of a registry.
pub const REGISTRY_KEYS: &[RegistryKey] = &[
    RegistryKey {
        name: "client_id",
        allowed: "a GUID",
        default: "the job's identity",
        meaning: "The identity that pulls, by client id.",
        danger: "",
        example: r#""11111111-2222-3333-4444-555555555555""#,
        set: |given, registry| put_some(guid(given), &mut registry.client_id),
    },
    RegistryKey {
        name: "tenant_id",
        allowed: "a GUID or a domain name",
        default: "the identity's own",
        meaning: "The tenant that issues the token and is named in the exchange. A managed identity can't leave its own: see `federated`.",
        danger: "",
        example: r#""66666666-7777-8888-9999-000000000000""#,
        set: |given, registry| put_some(tenant(given), &mut registry.tenant_id),
    },
    RegistryKey {
        name: "federated",
        allowed: "true or false; needs `client_id` and `tenant_id`",
        default: "false",
        meaning: "Whether `client_id` is not an identity of the compute but an application in `tenant_id` that trusts the job's identity, as with `federated.client_id`.",
        danger: "",
        example: "true",
        set: |given, registry| put(boolean(given), &mut registry.federated),
    },
    RegistryKey {
        name: "audience",
        allowed: "a resource without white space",
        default: "`https://containerregistry.azure.net`, with the fallback of `registry_arm_fallback`",
        meaning: "The audience of the token that is exchanged. Given, it is the only one: there is no fallback.",
        danger: "A token of Azure Resource Manager is good for all that the identity may do in its subscriptions.",
        example: r#""https://management.azure.com/""#,
        set: |given, registry| put_some(resource(given), &mut registry.audience),
    },
    RegistryKey {
        name: "anonymous_when_denied",
        allowed: "true or false",
        default: "false",
        meaning: "Whether container tools are told that there are no credentials, instead of an error, when the registry denies the exchange: for registries with anonymous pull.",
        danger: "It hides a missing role.",
        example: "true",
        set: |given, registry| put(boolean(given), &mut registry.anonymous_when_denied),
    },
];

/// The sandbox is no strategy to configure: neither a file nor a variable can turn a real job into one.
fn strategy(given: Given<'_>) -> Result<Option<Strategy>, Wrong> {
    word(given, &STRATEGIES).map_err(|wrong| match value::text(given) {
        Ok("sandbox") => Wrong::new(
            Some("sandbox"),
            "the sandbox is started with the flag --sandbox, and by nothing else",
        ),
        _ => wrong,
    })
}

fn dialects(given: Given<'_>, config: &mut Config) -> Result<(), Vec<Wrong>> {
    let known = Dialect::ALL.map(|dialect| (dialect.name(), dialect));
    let text = match given {
        Given::Toml(toml::Value::String(text)) => Some(text.as_str()),
        Given::Text(text) => Some(text),
        Given::Toml(_) => None,
    };
    match text {
        Some("auto") => put(Ok(None), &mut config.dialects),
        Some("none") if matches!(given, Given::Text(_)) => {
            put(Ok(Some(Vec::new())), &mut config.dialects)
        }
        _ => put_list(list(given, |item| word(item, &known)), |all| {
            config.dialects = Some(all);
        }),
    }
}

fn put<T>(read: Result<T, Wrong>, slot: &mut T) -> Result<(), Vec<Wrong>> {
    *slot = read.map_err(|wrong| vec![wrong])?;
    Ok(())
}

fn put_some<T>(read: Result<T, Wrong>, slot: &mut Option<T>) -> Result<(), Vec<Wrong>> {
    put(read.map(Some), slot)
}

fn put_list<T>(
    read: Result<Vec<T>, Vec<Wrong>>,
    store: impl FnOnce(Vec<T>),
) -> Result<(), Vec<Wrong>> {
    store(read?);
    Ok(())
}
