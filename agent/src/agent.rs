//! Assembly: the parts of a running agent put together, run, and drained. No decision about tokens is made here.

use std::fmt;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use jobcred_wire::{ErrorCode, Notice, Severity};
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::broker::{Broker, BrokerOptions, Fetch, Key, Want};
use crate::config::{Application, Config};
use crate::error::TokenError;
use crate::front::callers::Callers;
use crate::front::dialect::Endpoints;
use crate::front::leases::Leases;
use crate::front::native::{NativeApi, TokenService};
use crate::front::reply::RequestIds;
use crate::front::serve::{ConnectionLimits, serve};
use crate::front::turned_away::TurnedAway;
use crate::journal::{Event, Journal};
use crate::peer::Admission;
use crate::platform::{Clock, Environment, Files, Processes};
use crate::policy::Policy;
use crate::principal::{Pin, Pinned, jwt_issued};
use crate::registry::{EntraTokens, Registry};
use crate::resource::Resource;
use crate::source::{Federated, Source, SourceRequest};
use crate::strategy::reason;
use crate::strategy::{
    Choice, Facts, ProbeResult, Selection, StartError, Strategy, clock_wrong, federation_issuer,
    select, wants_probe,
};
use crate::token::{AccessToken, Identity};
use crate::transport::{Transport, TransportConfig};
use crate::{config, source};

/// The outside as an agent is given it.
#[derive(Clone, Debug)]
pub struct Outside {
    /// The environment at start.
    pub environment: Environment,
    /// The file system.
    pub files: Files,
    /// The time.
    pub clock: Clock,
    /// The agent's effective uid.
    pub own_uid: u32,
    /// How often this job's agent was started again before.
    pub restarts: u32,
    /// Where what happens is written down for after the job.
    pub journal: Journal,
}

/// An agent ready to answer. It holds no socket: listeners are given to [`Agent::run`].
#[derive(Debug)]
pub struct Agent {
    api: Arc<NativeApi>,
    own_uid: u32,
}

/// The selection and what it came from.
#[derive(Debug)]
pub struct Chosen {
    /// The selection.
    pub selection: Selection,
    /// The way out, where it could be set up.
    pub transport: Option<Arc<Transport>>,
    /// What the probe gave, where the selection hung on it.
    pub probe: Option<ProbeResult>,
}

/// Gathers the facts, with at most one bounded probe of the metadata service, and selects. `known` is what the probe gave
/// earlier in this job; it is not made again then.
///
/// What shows only when the choice is carried out (a secret that no header can hold) is a start-up error like any other: it is
/// said, and every request is answered with it.
pub async fn choose(config: &Config, outside: &Outside, known: Option<ProbeResult>) -> Chosen {
    let mut facts = Facts::gather(&outside.environment, &outside.files);
    let transport = way_out(config, outside);
    if wants_probe(&facts, config) {
        let result = match known {
            Some(known) => known,
            None => source::probe(&transport).await,
        };
        facts = facts.with_probe(result);
    }
    carry_out(config, outside, facts, transport)
}

/// The same without asking anybody; `None` where only the probe of the metadata service can tell.
#[must_use]
pub fn choose_unasked(config: &Config, outside: &Outside) -> Option<Chosen> {
    let facts = Facts::gather(&outside.environment, &outside.files);
    if wants_probe(&facts, config) {
        return None;
    }
    let transport = way_out(config, outside);
    Some(carry_out(config, outside, facts, transport))
}

fn way_out(config: &Config, outside: &Outside) -> Arc<Transport> {
    let setup = TransportConfig::from_environment(
        &outside.environment,
        config.ca_file.clone(),
        outside.clock.clone(),
    );
    Arc::new(Transport::new(setup).with_journal(outside.journal.clone()))
}

/// Selects, and tries whether the choice can be carried out: better said now than with the first request.
fn carry_out(
    config: &Config,
    outside: &Outside,
    facts: Facts,
    transport: Arc<Transport>,
) -> Chosen {
    let mut selection = select(&facts, config);
    let trial = match &selection.outcome {
        Ok(choice) => source::build(choice, &reach(config, outside, &transport)).map(|_| ()),
        Err(_) => Ok(()),
    };
    if let Err(error) = trial {
        selection.explanation.notices.push(Notice {
            severity: Severity::Warning,
            code: error.code.to_owned(),
            message: error.message.clone(),
            hint: Some(error.hint.clone()),
        });
        selection.outcome = Err(error);
    }
    if let Some(fault) = outside.clock.fault() {
        selection.explanation.notices.push(clock_wrong(fault));
    }
    Chosen {
        selection,
        transport: Some(transport),
        probe: facts.probe,
    }
}

/// What a source reaches the outside with.
pub(crate) fn reach(
    config: &Config,
    outside: &Outside,
    transport: &Arc<Transport>,
) -> source::Outside {
    source::Outside {
        transport: Arc::clone(transport),
        clock: outside.clock.clone(),
        files: outside.files.clone(),
        environment: outside.environment.clone(),
        sandbox_lifetime: config.sandbox_lifetime,
    }
}

impl Agent {
    /// Puts an agent together for `selection`. One whose selection failed answers every token request with the reason.
    ///
    /// Needs a tokio runtime.
    #[must_use]
    pub fn assemble(
        config: &Config,
        outside: &Outside,
        selection: Selection,
        transport: Option<&Arc<Transport>>,
        leases: Arc<Leases>,
    ) -> Self {
        outside.clock.say_fault();
        let fingerprint = selection
            .outcome
            .as_ref()
            .map(|choice| config::fingerprint(config, choice))
            .unwrap_or_default();
        let service = match (&selection.outcome, transport) {
            (Ok(choice), Some(transport)) => token_service(config, outside, choice, transport),
            (Err(error), _) => Err(refusal(error)),
            (Ok(_), None) => Err(TokenError::new(ErrorCode::Internal, "there is no way out")),
        };
        let is_own_fault = selection
            .outcome
            .as_ref()
            .is_err_and(StartError::is_own_fault);
        let admission = match config.socket_group {
            None => Admission::private(outside.own_uid),
            Some(_) => Admission::shared(outside.own_uid, config.allow_uids.clone()),
        };
        Self {
            api: Arc::new(NativeApi {
                service,
                admission,
                explanation: selection.explanation,
                fingerprint,
                started_on: outside.clock.now(),
                clock: outside.clock.clone(),
                ids: RequestIds::new(),
                callers: Callers::new(Processes::system()),
                leases,
                endpoints: Endpoints::new(),
                disagreed: AtomicBool::new(false),
                transport: transport.cloned(),
                denials: AtomicU64::new(0),
                turned_away: TurnedAway::default(),
                restarts: outside.restarts,
                is_own_fault,
                journal: outside.journal.clone(),
            }),
            own_uid: outside.own_uid,
        }
    }

    /// What answers requests, for a caller that wants to ask without a socket.
    #[must_use]
    pub fn api(&self) -> &Arc<NativeApi> {
        &self.api
    }

    /// Answers on `listener` until `stop` becomes true, then lets requests under way finish, for as long as `limits` say.
    ///
    /// # Errors
    /// When the listener cannot be used by the runtime.
    pub async fn run(
        self,
        listener: StdListener,
        limits: ConnectionLimits,
        stop: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let over_tcp = self
            .api
            .endpoints
            .serve(Arc::clone(&self.api), stop.clone(), limits.drain);
        let over_socket = serve(&listener, self.own_uid, limits, Arc::clone(&self.api), stop);
        tokio::join!(over_socket, over_tcp);
        // While there still is something to sum up.
        self.api.journal.note(&Event::End(&self.api.status()));
        if let Ok(service) = &self.api.service {
            service.broker.shutdown();
        }
        Ok(())
    }
}

fn token_service(
    config: &Config,
    outside: &Outside,
    choice: &Choice,
    transport: &Arc<Transport>,
) -> Result<TokenService, TokenError> {
    let source = source::build(choice, &reach(config, outside, transport))
        .map_err(|error| refusal(&error))?;
    let pin = Arc::new(Pin::new(choice, &config.expect));
    let policy = Policy::new(choice, config);
    let honours_tenant = source.honours_tenant();
    let settings = Arc::new(config.clone());
    let tokens = Arc::new(BrokerTokens::default());
    // Without an issuer that can be asked there is no application to act as; where one is configured, that was a start-up error.
    let federated = federation_issuer(&outside.environment, config)
        .ok()
        .map(|issuer| Federated::new(issuer, &reach(config, outside, transport)));
    let fetcher = Fetcher {
        source,
        federated,
        tokens: Arc::clone(&tokens),
        pin: Arc::clone(&pin),
        registry: (choice.strategy != Strategy::Sandbox).then(|| {
            Registry::new(
                Arc::clone(&tokens) as _,
                Arc::clone(transport),
                outside.clock.clone(),
                config,
            )
        }),
        settings: Arc::clone(&settings),
        clock: outside.clock.clone(),
        journal: outside.journal.clone(),
        principal_is_told: AtomicBool::new(false),
    };
    let broker = Broker::new(
        Arc::new(fetcher),
        outside.clock.clone(),
        BrokerOptions {
            journal: outside.journal.clone(),
            ..BrokerOptions::default()
        },
    );
    // Set once, here: the broker is what the exchange takes its Entra tokens from.
    let _ = tokens.broker.set(Arc::downgrade(&broker));
    broker.declare(config.resources.iter().map(|resource| {
        policy
            .authorize_own(Resource::parse(resource, config.cloud))
            .key()
            .clone()
    }));
    Ok(TokenService {
        policy,
        broker,
        pin,
        honours_tenant,
        settings,
    })
}

/// A start-up error as callers see it.
///
/// Only where nothing at all was found may a credential chain go on to another way: everywhere else it could end as
/// another principal than the one the job asked for.
fn refusal(error: &StartError) -> TokenError {
    let kind = if error.code == reason::NOTHING_FOUND {
        ErrorCode::Unavailable
    } else {
        ErrorCode::Denied
    };
    TokenError::new(kind, error.message.clone()).with_hint(error.hint.clone())
}

/// The broker's way upstream: a source for tokens, the exchange for registries, the pin for both.
struct Fetcher {
    source: Arc<dyn Source>,
    /// Who is asked for the tokens of applications.
    federated: Option<Federated>,
    /// Where their assertions come from: the broker, so that they are cached and shared like any other token.
    tokens: Arc<BrokerTokens>,
    pin: Arc<Pin>,
    /// `None` in the sandbox, whose own issuer stands in for registries.
    registry: Option<Registry>,
    settings: Arc<Config>,
    clock: Clock,
    journal: Journal,
    principal_is_told: AtomicBool,
}

impl Fetcher {
    async fn token(
        &self,
        identity: &Identity,
        resource: Resource,
        tenant: Option<&str>,
        claims: Option<&str>,
    ) -> Result<AccessToken, TokenError> {
        let token = if let Identity::Application {
            client_id,
            tenant_id,
        } = identity
        {
            let application = Application {
                client_id,
                tenant_id,
            };
            self.token_of(application, &resource, claims).await?
        } else {
            let request = SourceRequest {
                identity: identity.clone(),
                resource,
                tenant: tenant.map(str::to_owned),
                claims: claims.map(str::to_owned),
            };
            self.source.fetch(&request).await?
        };
        if let Some(issued) = jwt_issued(token.secret.expose()) {
            self.clock.hear_issued(issued);
        }
        self.pin.check(identity, tenant, &token)?;
        if *identity == Identity::Job
            && let Some(Pinned::Known(principal)) = self.pin.pinned(identity)
            && !self.principal_is_told.swap(true, Ordering::Relaxed)
        {
            self.journal.note(&Event::Principal(&principal.to_wire()));
        }
        Ok(token)
    }
}

impl Fetcher {
    async fn token_of(
        &self,
        application: Application<'_>,
        resource: &Resource,
        claims: Option<&str>,
    ) -> Result<AccessToken, TokenError> {
        let Some(federated) = &self.federated else {
            return Err(TokenError::new(
                ErrorCode::Denied,
                "the issuer of the application's tokens is no https address",
            )
            .with_hint("correct AZURE_AUTHORITY_HOST or `authority_host`"));
        };
        let audience = self.settings.cloud.token_exchange();
        let assertion = self
            .tokens
            .entra_token(&Identity::Job, &audience, None)
            .await
            .map_err(|error| {
                error.about(
                    "the job's own token, which the application accepts in place of a secret",
                )
            })?;
        federated
            .fetch(application, &assertion, resource, claims)
            .await
    }
}

#[async_trait]
impl Fetch for Fetcher {
    async fn fetch(&self, key: &Key, claims: Option<&str>) -> Result<AccessToken, TokenError> {
        match key {
            Key::Token {
                identity,
                resource,
                tenant,
            } => {
                self.token(identity, resource.clone(), tenant.as_deref(), claims)
                    .await
            }
            Key::Registry { identity, server } => match &self.registry {
                None => {
                    let resource = Resource::verbatim(server);
                    self.token(identity, resource, None, None).await
                }
                Some(registry) => {
                    let server = self
                        .settings
                        .login_server(server)
                        .map_err(|error| TokenError::new(ErrorCode::Internal, error.to_string()))?;
                    registry.credential(identity, &server).await
                }
            },
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// The registry exchange's way back to the broker, which owns it: weak, so that neither keeps the other alive.
#[derive(Debug, Default)]
struct BrokerTokens {
    broker: OnceLock<Weak<Broker>>,
}

#[async_trait]
impl EntraTokens for BrokerTokens {
    async fn entra_token(
        &self,
        identity: &Identity,
        resource: &Resource,
        tenant: Option<&str>,
    ) -> Result<AccessToken, TokenError> {
        let broker = self
            .broker
            .get()
            .and_then(Weak::upgrade)
            .ok_or_else(|| TokenError::new(ErrorCode::Transient, "the agent is ending"))?;
        let key = Key::Token {
            identity: identity.clone(),
            resource: resource.clone(),
            tenant: tenant.map(str::to_owned),
        };
        let want = Want {
            min_validity: EXCHANGE_MIN_VALIDITY,
            claims: None,
        };
        Ok(broker.get(&key, want).await?.token.clone())
    }
}

/// The life an Entra token must have left for an exchange, which may be retried for half a minute.
const EXCHANGE_MIN_VALIDITY: Duration = Duration::from_secs(60);
