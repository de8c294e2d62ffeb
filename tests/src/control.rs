//! A set of doubles made from a configuration, and an endpoint by which another process scripts and reads them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::acr::{Acr, AcrOptions};
use crate::app_service::{AppService, AppServiceOptions};
use crate::azure_ml::{AzureMl, AzureMlOptions};
use crate::ca::{TestCa, USUAL_NAMES};
use crate::clock::Clock;
use crate::entra::{Entra, EntraOptions};
use crate::imds::{Imds, ImdsOptions};
use crate::reply::{Received, Reply};
use crate::script::{Behavior, OnConnect};
use crate::secrets::Secrets;
use crate::server::{Endpoint, Handler};
use crate::token::{Mint, Principal};

/// Which doubles to start. One that is left out isn't started; `{}` starts it with its usual options.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoublesConfig {
    /// Where certificates and files for other processes are written; it has to exist.
    pub directory: PathBuf,
    /// Names on the certificate besides [`USUAL_NAMES`].
    pub names: Vec<String>,
    /// The Azure ML responder.
    pub azure_ml: Option<AzureMlOptions>,
    /// The metadata service.
    pub imds: Option<ImdsOptions>,
    /// The App Service endpoint.
    pub app_service: Option<AppServiceOptions>,
    /// The authority.
    pub entra: Option<EntraOptions>,
    /// The registry.
    pub acr: Option<AcrOptions>,
}

/// A running set of doubles.
#[derive(Debug)]
pub struct Doubles {
    /// The Azure ML responder, if configured.
    pub azure_ml: Option<AzureMl>,
    /// The metadata service, if configured.
    pub imds: Option<Imds>,
    /// The App Service endpoint, if configured.
    pub app_service: Option<AppService>,
    /// The authority, if configured.
    pub entra: Option<Entra>,
    /// The registry, if configured.
    pub acr: Option<Acr>,
    files: Files,
}

#[derive(Debug)]
struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Doubles {
    /// Makes a CA, writes `ca.pem`, `leaf.pem` and `leaf.key` into the directory, and starts what is configured.
    pub fn start(config: DoublesConfig) -> io::Result<Self> {
        let ca = TestCa::new()?;
        let names = config.names.iter().map(String::as_str);
        let leaf = ca.leaf(&USUAL_NAMES.into_iter().chain(names).collect::<Vec<_>>())?;
        let (certificate, key) = leaf.write_to(&config.directory)?;
        Ok(Self {
            azure_ml: config.azure_ml.map(AzureMl::start).transpose()?,
            imds: config.imds.map(Imds::start).transpose()?,
            app_service: config.app_service.map(AppService::start).transpose()?,
            entra: config
                .entra
                .map(|options| Entra::start(options, &leaf))
                .transpose()?,
            acr: config
                .acr
                .map(|options| Acr::start(options, &leaf))
                .transpose()?,
            files: Files {
                ca: ca.write_to(&config.directory)?,
                certificate,
                key,
            },
        })
    }

    /// The CA's certificate, for clients.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.files.ca
    }

    /// Every endpoint that listens.
    #[must_use]
    pub fn endpoints(&self) -> Vec<&Endpoint> {
        let azure_ml = self
            .azure_ml
            .iter()
            .flat_map(|double| [double.msi(), double.obo()]);
        azure_ml
            .chain(self.imds.as_ref().map(Imds::endpoint))
            .chain(self.app_service.as_ref().map(AppService::endpoint))
            .chain(self.entra.as_ref().map(Entra::endpoint))
            .chain(self.acr.as_ref().map(Acr::endpoint))
            .collect()
    }

    /// Every mint, by name.
    #[must_use]
    pub fn mints(&self) -> Vec<(&'static str, &Mint)> {
        let azure_ml = self
            .azure_ml
            .iter()
            .flat_map(|double| [("azure_ml", double.mint()), ("user", double.user_mint())]);
        azure_ml
            .chain(self.imds.as_ref().map(|double| ("imds", double.mint())))
            .chain(
                self.app_service
                    .as_ref()
                    .map(|double| ("app_service", double.mint())),
            )
            .chain(self.entra.as_ref().map(|double| ("entra", double.mint())))
            .collect()
    }

    /// Every secret in play at this moment.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        let all = Secrets::new();
        let parts = [
            self.azure_ml.as_ref().map(AzureMl::secrets),
            self.imds.as_ref().map(Imds::secrets),
            self.app_service.as_ref().map(AppService::secrets),
            self.entra.as_ref().map(Entra::secrets),
            self.acr.as_ref().map(Acr::secrets),
        ];
        for part in parts.into_iter().flatten() {
            all.extend(part);
        }
        all
    }

    /// Addresses, secrets, ids and files: what another process needs to know.
    #[must_use]
    pub fn ready(&self) -> Value {
        let mut ready = Map::new();
        let files = &self.files;
        ready.insert("ca".into(), json!(files.ca));
        ready.insert("certificate".into(), json!(files.certificate));
        ready.insert("key".into(), json!(files.key));
        if let Some(double) = &self.azure_ml {
            let value = json!({
                "msi_endpoint": double.msi_endpoint(),
                "obo_endpoint": double.obo_endpoint(),
                "secret": double.secret(),
                "identities": double.options().identities,
                "user": double.options().user,
                "environment": object(double.environment()),
                "user_environment": object(double.user_environment()),
            });
            ready.insert("azure_ml".into(), value);
        }
        if let Some(double) = &self.imds {
            let value = json!({"url": double.url(), "identities": double.options().identities});
            ready.insert("imds".into(), value);
        }
        if let Some(double) = &self.app_service {
            let value = json!({
                "url": double.url(),
                "header": double.header(),
                "identities": double.options().identities,
                "environment": object(double.environment()),
            });
            ready.insert("app_service".into(), value);
        }
        if let Some(double) = &self.entra {
            let value = json!({
                "authority": double.authority(),
                "application": double.options().application,
                "client_secret": double.client_secret(),
            });
            ready.insert("entra".into(), value);
        }
        if let Some(double) = &self.acr {
            let value = json!({
                "url": double.endpoint().url(""),
                "port": double.endpoint().address().port(),
                "login_server": double.options().login_server,
            });
            ready.insert("acr".into(), value);
        }
        Value::Object(ready)
    }
}

fn object(pairs: Vec<(String, String)>) -> Value {
    pairs
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)))
        .collect()
}

/// The control endpoint of a set of doubles. tests/README.md lists its requests.
#[derive(Debug)]
pub struct Control {
    endpoint: Endpoint,
    doubles: Arc<Doubles>,
}

impl Control {
    /// Starts it on a free port of 127.0.0.1.
    pub fn start(doubles: Doubles) -> io::Result<Self> {
        let doubles = Arc::new(doubles);
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let handler = Arc::new(Handles(Arc::clone(&doubles)));
        let endpoint = Endpoint::start("control", bind, None, Clock::new(), handler)?;
        Ok(Self { endpoint, doubles })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.endpoint.url("")
    }

    /// The doubles that it controls.
    #[must_use]
    pub fn doubles(&self) -> &Doubles {
        &self.doubles
    }

    /// What another process needs to know, the control endpoint included.
    #[must_use]
    pub fn ready(&self) -> Value {
        let mut ready = self.doubles.ready();
        if let Value::Object(fields) = &mut ready {
            fields.insert("control".into(), json!(self.url()));
        }
        ready
    }
}

struct Handles(Arc<Doubles>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptOrder {
    endpoint: String,
    #[serde(default)]
    clear: bool,
    #[serde(default)]
    behaviors: Vec<Behavior>,
    path: Option<String>,
    default: Option<Behavior>,
    on_connect: Option<OnConnect>,
    release: Option<String>,
    close: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MintOrder {
    mint: String,
    lifetime: Option<i64>,
    repeat: Option<bool>,
    impostor: Option<Principal>,
    #[serde(default)]
    honest: bool,
    claims: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockOrder {
    endpoint: String,
    skew: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateOrder {
    user_grant_ended: Option<bool>,
    #[serde(default)]
    expire_seen_assertions: bool,
    federated_credential_removed: Option<bool>,
    acr: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryOrder {
    directory: PathBuf,
    port: u16,
}

type Done = Result<Value, String>;

fn order<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

impl Handles {
    fn endpoint(&self, name: &str) -> Result<&Endpoint, String> {
        let endpoints = self.0.endpoints();
        let names: Vec<_> = endpoints.iter().map(|endpoint| endpoint.name()).collect();
        endpoints
            .into_iter()
            .find(|endpoint| endpoint.name() == name)
            .ok_or_else(|| format!("no endpoint {name:?}; there are {names:?}"))
    }

    fn requests(&self, request: &Received) -> Done {
        let wanted = request.parameter("endpoint");
        if let Some(name) = wanted {
            self.endpoint(name)?;
        }
        let by_name = self
            .0
            .endpoints()
            .into_iter()
            .filter(|endpoint| wanted.is_none_or(|wanted| wanted == endpoint.name()))
            .map(|endpoint| {
                let recorder = endpoint.recorder();
                let value = json!({
                    "requests": recorder.requests(),
                    "most_in_flight": recorder.most_in_flight(),
                    "connections": recorder.connections(),
                    "script_left": endpoint.script().left(),
                });
                (endpoint.name().to_owned(), value)
            });
        Ok(by_name.collect())
    }

    fn script(&self, body: &[u8]) -> Done {
        let order: ScriptOrder = order(body)?;
        let script = self.endpoint(&order.endpoint)?.script();
        if order.clear {
            script.clear();
        }
        for behavior in order.behaviors {
            match &order.path {
                Some(path) => script.push_on(path, behavior),
                None => script.push(behavior),
            };
        }
        if let Some(default) = order.default {
            script.set_default(default);
        }
        if let Some(on_connect) = order.on_connect {
            script.set_on_connect(on_connect);
        }
        if let Some(gate) = order.release {
            script.release(&gate);
        }
        if let Some(gate) = order.close {
            script.close(&gate);
        }
        Ok(json!({"left": script.left()}))
    }

    fn mint(&self, body: &[u8]) -> Done {
        let order: MintOrder = order(body)?;
        let mints = self.0.mints();
        let names: Vec<_> = mints.iter().map(|(name, _)| *name).collect();
        let (_, mint) = mints
            .iter()
            .find(|(name, _)| *name == order.mint)
            .ok_or_else(|| format!("no mint {:?}; there are {names:?}", order.mint))?;
        if let Some(lifetime) = order.lifetime {
            mint.set_lifetime(lifetime);
        }
        if let Some(repeat) = order.repeat {
            mint.set_repeat(repeat);
        }
        if order.honest || order.impostor.is_some() {
            mint.set_impostor(order.impostor);
        }
        if let Some(claims) = order.claims {
            mint.set_claims(claims);
        }
        Ok(json!({}))
    }

    fn state(&self, body: &[u8]) -> Done {
        let order: StateOrder = order(body)?;
        if let Some(ended) = order.user_grant_ended {
            self.0
                .azure_ml
                .as_ref()
                .ok_or("no azure_ml")?
                .end_user_grant(ended);
        }
        if order.expire_seen_assertions {
            self.0
                .entra
                .as_ref()
                .ok_or("no entra")?
                .expire_seen_assertions();
        }
        if let Some(removed) = order.federated_credential_removed {
            self.0
                .entra
                .as_ref()
                .ok_or("no entra")?
                .remove_federated_credential(removed);
        }
        if let Some(changes) = order.acr {
            let acr = self.0.acr.as_ref().ok_or("no acr")?;
            let mut options =
                serde_json::to_value(acr.options()).map_err(|error| error.to_string())?;
            if let Value::Object(fields) = &mut options {
                fields.extend(changes);
            }
            let options: AcrOptions =
                serde_json::from_value(options).map_err(|error| error.to_string())?;
            acr.update(|current| *current = options);
        }
        Ok(json!({}))
    }

    fn tokens(&self) -> Value {
        let mut tokens: Map<String, Value> = self
            .0
            .mints()
            .into_iter()
            .map(|(name, mint)| (name.to_owned(), json!(mint.issued())))
            .collect();
        if let Some(acr) = &self.0.acr {
            tokens.insert("acr_refresh".into(), json!(acr.refresh_tokens()));
            tokens.insert("acr_access".into(), json!(acr.access_tokens()));
        }
        Value::Object(tokens)
    }

    fn assertion(&self, request: &Received) -> Done {
        let lifetime = request.parameter("lifetime").map_or(Ok(3600), str::parse);
        let lifetime = lifetime.map_err(|_| "lifetime: seconds wanted")?;
        let entra = self.0.entra.as_ref().ok_or("no entra")?;
        Ok(json!({"assertion": entra.new_assertion(lifetime)}))
    }

    fn registry(&self, body: &[u8]) -> Done {
        let order: RegistryOrder = order(body)?;
        let acr = self.0.acr.as_ref().ok_or("no acr")?;
        let config = acr
            .write_registry_config(&order.directory, order.port)
            .map_err(|error| error.to_string())?;
        acr.update(|options| {
            options.upstream = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, order.port)));
        });
        Ok(json!({"config": config}))
    }

    fn scan(&self, body: &[u8]) -> Value {
        let leaks = self.0.secrets().leaks(body);
        leaks
            .into_iter()
            .map(|leak| json!({"name": leak.name, "form": leak.form}))
            .collect()
    }
}

impl Handler for Handles {
    fn answer(&self, request: &Received) -> Reply {
        let (get, body) = (request.method == Method::GET, request.body.as_ref());
        let done = match request.path.as_str() {
            "/requests" if get => self.requests(request),
            "/tokens" if get => Ok(self.tokens()),
            "/secrets" if get => Ok(json!(self.0.secrets().reveal())),
            "/assertion" if get => self.assertion(request),
            "/script" => self.script(body),
            "/mint" => self.mint(body),
            "/state" => self.state(body),
            "/registry" => self.registry(body),
            "/scan" => Ok(self.scan(body)),
            "/clock" => order::<ClockOrder>(body).and_then(|order| {
                self.endpoint(&order.endpoint)?.clock().set_skew(order.skew);
                Ok(json!({}))
            }),
            "/clear" => {
                for endpoint in self.0.endpoints() {
                    endpoint.recorder().clear();
                }
                Ok(json!({}))
            }
            _ => return Reply::status(404),
        };
        match done {
            Ok(value) => Reply::json(200, &value),
            Err(reason) => Reply::json(400, &json!({"error": reason})),
        }
    }
}
