//! The App Service identity endpoint, api-version 2019-08-01.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

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
use crate::token::{IssuedToken, Mint, Principal, guid, random_secret};

const PATH: &str = "/msi/token";

/// How an [`AppService`] double behaves when nothing else is said.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppServiceOptions {
    /// Where it listens.
    pub bind: SocketAddr,
    /// `IDENTITY_HEADER`; a random one when `None`.
    pub header: Option<String>,
    /// The app's identities.
    pub identities: Identities,
    /// Resources that get the platform's vague 500.
    pub refused_resources: Vec<String>,
    /// Seconds that a token lives.
    pub lifetime: i64,
    /// How times are written.
    pub expiry: ExpiryForm,
}

impl Default for AppServiceOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            header: None,
            identities: Identities::system(),
            refused_resources: Vec::new(),
            lifetime: 86_400,
            expiry: ExpiryForm::Text,
        }
    }
}

/// The identity endpoint of one app.
#[derive(Debug)]
pub struct AppService {
    endpoint: Endpoint,
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    options: AppServiceOptions,
    header: String,
    clock: Clock,
    mint: Mint,
    secrets: Secrets,
}

impl AppService {
    /// Starts the endpoint.
    pub fn start(options: AppServiceOptions) -> io::Result<Self> {
        let (clock, secrets) = (Clock::new(), Secrets::new());
        let header = options.header.clone().unwrap_or_else(random_secret);
        secrets.add("IDENTITY_HEADER", &header);
        let core = Arc::new(Core {
            mint: Mint::new(
                "app_service",
                options.lifetime,
                clock.clone(),
                secrets.clone(),
            ),
            header,
            clock: clock.clone(),
            secrets,
            options,
        });
        let handler: Arc<Core> = Arc::clone(&core);
        let endpoint = Endpoint::start("app_service", core.options.bind, None, clock, handler)?;
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

    /// `IDENTITY_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.endpoint.url(PATH)
    }

    /// `IDENTITY_HEADER`.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.core.header
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &AppServiceOptions {
        &self.core.options
    }

    /// What the app finds in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("IDENTITY_ENDPOINT".to_owned(), self.url()),
            ("IDENTITY_HEADER".to_owned(), self.core.header.clone()),
        ]
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

    /// Every secret in play here.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.core.secrets
    }
}

impl Core {
    fn principal(&self, request: &Received) -> Option<&Principal> {
        let identities = &self.options.identities;
        let object_id = request
            .parameter("object_id")
            .or_else(|| request.parameter("principal_id"));
        if let Some(client_id) = request.parameter("client_id") {
            identities.by_client_id(client_id)
        } else if let Some(object_id) = object_id {
            identities.by_object_id(object_id)
        } else if let Some(resource_id) = request.parameter("mi_res_id") {
            identities.by_resource_id(resource_id)
        } else {
            identities.system.as_ref()
        }
    }
}

impl Handler for Core {
    fn answer(&self, request: &Received) -> Reply {
        if request.path != PATH {
            return error(404, "Not found");
        }
        if request.method != Method::GET {
            return error(405, "Method not allowed");
        }
        if request.header("x-identity-header") != Some(self.header.as_str()) {
            return error(401, "The identity header is missing or wrong");
        }
        if request.parameter("api-version") != Some("2019-08-01") {
            return error(400, "Unsupported api-version");
        }
        let Some(resource) = request
            .parameter("resource")
            .filter(|resource| !resource.is_empty())
        else {
            return error(400, "The resource is missing");
        };
        if self
            .options
            .refused_resources
            .iter()
            .any(|refused| refused == resource)
        {
            return error(
                500,
                "An unexpected error occured while fetching the AAD Token.",
            );
        }
        match self.principal(request) {
            None => error(400, "No managed identity was found for the request"),
            Some(principal) => {
                let issued = self.mint.issue(principal, resource);
                let client_id = Some(principal.client_id.as_str());
                let body = self
                    .options
                    .expiry
                    .body(&issued, self.clock.now(), false, client_id);
                Reply::json(200, &body)
            }
        }
    }
}

fn error(status: u16, message: &str) -> Reply {
    let body = json!({"statusCode": status, "message": message, "correlationId": guid()});
    Reply::json(status, &body)
}
