//! An endpoint by which another process scripts and reads a set of doubles.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::acr::AcrOptions;
use crate::clock::Clock;
use crate::doubles::Doubles;
use crate::reply::{Received, Reply};
use crate::script::{Behavior, OnConnect};
use crate::server::{Endpoint, Handler};
use crate::token::Principal;

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
