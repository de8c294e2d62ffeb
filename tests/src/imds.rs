//! The instance metadata service's token endpoint, with the limits that the real one has.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::identity::{ExpiryForm, Identities};
use crate::recorder::RecordedRequest;
use crate::reply::{Received, Reply};
use crate::script::{Behavior, Script};
use crate::secrets::Secrets;
use crate::server::{Endpoint, Handler};
use crate::token::{IssuedToken, Mint, Principal};

/// The token path. The real service also takes it with a trailing slash.
const PATH: &str = "/metadata/identity/oauth2/token";

/// How an [`Imds`] double behaves when nothing else is said.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImdsOptions {
    /// Where it listens. `169.254.169.254:80` serves unmodified clients; in a namespace of the test's own only.
    pub bind: SocketAddr,
    /// The machine's identities.
    pub identities: Identities,
    /// Resources that get `invalid_resource`.
    pub refused_resources: Vec<String>,
    /// Seconds that a token lives.
    pub lifetime: i64,
    /// Requests in one second beyond which there is a 429; 0 for no limit. The real limit for identity is 20.
    pub requests_per_second: usize,
    /// Requests at once beyond which there is a 429; 0 for no limit. The real limit for identity is 5.
    pub concurrent_requests: usize,
}

impl Default for ImdsOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            identities: Identities::default(),
            refused_resources: Vec::new(),
            lifetime: 86_400,
            requests_per_second: 20,
            concurrent_requests: 5,
        }
    }
}

/// The metadata service of one machine.
#[derive(Debug)]
pub struct Imds {
    endpoint: Endpoint,
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    options: ImdsOptions,
    clock: Clock,
    mint: Mint,
    secrets: Secrets,
    admitted: Mutex<VecDeque<Instant>>,
}

impl Imds {
    /// Starts the endpoint.
    pub fn start(options: ImdsOptions) -> io::Result<Self> {
        let (clock, secrets) = (Clock::new(), Secrets::new());
        let core = Arc::new(Core {
            mint: Mint::new("imds", options.lifetime, clock.clone(), secrets.clone()),
            clock: clock.clone(),
            secrets,
            admitted: Mutex::default(),
            options,
        });
        let handler: Arc<Core> = Arc::clone(&core);
        let endpoint = Endpoint::start("imds", core.options.bind, None, clock, handler)?;
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

    /// The token URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.endpoint.url(PATH)
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &ImdsOptions {
        &self.core.options
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

    /// The service is being updated: 410 for the next `requests`. The real window is 70 s at most.
    pub fn update_for(&self, requests: usize) {
        self.script().push_times(Behavior::status(410), requests);
    }
}

impl Core {
    fn over_the_limit(&self, request: &Received) -> bool {
        let options = &self.options;
        if options.concurrent_requests > 0 && request.in_flight > options.concurrent_requests {
            return true;
        }
        if options.requests_per_second == 0 {
            return false;
        }
        let now = Instant::now();
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        while admitted
            .front()
            .is_some_and(|first| now.duration_since(*first) >= Duration::from_secs(1))
        {
            admitted.pop_front();
        }
        if admitted.len() >= options.requests_per_second {
            return true;
        }
        admitted.push_back(now);
        false
    }

    /// The identity a request means: the named one; else the system-assigned one if enabled, else the sole
    /// user-assigned one.
    fn principal(&self, request: &Received) -> Result<&Principal, &'static str> {
        const NOT_FOUND: &str = "Identity not found";
        let identities = &self.options.identities;
        if let Some(client_id) = request.parameter("client_id") {
            return identities.by_client_id(client_id).ok_or(NOT_FOUND);
        }
        if let Some(object_id) = request.parameter("object_id") {
            return identities.by_object_id(object_id).ok_or(NOT_FOUND);
        }
        let resource_id = request
            .parameter("msi_res_id")
            .or_else(|| request.parameter("mi_res_id"));
        if let Some(resource_id) = resource_id {
            return identities.by_resource_id(resource_id).ok_or(NOT_FOUND);
        }
        match (&identities.system, identities.user_assigned.as_slice()) {
            (Some(principal), _) | (None, [principal]) => Ok(principal),
            (None, []) => Err(NOT_FOUND),
            (None, _) => Err(
                "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity \
                 in the token request",
            ),
        }
    }
}

impl Handler for Core {
    fn refuse(&self, request: &Received) -> Option<Reply> {
        // The body of a real 429 is not established.
        self.over_the_limit(request).then(|| {
            Reply::json(
                429,
                &json!({"error": "too_many_requests", "error_description": "Temporarily throttled, too many requests"}),
            )
        })
    }

    fn answer(&self, request: &Received) -> Reply {
        if request.path.strip_suffix('/').unwrap_or(&request.path) != PATH {
            return Reply::json(
                404,
                &json!({"error": "not_found", "error_description": "Not found"}),
            );
        }
        if request.method != Method::GET {
            return error(405, "method_not_allowed", "Method not allowed");
        }
        let metadata = request.header("metadata").unwrap_or_default();
        if !metadata.eq_ignore_ascii_case("true") {
            return error(
                400,
                "bad_request_102",
                "Required metadata header not specified",
            );
        }
        if !matches!(
            request.parameter("api-version"),
            Some("2018-02-01" | "2019-08-01")
        ) {
            return error(
                400,
                "invalid_request",
                "Required api-version is missing or not supported",
            );
        }
        let Some(resource) = request
            .parameter("resource")
            .filter(|resource| !resource.is_empty())
        else {
            return error(
                400,
                "invalid_request",
                "Required audience parameter not specified",
            );
        };
        if self
            .options
            .refused_resources
            .iter()
            .any(|refused| refused == resource)
        {
            let words = format!(
                "AADSTS50001: The resource principal named {resource} was not found in the tenant."
            );
            return error(400, "invalid_resource", &words);
        }
        match self.principal(request) {
            Err(words) => error(400, "invalid_request", words),
            Ok(principal) => {
                let issued = self.mint.issue(principal, resource);
                let mut body = ExpiryForm::Text.body(
                    &issued,
                    self.clock.now(),
                    true,
                    Some(&principal.client_id),
                );
                if let Some(fields) = body.as_object_mut() {
                    fields.insert("not_before".into(), json!(issued.issued_on.to_string()));
                    fields.insert(
                        "ext_expires_in".into(),
                        fields.get("expires_in").cloned().into(),
                    );
                }
                Reply::json(200, &body)
            }
        }
    }
}

fn error(status: u16, code: &str, words: &str) -> Reply {
    Reply::json(status, &json!({"error": code, "error_description": words}))
}
