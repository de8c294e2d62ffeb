//! The Azure ML identity responder: the managed-identity endpoint (`/MSI/auth`, api-version 2017-09-01) and the
//! on-behalf-of endpoint (`/OBO/token`), each on a port of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Clock;
use crate::identity::{ExpiryForm, Identities};
use crate::recorder::RecordedRequest;
use crate::reply::{Received, Reply};
use crate::script::Script;
use crate::secrets::Secrets;
use crate::server::{Endpoint, Handler};
use crate::token::{IssuedToken, Mint, Principal, is_guid, random_secret};

/// What the responder says to a wrong or missing `secret`, word for word.
const WRONG_SECRET: &str = "Invalid secret token header: .";

/// What it says where it has no token of that kind to give.
const SSO_FAILURE: &str =
    "SSO failure: unable to retrieve a token. Error Token service doubles-ci. Token not found";

/// How a request that names no identity is treated. *No identity*: `clientid` absent, or not a GUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutClientId {
    /// 400: a cluster that has user-assigned identities only.
    #[default]
    Refuse,
    /// 400 when `clientid` is absent, a token of the first identity when it is there and empty.
    RefuseUnlessEmpty,
    /// A token of the first identity.
    FirstIdentity,
    /// 200 with *the user's* token: a compute instance with single sign-on.
    SignedInUser,
}

/// In which form the responder says that the user's grant has ended. The real form is not established, so a client
/// has to cope with each; all are a 400.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantEnd {
    /// Entra's own words: JSON with `invalid_grant` and AADSTS70008.
    #[default]
    Json,
    /// The same words as `text/plain`.
    Text,
    /// `text/plain` that names no code.
    Failure,
    /// An empty body.
    Empty,
}

/// How an [`AzureMl`] double behaves when nothing else is said.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AzureMlOptions {
    /// Where the managed-identity endpoint listens.
    pub bind: SocketAddr,
    /// Where the on-behalf-of endpoint listens.
    pub obo_bind: SocketAddr,
    /// `MSI_SECRET`; a random one when `None`.
    pub secret: Option<String>,
    /// The status of a wrong secret. Not established; the text is.
    pub wrong_secret_status: u16,
    /// The compute's identities.
    pub identities: Identities,
    /// The signed-in, or submitting, user.
    pub user: Principal,
    /// What a request without `clientid` gets.
    pub without_client_id: WithoutClientId,
    /// Resources that the managed-identity endpoint has no token for (400, text): the registry audience, on some.
    pub refused_resources: Vec<String>,
    /// Seconds that a managed identity's token lives.
    pub lifetime: i64,
    /// Seconds that a user's token lives.
    pub user_lifetime: i64,
    /// How the managed-identity endpoint writes times.
    pub expiry: ExpiryForm,
    /// How the on-behalf-of endpoint writes times.
    pub obo_expiry: ExpiryForm,
    /// Whether the on-behalf-of endpoint demands `secret` too, as on compute instances.
    pub obo_requires_secret: bool,
    /// The form of the answer once the user's grant has ended.
    pub grant_end: GrantEnd,
}

impl Default for AzureMlOptions {
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            bind: loopback,
            obo_bind: loopback,
            secret: None,
            wrong_secret_status: 400,
            identities: Identities::default(),
            user: Principal::user(),
            without_client_id: WithoutClientId::default(),
            refused_resources: Vec::new(),
            lifetime: 86_400,
            user_lifetime: 3600,
            expiry: ExpiryForm::Integer,
            obo_expiry: ExpiryForm::Integer,
            obo_requires_secret: false,
            grant_end: GrantEnd::default(),
        }
    }
}

/// The Azure ML responder of one compute.
#[derive(Debug)]
pub struct AzureMl {
    msi: Endpoint,
    obo: Endpoint,
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    options: AzureMlOptions,
    secret: String,
    clock: Clock,
    mint: Mint,
    user_mint: Mint,
    secrets: Secrets,
    grant_ended: AtomicBool,
}

impl AzureMl {
    /// Starts both endpoints.
    pub fn start(options: AzureMlOptions) -> io::Result<Self> {
        let (clock, secrets) = (Clock::new(), Secrets::new());
        let secret = options.secret.clone().unwrap_or_else(random_secret);
        secrets.add("MSI_SECRET", &secret);
        let core = Arc::new(Core {
            mint: Mint::new("azure_ml", options.lifetime, clock.clone(), secrets.clone()),
            user_mint: Mint::new(
                "azure_ml user",
                options.user_lifetime,
                clock.clone(),
                secrets.clone(),
            ),
            secret,
            clock: clock.clone(),
            secrets,
            grant_ended: AtomicBool::new(false),
            options,
        });
        let msi = Arc::new(Msi(Arc::clone(&core)));
        let obo = Arc::new(Obo(Arc::clone(&core)));
        Ok(Self {
            msi: Endpoint::start("msi", core.options.bind, None, clock.clone(), msi)?,
            obo: Endpoint::start("obo", core.options.obo_bind, None, clock, obo)?,
            core,
        })
    }

    /// The managed-identity endpoint.
    #[must_use]
    pub fn msi(&self) -> &Endpoint {
        &self.msi
    }

    /// The on-behalf-of endpoint.
    #[must_use]
    pub fn obo(&self) -> &Endpoint {
        &self.obo
    }

    /// The script of the managed-identity endpoint.
    #[must_use]
    pub fn script(&self) -> &Script {
        self.msi.script()
    }

    /// The requests to the managed-identity endpoint.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.msi.requests()
    }

    /// `MSI_ENDPOINT`.
    #[must_use]
    pub fn msi_endpoint(&self) -> String {
        self.msi.url("/MSI/auth")
    }

    /// `OBO_ENDPOINT`.
    #[must_use]
    pub fn obo_endpoint(&self) -> String {
        self.obo.url("/OBO/token")
    }

    /// `MSI_SECRET`.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.core.secret
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &AzureMlOptions {
        &self.core.options
    }

    /// What a job on this compute finds in its environment, user identity not enabled.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("MSI_ENDPOINT".to_owned(), self.msi_endpoint()),
            ("MSI_SECRET".to_owned(), self.core.secret.clone()),
        ];
        if let Some(first) = self.core.options.identities.first() {
            variables.push((
                "DEFAULT_IDENTITY_CLIENT_ID".to_owned(),
                first.client_id.clone(),
            ));
        }
        variables
    }

    /// What a job with user identity finds: [`AzureMl::environment`] and the on-behalf-of variables.
    #[must_use]
    pub fn user_environment(&self) -> Vec<(String, String)> {
        let mut variables = self.environment();
        variables.push(("AZUREML_OBO_ENABLED".to_owned(), "True".to_owned()));
        variables.push(("OBO_ENDPOINT".to_owned(), self.obo_endpoint()));
        variables
    }

    /// What mints the tokens of managed identities.
    #[must_use]
    pub fn mint(&self) -> &Mint {
        &self.core.mint
    }

    /// What mints the user's tokens, on either endpoint.
    #[must_use]
    pub fn user_mint(&self) -> &Mint {
        &self.core.user_mint
    }

    /// Every token handed out, those of managed identities first.
    #[must_use]
    pub fn tokens(&self) -> Vec<IssuedToken> {
        let mut tokens = self.core.mint.issued();
        tokens.extend(self.core.user_mint.issued());
        tokens
    }

    /// Every secret in play here.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.core.secrets
    }

    /// Ends the user's grant (`true`), or restores it.
    pub fn end_user_grant(&self, ended: bool) {
        self.core.grant_ended.store(ended, Ordering::SeqCst);
    }
}

impl Core {
    fn has_secret(&self, request: &Received) -> bool {
        request.header("secret") == Some(self.secret.as_str())
    }

    fn wrong_secret(&self) -> Reply {
        Reply::text(self.options.wrong_secret_status, WRONG_SECRET)
    }

    fn token(&self, mint: &Mint, principal: &Principal, resource: &str, form: ExpiryForm) -> Reply {
        let issued = mint.issue(principal, resource);
        let body = form.body(&issued, self.clock.now(), true, Some(&principal.client_id));
        Reply::json(200, &body)
    }
}

struct Msi(Arc<Core>);

impl Handler for Msi {
    fn answer(&self, request: &Received) -> Reply {
        let core = &self.0;
        let options = &core.options;
        if !matches!(request.path.as_str(), "/MSI/auth" | "/MSI/token") {
            return Reply::text(404, "404 page not found");
        }
        if request.method != Method::GET {
            return Reply::text(405, "Method not allowed");
        }
        if !core.has_secret(request) {
            return core.wrong_secret();
        }
        if request.parameter("api-version") != Some("2017-09-01") {
            return Reply::text(400, "Unsupported api-version");
        }
        let Some(resource) = request
            .parameter("resource")
            .filter(|resource| !resource.is_empty())
        else {
            return Reply::text(400, "Missing resource");
        };
        if options
            .refused_resources
            .iter()
            .any(|refused| same_resource(refused, resource))
        {
            return Reply::text(400, SSO_FAILURE);
        }
        let first = options.identities.first();
        let client_id = request.parameter("clientid");
        let principal = match client_id {
            Some(client_id) if is_guid(client_id) => options.identities.by_client_id(client_id),
            _ => match options.without_client_id {
                WithoutClientId::SignedInUser => {
                    return core.token(&core.user_mint, &options.user, resource, options.expiry);
                }
                WithoutClientId::FirstIdentity => first,
                WithoutClientId::RefuseUnlessEmpty => first.filter(|_| client_id == Some("")),
                WithoutClientId::Refuse => None,
            },
        };
        match principal {
            Some(principal) => core.token(&core.mint, principal, resource, options.expiry),
            None => Reply::text(
                400,
                "InternalError - :{ Info: Request failure status code: 400 }",
            ),
        }
    }
}

struct Obo(Arc<Core>);

impl Handler for Obo {
    fn answer(&self, request: &Received) -> Reply {
        let core = &self.0;
        if request.path != "/OBO/token" {
            return Reply::text(404, "404 page not found");
        }
        if request.method != Method::GET {
            return Reply::text(405, "Method not allowed");
        }
        if core.options.obo_requires_secret && !core.has_secret(request) {
            return core.wrong_secret();
        }
        let Some(resource) = request
            .parameter("resource")
            .filter(|resource| !resource.is_empty())
        else {
            return Reply::text(400, "Missing resource");
        };
        if core.grant_ended.load(Ordering::SeqCst) {
            return grant_end(core.options.grant_end);
        }
        let form = core.options.obo_expiry;
        core.token(&core.user_mint, &core.options.user, resource, form)
    }
}

fn grant_end(form: GrantEnd) -> Reply {
    let words = "AADSTS70008: The provided authorization code or refresh token has expired due to inactivity. \
                 Send a new interactive authorization request for this user and resource.";
    match form {
        GrantEnd::Json => Reply::json(
            400,
            &json!({"error": "invalid_grant", "error_description": words, "error_codes": [70008]}),
        ),
        GrantEnd::Text => Reply::text(400, &format!("invalid_grant: {words}")),
        GrantEnd::Failure => Reply::text(400, SSO_FAILURE),
        GrantEnd::Empty => Reply::status(400),
    }
}

fn same_resource(left: &str, right: &str) -> bool {
    left.trim_end_matches('/') == right.trim_end_matches('/')
}
