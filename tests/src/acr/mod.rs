//! An Azure container registry: the challenge, `/oauth2/exchange` and `/oauth2/token` over TLS, in front of a real
//! registry that keeps the images.

mod options;
mod signer;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::ca::Leaf;
use crate::clock::Clock;
use crate::recorder::RecordedRequest;
use crate::reply::{Received, Reply};
use crate::script::Script;
use crate::secrets::Secrets;
use crate::server::{Endpoint, Handler};
use crate::token::{decode_claims, guid};

use self::signer::Signer;

pub use self::options::AcrOptions;

/// The user name that says that the password is a registry token.
pub const NULL_GUID: &str = "00000000-0000-0000-0000-000000000000";

/// `iss` of a registry's tokens, and what a registry behind the double is told to expect.
const ISSUER: &str = "Azure Container Registry";

/// The audience of the registry service, in every cloud.
const ACR_AUDIENCE: &str = "https://containerregistry.azure.net";

/// The audiences of ARM, by cloud and by age.
const ARM_AUDIENCES: [&str; 6] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://management.chinacloudapi.cn",
    "https://management.core.chinacloudapi.cn",
    "https://management.usgovcloudapi.net",
    "https://management.core.usgovcloudapi.net",
];

/// One registry.
#[derive(Debug)]
pub struct Acr {
    endpoint: Endpoint,
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    options: Mutex<AcrOptions>,
    clock: Clock,
    signer: Signer,
    secrets: Secrets,
    refresh_tokens: Mutex<Vec<String>>,
    access_tokens: Mutex<Vec<String>>,
}

impl Acr {
    /// Starts the registry with this certificate.
    pub fn start(options: AcrOptions, leaf: &Leaf) -> io::Result<Self> {
        let clock = Clock::new();
        let bind = options.bind;
        let core = Arc::new(Core {
            options: Mutex::new(options),
            clock: clock.clone(),
            signer: Signer::new()?,
            secrets: Secrets::new(),
            refresh_tokens: Mutex::default(),
            access_tokens: Mutex::default(),
        });
        let handler: Arc<Core> = Arc::clone(&core);
        let endpoint = Endpoint::start("acr", bind, Some(leaf.server_config()?), clock, handler)?;
        Ok(Self { endpoint, core })
    }

    /// The one endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its script.
    #[must_use]
    pub fn script(&self) -> &Script {
        self.endpoint.script()
    }

    /// What it was asked.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.endpoint.requests()
    }

    /// What it goes by now.
    #[must_use]
    pub fn options(&self) -> AcrOptions {
        self.core.options().clone()
    }

    /// Changes its ways from the next request on.
    pub fn update(&self, change: impl FnOnce(&mut AcrOptions)) {
        change(&mut self.core.options());
    }

    /// The refresh tokens handed out, oldest first.
    #[must_use]
    pub fn refresh_tokens(&self) -> Vec<String> {
        self.core
            .refresh_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The access tokens handed out, oldest first.
    #[must_use]
    pub fn access_tokens(&self) -> Vec<String> {
        self.core
            .access_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Every secret in play here.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.core.secrets
    }

    /// Writes what `docker-registry serve` (distribution 2.8) needs to stand behind this double on
    /// `127.0.0.1:{port}`, images included, into `directory`; returns the configuration's path.
    pub fn write_registry_config(&self, directory: &Path, port: u16) -> io::Result<PathBuf> {
        let login_server = self.core.options().login_server.clone();
        let certificate = directory.join("registry-token.pem");
        std::fs::write(&certificate, self.core.signer.certificate_pem())?;
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": directory.join("registry")},
                "delete": {"enabled": true},
            },
            "http": {"addr": format!("127.0.0.1:{port}")},
            "auth": {"token": {
                "realm": format!("https://{login_server}/oauth2/token"),
                "service": login_server,
                "issuer": ISSUER,
                "rootcertbundle": certificate,
            }},
        });
        // JSON is YAML.
        let path = directory.join("registry.yml");
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }
}

/// What a client wants to do: one scope of `type:name:actions`.
fn parse_scope(scope: &str) -> Option<(&str, &str, Vec<&str>)> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some((kind, name, actions.split(',').collect()))
}

fn unauthorized(message: &str) -> Reply {
    error(401, "UNAUTHORIZED", message)
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(
        status,
        &json!({"errors": [{"code": code, "message": message, "detail": []}]}),
    )
    .with_header("x-ms-correlation-request-id", &guid())
}

impl Core {
    fn options(&self) -> MutexGuard<'_, AcrOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn firewalled(options: &AcrOptions) -> Option<Reply> {
        options.firewalled.then(|| {
            error(
                403,
                "DENIED",
                "client with IP '127.0.0.1' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.",
            )
        })
    }

    fn sign(&self, options: &AcrOptions, lifetime: i64, subject: &str, more: Value) -> String {
        let now = self.clock.now();
        let mut claims = json!({
            "iss": ISSUER,
            "aud": options.login_server,
            "sub": subject,
            "version": "1.0",
            "jti": guid(),
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(lifetime),
        });
        if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
            claims.extend(more);
        }
        self.signer.sign(&claims)
    }

    fn exchange(&self, options: &AcrOptions, request: &Received) -> Reply {
        let form = request.form();
        let field = |name: &str| {
            form.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        let offered = match field("grant_type") {
            Some("access_token") => field("access_token"),
            Some("access_token_refresh_token") => {
                field("access_token").or_else(|| field("refresh_token"))
            }
            _ => return error(400, "UNSUPPORTED", "the grant type is not supported"),
        };
        if field("service") != Some(options.login_server.as_str()) {
            return unauthorized("the service is not this registry");
        }
        let Some(claims) = offered.and_then(decode_claims) else {
            return unauthorized(
                "authentication required, visit https://aka.ms/acr/authorization for more information.",
            );
        };
        let audience = claims["aud"]
            .as_str()
            .unwrap_or_default()
            .trim_end_matches('/');
        let accepted =
            audience == ACR_AUDIENCE || (options.arm_allowed && ARM_AUDIENCES.contains(&audience));
        let live = claims["exp"]
            .as_i64()
            .is_some_and(|exp| exp > self.clock.now());
        if !accepted || !live {
            return unauthorized("token validation failed");
        }
        if options.denied {
            return error(403, "DENIED", "requested access to the resource is denied");
        }
        let subject = claims["oid"].as_str().unwrap_or("unknown");
        let mut more = json!({
            "tenant": claims["tid"],
            "grant_type": "refresh_token",
            "permissions": {"actions": ["read", "write", "delete"], "notActions": null},
            "roles": [],
        });
        if options.abac
            && let Value::Object(more) = &mut more
        {
            more.insert("aad_identity".into(), json!({"oid": claims["oid"]}));
        }
        let token = self.sign(options, options.refresh_lifetime, subject, more);
        let mut tokens = self
            .refresh_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tokens.push(token.clone());
        self.secrets
            .add(format!("registry refresh token {}", tokens.len()), &token);
        Reply::json(200, &json!({"refresh_token": token}))
            .with_header("x-ms-correlation-request-id", &guid())
    }

    fn knows_refresh_token(&self, token: &str) -> bool {
        let known = self
            .refresh_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|known| known == token);
        known && self.is_live(token)
    }

    fn is_live(&self, token: &str) -> bool {
        decode_claims(token)
            .and_then(|claims| claims["exp"].as_i64())
            .is_some_and(|exp| exp > self.clock.now())
    }

    /// `/oauth2/token`: a GET with Basic credentials, or a POST with a refresh token or a password.
    fn access_token(&self, options: &AcrOptions, request: &Received) -> Reply {
        let form = if request.method == Method::POST {
            request.form()
        } else {
            request.query.clone()
        };
        let field = |name: &str| {
            form.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        if field("service") != Some(options.login_server.as_str()) {
            return unauthorized("the service is not this registry");
        }
        let credentials = if request.method == Method::POST {
            match field("grant_type") {
                Some("refresh_token") => field("refresh_token").map(str::to_owned),
                Some("password") => match (field("username"), field("password")) {
                    (None, None) => None,
                    (Some(NULL_GUID), Some(password)) => Some(password.to_owned()),
                    _ => Some(String::new()),
                },
                _ => return error(400, "UNSUPPORTED", "the grant type is not supported"),
            }
        } else {
            basic(request)
        };
        let allowed: Vec<&str> = match &credentials {
            Some(token) if self.knows_refresh_token(token) => {
                options.actions.iter().map(String::as_str).collect()
            }
            None if options.anonymous_pull => vec!["pull"],
            _ => {
                return unauthorized(
                    "authentication required, visit https://aka.ms/acr/authorization for more information.",
                );
            }
        };
        let access: Vec<Value> = form
            .iter()
            .filter(|(name, _)| name == "scope")
            .flat_map(|(_, scopes)| scopes.split(' '))
            .filter_map(parse_scope)
            .filter(|(_, name, _)| !(options.abac && *name == "*"))
            .map(|(kind, name, actions)| {
                let granted: Vec<&str> = actions
                    .into_iter()
                    .filter(|action| {
                        kind == "registry" || *action == "*" || allowed.contains(action)
                    })
                    .collect();
                json!({"type": kind, "name": name, "actions": granted})
            })
            .collect();
        let more = json!({"grant_type": "access_token", "access": access});
        let token = self.sign(options, options.access_lifetime, "double", more);
        let mut tokens = self
            .access_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tokens.push(token.clone());
        self.secrets
            .add(format!("registry access token {}", tokens.len()), &token);
        Reply::json(200, &json!({"access_token": token}))
            .with_header("x-ms-correlation-request-id", &guid())
    }

    /// What stands in for a registry where there is none: the challenge, or an empty yes to a good access token.
    fn challenge(&self, options: &AcrOptions, request: &Received) -> Reply {
        let bearer = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let known = bearer.is_some_and(|token| {
            let tokens = self
                .access_tokens
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            tokens.iter().any(|known| known == token)
        });
        if known && bearer.is_some_and(|token| self.is_live(token)) {
            return Reply::json(200, &json!({}))
                .with_header("docker-distribution-api-version", "registry/2.0");
        }
        let realm_host = options.realm_host.as_ref().unwrap_or(&options.login_server);
        let challenge = format!(
            "Bearer realm=\"https://{realm_host}/oauth2/token\",service=\"{}\"",
            options.login_server
        );
        unauthorized(
            "authentication required, visit https://aka.ms/acr/authorization for more information.",
        )
        .with_header("www-authenticate", &challenge)
        .with_header("docker-distribution-api-version", "registry/2.0")
    }
}

/// The token in a Basic header: `None` without a header, empty when the user is another than the null GUID.
fn basic(request: &Received) -> Option<String> {
    let header = request.header("authorization")?;
    let token = header
        .strip_prefix("Basic ")
        .and_then(|encoded| STANDARD.decode(encoded.trim()).ok())
        .and_then(|decoded| String::from_utf8(decoded).ok())
        .and_then(|pair| {
            pair.strip_prefix(&format!("{NULL_GUID}:"))
                .map(str::to_owned)
        });
    Some(token.unwrap_or_default())
}

impl Handler for Core {
    fn answer(&self, request: &Received) -> Reply {
        let options = self.options().clone();
        if let Some(refused) = Self::firewalled(&options) {
            return refused;
        }
        match (request.path.as_str(), &request.method) {
            ("/oauth2/exchange", &Method::POST) => self.exchange(&options, request),
            ("/oauth2/token", &Method::POST | &Method::GET) => self.access_token(&options, request),
            ("/oauth2/exchange" | "/oauth2/token", _) => Reply::status(405),
            (path, _) if path.starts_with("/v2/") => self.challenge(&options, request),
            _ => Reply::status(404),
        }
    }

    fn upstream(&self, path: &str) -> Option<SocketAddr> {
        let options = self.options();
        let passed_on = !path.starts_with("/oauth2/") && !options.firewalled;
        options.upstream.filter(|_| passed_on)
    }
}
