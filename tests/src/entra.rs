//! Entra's token endpoint: `/{tenant}/oauth2/v2.0/token` over TLS, for the client-credentials grant with a federated
//! assertion or a client secret.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ca::Leaf;
use crate::clock::{self, Clock};
use crate::recorder::RecordedRequest;
use crate::reply::{Received, Reply};
use crate::script::Script;
use crate::secrets::Secrets;
use crate::server::{Endpoint, Handler};
use crate::token::{IssuedToken, Mint, Principal, decode_claims, guid, random_secret};

/// The one value of `client_assertion_type` that there is.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The scopes of `openid` and its kin, which name no resource.
const OPENID_SCOPES: [&str; 3] = ["openid", "profile", "offline_access"];

/// How an [`Entra`] double behaves when nothing else is said.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntraOptions {
    /// Where it listens.
    pub bind: SocketAddr,
    /// The application; its tenant is the one tenant known.
    pub application: Principal,
    /// Its client secret; a random one when `None`.
    pub client_secret: Option<String>,
    /// The `aud` an assertion must have.
    pub assertion_audience: String,
    /// The `iss` of the federated credential; any, when `None`.
    pub assertion_issuer: Option<String>,
    /// The `sub` of the federated credential; any, when `None`.
    pub assertion_subject: Option<String>,
    /// The tenant that the application is registered in, where it is another than the one it acts in: tokens that Entra
    /// itself issued in any other are no assertions for it (AADSTS700236).
    pub home_tenant: Option<String>,
    /// Resources that don't exist in the tenant.
    pub refused_resources: Vec<String>,
    /// Seconds that a token lives.
    pub lifetime: i64,
}

impl Default for EntraOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            application: Principal::application(),
            client_secret: None,
            assertion_audience: "api://AzureADTokenExchange".to_owned(),
            assertion_issuer: None,
            assertion_subject: None,
            home_tenant: None,
            refused_resources: Vec::new(),
            lifetime: 86_400,
        }
    }
}

/// The authority, for one tenant and one application.
#[derive(Debug)]
pub struct Entra {
    endpoint: Endpoint,
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    options: EntraOptions,
    client_secret: String,
    clock: Clock,
    mint: Mint,
    secrets: Secrets,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: BTreeSet<String>,
    stale: BTreeSet<String>,
    no_federated_credential: bool,
    not_added: bool,
}

impl Entra {
    /// Starts the endpoint with this certificate.
    pub fn start(options: EntraOptions, leaf: &Leaf) -> io::Result<Self> {
        let (clock, secrets) = (Clock::new(), Secrets::new());
        let client_secret = options.client_secret.clone().unwrap_or_else(random_secret);
        secrets.add("client secret", &client_secret);
        let core = Arc::new(Core {
            mint: Mint::new("entra", options.lifetime, clock.clone(), secrets.clone()),
            client_secret,
            clock: clock.clone(),
            secrets,
            state: Mutex::default(),
            options,
        });
        let handler: Arc<Core> = Arc::clone(&core);
        let tls = Some(leaf.server_config()?);
        let endpoint = Endpoint::start("entra", core.options.bind, tls, clock, handler)?;
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

    /// `AZURE_AUTHORITY_HOST`, by address.
    #[must_use]
    pub fn authority(&self) -> String {
        self.endpoint.url("")
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &EntraOptions {
        &self.core.options
    }

    /// The client secret that it takes.
    #[must_use]
    pub fn client_secret(&self) -> &str {
        &self.core.client_secret
    }

    /// What a pod with workload identity finds in its environment, its assertion being in `file`.
    #[must_use]
    pub fn environment(&self, file: &str) -> Vec<(String, String)> {
        let application = &self.core.options.application;
        vec![
            ("AZURE_AUTHORITY_HOST".to_owned(), self.endpoint.url("/")),
            ("AZURE_TENANT_ID".to_owned(), application.tenant_id.clone()),
            ("AZURE_CLIENT_ID".to_owned(), application.client_id.clone()),
            ("AZURE_FEDERATED_TOKEN_FILE".to_owned(), file.to_owned()),
        ]
    }

    /// A new assertion that it takes for `lifetime` seconds, as a cluster's issuer would sign it; unlike any other.
    #[must_use]
    pub fn new_assertion(&self, lifetime: i64) -> String {
        let core = &self.core;
        let options = &core.options;
        let mint = Mint::new(
            "assertion",
            lifetime,
            core.clock.clone(),
            core.secrets.clone(),
        );
        let issuer = options
            .assertion_issuer
            .as_deref()
            .unwrap_or("https://oidc.example.org/");
        let subject = options
            .assertion_subject
            .as_deref()
            .unwrap_or("system:serviceaccount:training:job");
        mint.set_claims([
            ("iss".to_owned(), json!(issuer)),
            ("sub".to_owned(), json!(subject)),
            ("oid".to_owned(), Value::Null),
            ("tid".to_owned(), Value::Null),
            ("appid".to_owned(), Value::Null),
            ("idtyp".to_owned(), Value::Null),
        ]);
        mint.issue(&options.application, &options.assertion_audience)
            .token
    }

    /// From now on every assertion seen so far is out of date (AADSTS700024); a new one is not.
    pub fn expire_seen_assertions(&self) {
        let mut state = self.core.lock();
        let seen = state.seen.clone();
        state.stale.extend(seen);
    }

    /// Takes the federated credential away (AADSTS70021), or puts it back.
    pub fn remove_federated_credential(&self, removed: bool) {
        self.core.lock().no_federated_credential = removed;
    }

    /// Takes the application out of the tenant it acts in (AADSTS7000229), or adds it again.
    pub fn remove_service_principal(&self, removed: bool) {
        self.core.lock().not_added = removed;
    }

    /// What mints its tokens.
    #[must_use]
    pub fn mint(&self) -> &Mint {
        &self.core.mint
    }

    /// Every token handed out.
    #[must_use]
    pub fn tokens(&self) -> Vec<IssuedToken> {
        self.core.mint.issued()
    }

    /// Every secret in play here, assertions included.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.core.secrets
    }
}

/// An error of the endpoint, in its own words.
struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    words: String,
}

fn refusal(status: u16, error: &'static str, code: u32, words: impl Into<String>) -> Refusal {
    Refusal {
        status,
        error,
        code,
        words: words.into(),
    }
}

fn missing(parameter: &str) -> Refusal {
    let words = format!("The request body must contain the following parameter: '{parameter}'.");
    refusal(400, "invalid_request", 900_144, words)
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, tenant: &str, request: &Received) -> Result<Reply, Refusal> {
        let application = &self.options.application;
        if !tenant.eq_ignore_ascii_case(&application.tenant_id) {
            let words = format!("Tenant '{tenant}' not found.");
            return Err(refusal(400, "invalid_request", 90_002, words));
        }
        let content_type = request.header("content-type").unwrap_or_default();
        if !content_type.starts_with("application/x-www-form-urlencoded") {
            return Err(missing("grant_type"));
        }
        let form = request.form();
        let field = |name: &str| {
            form.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        match field("grant_type").ok_or_else(|| missing("grant_type"))? {
            "client_credentials" => {}
            other => {
                let words = format!("The app requested an unsupported grant type '{other}'.");
                return Err(refusal(400, "unsupported_grant_type", 70_003, words));
            }
        }
        let client_id = field("client_id").ok_or_else(|| missing("client_id"))?;
        if !client_id.eq_ignore_ascii_case(&application.client_id) {
            let words = format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant}'."
            );
            return Err(refusal(400, "unauthorized_client", 700_016, words));
        }
        if self.lock().not_added {
            let words = format!(
                "The client application {client_id} is missing service principal in the tenant {tenant}."
            );
            return Err(refusal(401, "invalid_client", 7_000_229, words));
        }
        match (field("client_assertion"), field("client_secret")) {
            (Some(assertion), _) => {
                self.check_assertion(assertion, field("client_assertion_type"))?;
            }
            (None, Some(secret)) if secret == self.client_secret => {}
            (None, Some(_)) => {
                let words = "Invalid client secret provided.";
                return Err(refusal(401, "invalid_client", 7_000_215, words));
            }
            (None, None) => {
                let words = "The request body must contain the following parameter: 'client_assertion' or \
                             'client_secret'.";
                return Err(refusal(401, "invalid_client", 7_000_218, words));
            }
        }
        let scope = field("scope").ok_or_else(|| missing("scope"))?;
        let Some(resource) = resource_of(scope) else {
            let words = format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value \
                 with /.default suffixed to the resource identifier (application ID URI)."
            );
            return Err(refusal(400, "invalid_scope", 1_002_012, words));
        };
        if self
            .options
            .refused_resources
            .iter()
            .any(|refused| refused == resource)
        {
            let words = format!(
                "The resource principal named {resource} was not found in the tenant named {tenant}."
            );
            return Err(refusal(400, "invalid_resource", 500_011, words));
        }
        let issued = self.mint.issue(application, resource);
        let left = issued.expires_on.saturating_sub(self.clock.now());
        Ok(Reply::json(
            200,
            &json!({
                "token_type": "Bearer",
                "expires_in": left,
                "ext_expires_in": left,
                "access_token": issued.token,
            }),
        ))
    }

    fn check_assertion(&self, assertion: &str, form: Option<&str>) -> Result<(), Refusal> {
        self.secrets.add("assertion", assertion);
        if form != Some(ASSERTION_TYPE) {
            return Err(missing("client_assertion_type"));
        }
        let Some(claims) = decode_claims(assertion) else {
            let words = "Client assertion is not a valid JWT.";
            return Err(refusal(401, "invalid_client", 50_027, words));
        };
        let mut state = self.lock();
        state.seen.insert(assertion.to_owned());
        let now = self.clock.now();
        let time = |name: &str| claims.get(name).and_then(Value::as_i64);
        let expired = time("exp").is_none_or(|exp| exp <= now);
        let early = time("nbf").is_some_and(|nbf| nbf > now + 300);
        if expired || early || state.stale.contains(assertion) {
            let words = format!(
                "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, \
                 expiry time of assertion {}.",
                self.clock.http_date(0),
                time("nbf").unwrap_or_default(),
                time("exp").unwrap_or_default(),
            );
            return Err(refusal(401, "invalid_client", 700_024, words));
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        // A service account's token has a list of audiences.
        let audience = claims
            .get("aud")
            .and_then(|aud| aud.as_str().or_else(|| aud.get(0)?.as_str()));
        let no_match = |code, what: &str| {
            let words = format!(
                "No matching federated identity record found for presented assertion {what}."
            );
            Err(refusal(401, "invalid_client", code, words))
        };
        let expected = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == found)
        };
        let own = text("iss").and_then(|issuer| {
            issuer
                .strip_prefix("https://login.microsoftonline.com/")?
                .strip_suffix("/v2.0")
        });
        if let (Some(issuer), Some(home)) = (own, &self.options.home_tenant)
            && issuer != home
        {
            let words = format!(
                "Entra ID tokens issued by issuer 'https://login.microsoftonline.com/{issuer}/v2.0' may not be used for federated \
                 identity credential flows for applications or managed identities registered in this tenant."
            );
            return Err(refusal(401, "invalid_client", 700_236, words));
        }
        if audience != Some(self.options.assertion_audience.as_str()) {
            return no_match(700_212, "audience");
        }
        if !expected(&self.options.assertion_issuer, text("iss")) {
            return no_match(700_211, "issuer");
        }
        if !expected(&self.options.assertion_subject, text("sub")) {
            return no_match(700_213, "subject");
        }
        if state.no_federated_credential {
            return no_match(70_021, "issuer and subject");
        }
        Ok(())
    }

    fn refused(&self, refusal: &Refusal) -> Reply {
        let (trace, correlation) = (guid(), guid());
        let date = clock::at(self.clock.now());
        let timestamp = format!(
            "{} {:02}:{:02}:{:02}Z",
            date.date(),
            date.hour(),
            date.minute(),
            date.second()
        );
        let description = format!(
            "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}",
            refusal.code, refusal.words
        );
        Reply::json(
            refusal.status,
            &json!({
                "error": refusal.error,
                "error_description": description,
                "error_codes": [refusal.code],
                "timestamp": timestamp,
                "trace_id": trace,
                "correlation_id": correlation,
                "error_uri": format!("https://login.microsoftonline.com/error?code={}", refusal.code),
            }),
        )
    }

    /// What clients that check the authority first ask for.
    fn metadata(tenant: &str, request: &Received) -> Reply {
        let host = request.header("host").unwrap_or_default();
        let base = format!("https://{host}/{tenant}");
        Reply::json(
            200,
            &json!({
                "issuer": format!("{base}/v2.0"),
                "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
                "token_endpoint": format!("{base}/oauth2/v2.0/token"),
                "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
                "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            }),
        )
    }

    /// What MSAL asks first, to learn whether it knows the authority and by which names.
    fn instances(&self, request: &Received) -> Reply {
        let host = request.header("host").unwrap_or_default();
        let tenant = &self.options.application.tenant_id;
        Reply::json(
            200,
            &json!({
                "tenant_discovery_endpoint": format!("https://{host}/{tenant}/v2.0/.well-known/openid-configuration"),
                "api-version": "1.1",
                "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
            }),
        )
    }
}

/// The one resource of a scope. MSAL adds `openid` and its kin in any order, and Entra ignores them here.
fn resource_of(scope: &str) -> Option<&str> {
    let mut wanted = scope
        .split(' ')
        .filter(|word| !OPENID_SCOPES.contains(word));
    let resource = wanted.next()?.strip_suffix("/.default")?;
    wanted.next().is_none().then_some(resource)
}

impl Handler for Core {
    fn answer(&self, request: &Received) -> Reply {
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        match path.as_slice() {
            [tenant, "oauth2", "v2.0", "token"] if request.method == Method::POST => self
                .issue(tenant, request)
                .unwrap_or_else(|refusal| self.refused(&refusal)),
            [tenant, "v2.0", ".well-known", "openid-configuration"] => {
                Self::metadata(tenant, request)
            }
            ["common", "discovery", "instance"] => self.instances(request),
            _ => Reply::status(404),
        }
    }
}
