//! The jobcred API: routes, and what each of them answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jobcred_wire::{
    Decider, ErrorCode, Explanation, LoginServer, PrincipalClaims, RegistryRequest, Status,
    TokenRequest,
};

use super::callers::Callers;
use super::dialect::Endpoints;
use super::guard;
use super::leases::Leases;
use super::metrics;
use super::readiness;
use super::reply::{self, Reply, RequestId, RequestIds};
use super::serve::Handle;
use super::turned_away::TurnedAway;
use crate::broker::{Broker, CachedToken, Want};
use crate::config::{Config, Dialect};
use crate::error::TokenError;
use crate::journal::{Event, Journal};
use crate::peer::{Admission, Peer};
use crate::platform::{Clock, UnixTime};
use crate::policy::{AuthorizedRequest, Decision, Policy};
use crate::principal::{Pin, Pinned};
use crate::token::Identity;
use crate::transport::Transport;

/// What the agent answers with: tokens, or the one reason why there are none.
#[derive(Debug)]
pub struct NativeApi {
    /// The part that serves tokens; the start-up error when there is none.
    pub service: Result<TokenService, TokenError>,
    /// Which uids the socket answers.
    pub admission: Admission,
    /// The selection with its evidence.
    pub explanation: Explanation,
    /// Strategy and configuration as a hash.
    pub fingerprint: String,
    /// When the agent started.
    pub started_on: UnixTime,
    /// The time.
    pub clock: Clock,
    /// Request ids.
    pub ids: RequestIds,
    /// Who asked.
    pub callers: Callers,
    /// Who counts on this agent.
    pub leases: Arc<Leases>,
    /// Where SDKs ask it over TCP.
    pub endpoints: Arc<Endpoints>,
    /// Whether somebody who counts on it was served by another decision before. Then nobody is served any more: a request does not
    /// tell who of them it comes from.
    pub disagreed: AtomicBool,
    /// The way out, where there is one, for what it has counted.
    pub transport: Option<Arc<Transport>>,
    /// Requests that were denied.
    pub denials: AtomicU64,
    /// Requests on the socket that were turned away before they were read.
    pub turned_away: TurnedAway,
    /// How often this job's agent was started again before.
    pub restarts: u32,
    /// Whether there are no tokens because of jobcred or of a setting of this machine. `/readyz` then says `internal`: no issuer has
    /// refused anything, and COMMAND must not be kept from starting.
    pub is_own_fault: bool,
    /// Where denials are written down.
    pub journal: Journal,
}

/// Policy, broker and pin of a chosen strategy.
#[derive(Debug)]
pub struct TokenService {
    /// What may be asked.
    pub policy: Policy,
    /// What is held.
    pub broker: Arc<Broker>,
    /// Whose tokens they are.
    pub pin: Arc<Pin>,
    /// Whether the source can ask a tenant other than the identity's own.
    pub honours_tenant: bool,
    /// Which hosts are registries besides those with a registry's name.
    pub settings: Arc<Config>,
}

impl Handle for NativeApi {
    async fn handle(&self, peer: Peer, request: Request<Incoming>) -> Reply {
        let id = self.ids.next();
        let (parts, _body) = request.into_parts();
        if let Err(error) = self.let_in(&peer, &parts) {
            self.turned_away.note(id, &peer, &error);
            self.count_denial(Some(peer.uid), peer.pid, &error);
            return reply::refuse_with(StatusCode::FORBIDDEN, id, &error);
        }
        let path = parts.uri.path();
        let query = parts.uri.query().unwrap_or_default();
        let outcome = match (path, &parts.method) {
            (jobcred_wire::TOKEN_PATH, &Method::GET) => {
                self.callers.note(peer.uid, peer.pid, self.clock.now());
                self.token(id, query).await
            }
            (jobcred_wire::REGISTRY_PATH, &Method::GET) => {
                self.callers.note(peer.uid, peer.pid, self.clock.now());
                self.registry(id, query).await
            }
            (jobcred_wire::REGISTRY_PATH, &Method::DELETE) => self.forget_registry(id, query),
            (jobcred_wire::EXPLAIN_PATH, &Method::GET) => Ok(reply::json(id, &self.explain())),
            (jobcred_wire::LEASE_PATH, &Method::GET) => self.lease(id, peer, query),
            (jobcred_wire::LEASE_PATH, &Method::POST) => self.note_failure(id, peer),
            (jobcred_wire::ENDPOINT_PATH, &Method::POST) => self.open_endpoint(id, peer, &parts),
            (jobcred_wire::ENDPOINT_PATH, &Method::GET) => self.show_endpoint(id, peer),
            (jobcred_wire::STATUS_PATH, &Method::GET) => Ok(reply::json(id, &self.status())),
            (jobcred_wire::HEALTH_PATH, &Method::GET) => {
                Ok(reply::json(id, &serde_json::json!({"status": "ok"})))
            }
            (jobcred_wire::READY_PATH, &Method::GET) => match self.service() {
                Ok(service) => {
                    let trouble = || self.transport.as_ref()?.trouble();
                    let endpoint = self.endpoints.missing();
                    Ok(readiness::answer(id, &service.broker, endpoint, query, trouble).await)
                }
                Err(error) if self.is_own_fault || self.is_disagreed() => {
                    Err(error.with_kind(ErrorCode::Internal))
                }
                Err(error) => Err(error),
            },
            (jobcred_wire::METRICS_PATH, &Method::GET) => Ok(reply::text(
                id,
                metrics::render(&self.status(), self.clock.now()),
            )),
            _ => Ok(no_such_route(id, path, &parts.method)),
        };
        match outcome {
            Ok(reply) => {
                tracing::debug!(request.id = %id, %peer, path, status = reply.status().as_u16(), "answered");
                reply
            }
            Err(error) => {
                tracing::info!(
                    request.id = %id, %peer, path, code = %error.kind(), error = %error,
                    issuer.code = error.issuer_code(), cause = error.causes(),
                    "refused"
                );
                if error.kind() == ErrorCode::Denied {
                    self.count_denial(Some(peer.uid), peer.pid, &error);
                }
                reply::refuse(id, &error)
            }
        }
    }
}

impl NativeApi {
    /// Whether a request may ask at all.
    fn let_in(&self, peer: &Peer, parts: &Parts) -> Result<(), TokenError> {
        guard::check_socket(parts)?;
        guard::check_uid(&self.admission, peer.uid)
    }

    async fn token(&self, id: RequestId, query: &str) -> Result<Reply, TokenError> {
        let request = TokenRequest::from_query(query).map_err(|error| invalid(&error))?;
        let held = self.service()?.token(&request).await?;
        Ok(reply::json_bytes(id, held.answer.clone()))
    }

    /// The token for a request that came in a managed-identity dialect.
    pub(super) async fn by_dialect(
        &self,
        dialect: Dialect,
        request: &TokenRequest,
    ) -> Result<Arc<CachedToken>, TokenError> {
        let service = self.service()?;
        service.policy.admit_dialect(dialect)?;
        service.token(request).await
    }

    async fn registry(&self, id: RequestId, query: &str) -> Result<Reply, TokenError> {
        let service = self.service()?;
        let server = service.login_server(query)?;
        let granted = service
            .settle(true, |own| service.policy.authorize_registry(&server, own))
            .await?;
        let held = service.hold(&granted).await?;
        Ok(reply::json_bytes(id, held.answer.clone()))
    }

    /// Only for the agent's own user: a lease keeps the agent alive, and tells whose tokens it serves.
    fn lease(&self, id: RequestId, peer: Peer, query: &str) -> Result<Reply, TokenError> {
        if !self.admission.is_own(&peer) {
            return Err(not_own(peer, "may not keep this agent alive"));
        }
        let mut linger = Duration::ZERO;
        let mut known = None;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if name == "linger" {
                let seconds = value.parse().map_err(|_| {
                    TokenError::new(
                        ErrorCode::InvalidRequest,
                        "linger is not a number of seconds",
                    )
                })?;
                linger = Duration::from_secs(seconds);
            } else if name == "known" {
                known = Some(value);
            }
        }
        if known.is_some_and(|known| known != self.fingerprint) && self.service.is_ok() {
            self.disagreed.store(true, Ordering::Relaxed);
            tracing::error!(request.id = %id, %peer, "a run that shares this agent was served by another decision before; all requests are refused");
        }
        Ok(reply::lease(id, self.leases.enter(linger)))
    }

    /// The COMMAND of somebody who has a lease has failed. What that leads to is a file in the job's directory.
    fn note_failure(&self, id: RequestId, peer: Peer) -> Result<Reply, TokenError> {
        if !self.admission.is_own(&peer) {
            return Err(not_own(peer, "has no lease on this agent"));
        }
        self.leases.note_failure();
        Ok(reply::no_content(id))
    }

    fn forget_registry(&self, id: RequestId, query: &str) -> Result<Reply, TokenError> {
        let service = self.service()?;
        let server = service.login_server(query)?;
        let own = service.pin.pinned(&Identity::Job);
        // An identity that is not known yet has no credential to forget.
        if let Decision::Granted(granted) =
            service.policy.authorize_registry(&server, own.as_ref())?
        {
            service.broker.forget(granted.key());
        }
        Ok(reply::no_content(id))
    }

    fn explain(&self) -> Explanation {
        let mut explanation = self.explanation.clone();
        explanation.principal = self.principal();
        explanation.agent = Some(Decider {
            pid: std::process::id(),
            started_on: self.started_on.as_secs(),
        });
        explanation
    }

    fn principal(&self) -> Option<PrincipalClaims> {
        let service = self.service.as_ref().ok()?;
        match service.pin.pinned(&Identity::Job)? {
            Pinned::Known(principal) => Some(principal.to_wire()),
            Pinned::Opaque => None,
        }
    }

    /// The state of the agent, for people and metrics.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            strategy: self.explanation.strategy.clone(),
            fingerprint: self.fingerprint.clone(),
            started_on: self.started_on.as_secs(),
            principal: self.principal(),
            callers: self.callers.list(),
            leases: self.leases.count() as u64,
            throttles: self
                .transport
                .as_ref()
                .map_or(0, |transport| transport.throttles()),
            denials: self.denials.load(Ordering::Relaxed),
            restarts: self.restarts,
            clock: self.clock.fault().map(|fault| fault.to_string()),
            ..Status::default()
        };
        if let Ok(service) = &self.service {
            status
                .endpoint
                .clone_from(&self.endpoints.missing().borrow());
            status.ready = service.broker.ready() && status.endpoint.is_none();
            status.tokens = service.broker.status();
            status.runway = service
                .broker
                .runway()
                .map(|left| i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
            status.failures = service
                .broker
                .counters()
                .failures()
                .map(|(kind, count)| (kind.to_string(), count))
                .collect();
            status.last_upstream_error = service.broker.last_upstream_error();
            status.recent_errors = service.broker.recent_errors();
        }
        status
    }

    /// Counts a denial, and writes down whose request it was where that is known.
    pub(super) fn count_denial(&self, uid: Option<u32>, pid: Option<u32>, error: &TokenError) {
        self.denials.fetch_add(1, Ordering::Relaxed);
        if let Some(uid) = uid {
            self.journal.note(&Event::Denied { uid, pid, error });
        }
    }

    fn is_disagreed(&self) -> bool {
        self.disagreed.load(Ordering::Relaxed)
    }

    fn service(&self) -> Result<&TokenService, TokenError> {
        if self.is_disagreed() {
            return Err(TokenError::new(
                ErrorCode::Denied,
                "the runs that share this agent started with different decisions about whose tokens they get",
            )
            .with_hint("Start the job again."));
        }
        self.service.as_ref().map_err(Clone::clone)
    }
}

impl TokenService {
    /// Asks policy; where only the job's own first token can tell whether a name is its own, gets that one and asks again.
    ///
    /// Whom the job's identity is matters to a request that names someone only; nearly all name nobody, and looking it
    /// up would cost them more than the rest of policy.
    async fn settle(
        &self,
        names_someone: bool,
        ask: impl Fn(Option<&Pinned>) -> Result<Decision, TokenError>,
    ) -> Result<AuthorizedRequest, TokenError> {
        let own = names_someone.then(|| self.pin.pinned(&Identity::Job));
        match ask(own.flatten().as_ref())? {
            Decision::Granted(granted) => Ok(granted),
            Decision::NeedsPrincipal(first) => {
                self.broker.get(first.key(), Want::default()).await?;
                match ask(self.pin.pinned(&Identity::Job).as_ref())? {
                    Decision::Granted(granted) => Ok(granted),
                    Decision::NeedsPrincipal(_) => Err(TokenError::new(
                        ErrorCode::Denied,
                        "the job's own tokens do not tell whether it is the identity the request names",
                    )),
                }
            }
        }
    }

    async fn token(&self, request: &TokenRequest) -> Result<Arc<CachedToken>, TokenError> {
        let names_someone = request.identity.is_some() || request.tenant_id.is_some();
        let granted = self
            .settle(names_someone, |own| {
                self.policy.authorize(request, own, self.honours_tenant)
            })
            .await?;
        self.hold(&granted).await
    }

    async fn hold(&self, granted: &AuthorizedRequest) -> Result<Arc<CachedToken>, TokenError> {
        // Most requests end here, without a task switch.
        if granted.claims().is_none()
            && let Some(held) = self.broker.peek(granted.key(), granted.min_validity())
        {
            return Ok(held);
        }
        let want = Want {
            min_validity: granted.min_validity(),
            claims: granted.claims(),
        };
        self.broker.get(granted.key(), want).await
    }

    fn login_server(&self, query: &str) -> Result<LoginServer, TokenError> {
        let request = RegistryRequest::from_query(query).map_err(|error| invalid(&error))?;
        self.settings.login_server(&request.server).map_err(|error| {
            TokenError::new(ErrorCode::Unavailable, error.to_string()).with_hint(
                "Only Azure container registries are served; a registry under another name has to be configured under `registries`.",
            )
        })
    }
}

pub(super) fn not_own(peer: Peer, what: &str) -> TokenError {
    TokenError::new(ErrorCode::Denied, format!("uid {} {what}", peer.uid))
}

fn invalid(error: &jobcred_wire::RequestError) -> TokenError {
    TokenError::new(ErrorCode::InvalidRequest, error.to_string())
}

fn no_such_route(id: RequestId, path: &str, method: &Method) -> Reply {
    let known = [
        jobcred_wire::TOKEN_PATH,
        jobcred_wire::REGISTRY_PATH,
        jobcred_wire::EXPLAIN_PATH,
        jobcred_wire::STATUS_PATH,
        jobcred_wire::LEASE_PATH,
        jobcred_wire::ENDPOINT_PATH,
        jobcred_wire::HEALTH_PATH,
        jobcred_wire::READY_PATH,
        jobcred_wire::METRICS_PATH,
    ];
    let (status, message) = if known.contains(&path) {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{path} has no method {method}"),
        )
    } else {
        (StatusCode::NOT_FOUND, "there is no such path".to_owned())
    };
    reply::refuse_with(
        status,
        id,
        &TokenError::new(ErrorCode::InvalidRequest, message)
            .with_hint(format!("This agent answers {}.", known.join(", "))),
    )
}
