//! What may be asked: the one place that turns a request into an [`AuthorizedRequest`], or says which rule forbids it.
//!
//! Who may ask at all is settled at the socket, by uid. Here it is about *as whom*: a job has one identity that was
//! announced at start, and a request may name another one only where there can be another one.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jobcred_wire::{ErrorCode, LoginServer, NamedIdentity, TokenRequest};
use serde_json::Value;

use crate::broker::Key;
use crate::config::{Application, Config, Dialect, RegistryConfig, UserDialects};
use crate::error::TokenError;
use crate::principal::{Pinned, is_guid};
use crate::resource::{Cloud, Resource};
use crate::strategy::{Choice, Strategy, Upstream, refuses_federation};
use crate::token::Identity;

/// The longest life a caller can ask for, so that no number makes every request a fetch for ever: a day, which is what the
/// longest-lived tokens have.
const MAX_MIN_VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);

/// A request that policy has said yes to. Only this module can make one, so the question can't be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedRequest {
    key: Key,
    min_validity: Duration,
    claims: Option<String>,
}

/// The answer to a request that is not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve this.
    Granted(AuthorizedRequest),
    /// It depends on whom the job's identity is, which its first token tells: fetch this one, pin it, and ask again.
    /// Its being fetched grants the caller nothing yet.
    NeedsPrincipal(AuthorizedRequest),
}

/// The rules of one agent.
#[derive(Clone, Debug)]
pub struct Policy {
    naming: Naming,
    /// The client id that was announced, lower case: naming it is naming the job's identity.
    client_id: Option<String>,
    /// The announced tenant, lower case.
    tenant_id: Option<String>,
    federation: Federation,
    config: Config,
}

/// Whether an application can be acted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Federation {
    Possible,
    /// For this reason not.
    Impossible(&'static str),
    /// In the sandbox the configuration's applications are not looked at.
    Ignored,
}

/// What a request may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// Any identity that is allowed: a cluster may have many.
    Allowed,
    /// The one there is.
    TheOne,
    /// None, for this reason.
    Nothing(&'static str),
}

/// How a name relates to the job's identity.
enum Relation {
    Same,
    Other,
    Unknown,
}

impl AuthorizedRequest {
    /// What the broker shall get.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The life the caller needs at least; zero when it did not say.
    #[must_use]
    pub fn min_validity(&self) -> Duration {
        self.min_validity
    }

    /// A claims challenge: a JSON object as text.
    #[must_use]
    pub fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }

    fn for_key(key: Key) -> Self {
        Self {
            key,
            min_validity: Duration::ZERO,
            claims: None,
        }
    }
}

impl Policy {
    /// The rules that follow from the strategy and the configuration.
    #[must_use]
    pub fn new(choice: &Choice, config: &Config) -> Self {
        let (client_id, tenant_id) = match &choice.upstream {
            Upstream::WorkloadIdentity {
                client_id, tenant, ..
            }
            | Upstream::ServicePrincipal {
                client_id, tenant, ..
            } => (Some(client_id), Some(tenant)),
            _ => (choice.client_id.as_ref(), None),
        };
        Self {
            naming: Naming::of(choice.strategy),
            client_id: client_id.map(|id| id.to_ascii_lowercase()),
            tenant_id: tenant_id.map(|id| id.to_ascii_lowercase()),
            federation: match refuses_federation(choice.strategy) {
                _ if choice.strategy == Strategy::Sandbox => Federation::Ignored,
                None => Federation::Possible,
                Some(why) => Federation::Impossible(why),
            },
            config: config.clone(),
        }
    }

    /// Decides on a token request. `own` is what the job's own tokens have told so far ([`crate::principal::Pin`]),
    /// `source_honours_tenant` whether the source can ask another tenant than the identity's own.
    ///
    /// # Errors
    /// `denied` with the rule's name, or `invalid_request` for an id or a claims challenge that can't be one.
    pub fn authorize(
        &self,
        request: &TokenRequest,
        own: Option<&Pinned>,
        source_honours_tenant: bool,
    ) -> Result<Decision, TokenError> {
        let resource = Resource::from_target(&request.target, self.config.cloud);
        let claims = request.claims.as_deref().map(check_claims).transpose()?;
        if let Some(identity) = self.application(request, &resource)? {
            return Ok(Decision::Granted(AuthorizedRequest {
                key: Key::Token {
                    identity,
                    resource,
                    tenant: None,
                },
                min_validity: Duration::from_secs(request.min_validity.unwrap_or(0))
                    .min(MAX_MIN_VALIDITY),
                claims,
            }));
        }
        let needs_principal = || {
            Decision::NeedsPrincipal(AuthorizedRequest::for_key(Key::Token {
                identity: Identity::Job,
                resource: resource.clone(),
                tenant: None,
            }))
        };
        let Some(identity) = self.identity(request.identity.as_ref(), own)? else {
            return Ok(needs_principal());
        };
        let tenant = match request.tenant_id.as_deref() {
            None => None,
            Some(tenant) => match self.tenant(tenant, own, source_honours_tenant)? {
                Tenant::Home => None,
                Tenant::Other(tenant) => Some(tenant),
                Tenant::Unknown => return Ok(needs_principal()),
            },
        };
        Ok(Decision::Granted(AuthorizedRequest {
            key: Key::Token {
                identity,
                resource,
                tenant,
            },
            min_validity: Duration::from_secs(request.min_validity.unwrap_or(0))
                .min(MAX_MIN_VALIDITY),
            claims,
        }))
    }

    /// Whether requests in `dialect` are served: it tells whether a managed identity's tokens are wanted or a user's.
    ///
    /// # Errors
    /// `denied` where the tokens would be a user's, and the configuration says no to that; and where a user's are wanted and there
    /// are none.
    pub fn admit_dialect(&self, dialect: Dialect) -> Result<(), TokenError> {
        let is_users = matches!(self.naming, Naming::Nothing(_));
        let is_sandbox = self.federation == Federation::Ignored;
        match (dialect, self.config.user_dialects) {
            (Dialect::OnBehalfOf, _) if !is_users && !is_sandbox => Err(denied(
                "on-behalf-of",
                "this job does not run as a user, so nobody's tokens can be had on behalf of one",
            )
            .with_hint("Submit it with `identity: {type: user_identity}`, or ask for the managed identity.")),
            (Dialect::OnBehalfOf, _) => Ok(()),
            (_, UserDialects::Refuse) if is_users => Err(denied(
                "user_dialects",
                "this job's tokens are a user's, and the configuration keeps them from whoever asks for a managed identity",
            )
            .with_hint("Use jobcred's own credential, or leave `user_dialects` out of the configuration.")),
            _ => Ok(()),
        }
    }

    /// Decides on a registry credential. The identity is the job's, or the one the configuration gives this registry.
    ///
    /// # Errors
    /// `denied` with the rule's name, where the configuration asks for an identity that this strategy can't be.
    pub fn authorize_registry(
        &self,
        server: &LoginServer,
        own: Option<&Pinned>,
    ) -> Result<Decision, TokenError> {
        if let Some(identity) = self.application_for_registry(server)? {
            return Ok(Decision::Granted(AuthorizedRequest::for_key(
                Key::Registry {
                    identity,
                    server: server.to_string(),
                },
            )));
        }
        let named = self
            .config
            .registry(server)
            .and_then(|registry| registry.client_id.clone())
            .map(NamedIdentity::ClientId);
        // Whoever wrote the configuration has allowed what it names.
        let identity = match (&named, self.naming) {
            (Some(NamedIdentity::ClientId(id)), Naming::Allowed) => {
                Some(match self.relation(named.as_ref(), own) {
                    Relation::Same => Identity::Job,
                    Relation::Other | Relation::Unknown => {
                        Identity::ClientId(id.to_ascii_lowercase())
                    }
                })
            }
            _ => self.identity(named.as_ref(), own)?,
        };
        Ok(match identity {
            Some(identity) => Decision::Granted(AuthorizedRequest::for_key(Key::Registry {
                identity,
                server: server.to_string(),
            })),
            // Storage, because every identity endpoint issues it, which is not so for the registry's audience.
            None => Decision::NeedsPrincipal(AuthorizedRequest::for_key(Key::Token {
                identity: Identity::Job,
                resource: Cloud::storage(),
                tenant: None,
            })),
        })
    }

    /// What a request that names nobody would get, for a resource the configuration declares, or the agent itself needs.
    #[must_use]
    pub fn authorize_own(&self, resource: Resource) -> AuthorizedRequest {
        let identity = self
            .configured_application()
            .filter(|_| self.covers(&resource))
            .map_or(Identity::Job, to_application);
        AuthorizedRequest::for_key(Key::Token {
            identity,
            resource,
            tenant: None,
        })
    }

    /// The application of another tenant that the request is for: by its client id or tenant, or because it names nobody
    /// and the configuration gives the resource to it.
    fn application(
        &self,
        request: &TokenRequest,
        resource: &Resource,
    ) -> Result<Option<Identity>, TokenError> {
        let Some(application) = self.configured_application() else {
            return Ok(None);
        };
        let is_its = |tenant: &str| tenant.eq_ignore_ascii_case(application.tenant_id);
        let is_asked = match (&request.identity, request.tenant_id.as_deref()) {
            (Some(NamedIdentity::ClientId(id)), tenant)
                if id.eq_ignore_ascii_case(application.client_id) =>
            {
                if tenant.is_some_and(|tenant| !is_its(tenant)) {
                    return Err(denied(
                        "foreign-tenant",
                        "the application is configured for another tenant than the request names",
                    )
                    .with_hint("Ask without tenant_id, or correct `federated.tenant_id`."));
                }
                true
            }
            (Some(_), _) => false,
            (None, Some(tenant)) => is_its(tenant),
            (None, None) => self.covers(resource),
        };
        Ok(is_asked.then(|| to_application(application)))
    }

    /// The same for a registry: its own application, else the configured one unless the registry has settings of its own.
    fn application_for_registry(
        &self,
        server: &LoginServer,
    ) -> Result<Option<Identity>, TokenError> {
        let settings = self.config.registry(server);
        if let Some(RegistryConfig {
            federated: true,
            client_id: Some(client_id),
            tenant_id: Some(tenant_id),
            ..
        }) = settings
        {
            return match self.federation {
                Federation::Possible => Ok(Some(to_application(Application {
                    client_id,
                    tenant_id,
                }))),
                Federation::Ignored => Ok(None),
                Federation::Impossible(why) => Err(denied(
                    "federation",
                    format!("{server} is to be asked as an application, but {why}"),
                )
                .with_hint(
                    "Run the job with a managed identity, or correct this registry's settings.",
                )),
            };
        }
        let has_own = settings.is_some_and(|registry| registry.client_id.is_some());
        let tenant = settings.and_then(|registry| registry.tenant_id.as_deref());
        Ok(self
            .configured_application()
            .filter(|_| !has_own && self.covers(&Cloud::container_registry()))
            .filter(|own| tenant.is_none_or(|tenant| tenant.eq_ignore_ascii_case(own.tenant_id)))
            .map(to_application))
    }

    fn configured_application(&self) -> Option<Application<'_>> {
        self.config
            .federated
            .application()
            .filter(|_| self.federation == Federation::Possible)
    }

    /// Whether a request for `resource` that names nobody is the application's.
    fn covers(&self, resource: &Resource) -> bool {
        let given = self.config.federated.resources.as_ref();
        given.is_none_or(|list| {
            list.iter()
                .any(|text| Resource::parse(text, self.config.cloud) == *resource)
        })
    }

    /// As whom; `None` when only a token can tell.
    fn identity(
        &self,
        named: Option<&NamedIdentity>,
        own: Option<&Pinned>,
    ) -> Result<Option<Identity>, TokenError> {
        let Some(named) = named else {
            return Ok(Some(Identity::Job));
        };
        check_name(named)?;
        match (self.naming, self.relation(Some(named), own)) {
            (Naming::Nothing(reason), _) => Err(denied("named-identity", reason).with_hint(
                "Ask without client_id, object_id and resource_id (unset AZURE_CLIENT_ID for SDKs that read it).",
            )),
            (_, Relation::Same) => Ok(Some(Identity::Job)),
            (Naming::Allowed, _) if self.allows(named) => Ok(Some(to_identity(named))),
            (Naming::Allowed, _) => Err(denied(
                "allow-identities",
                "the identity the request names is not among those this agent may use",
            )
            .with_hint("Add its id to `allow_identities` in jobcred's configuration.")),
            (Naming::TheOne, Relation::Other) => Err(denied(
                "single-identity",
                "this job has one identity, and the request names another one",
            )
            .with_hint("Ask without client_id, object_id and resource_id, or with the job's own client id, which `jobcred explain --probe` shows.")),
            (Naming::TheOne, Relation::Unknown) if own.is_none() => Ok(None),
            (Naming::TheOne, Relation::Unknown) => Err(denied(
                "single-identity",
                "this job has one identity, and its tokens do not tell whether it is the one the request names",
            )
            .with_hint("Ask without client_id, object_id and resource_id.")),
        }
    }

    fn relation(&self, named: Option<&NamedIdentity>, own: Option<&Pinned>) -> Relation {
        let known = match own {
            Some(Pinned::Known(principal)) => Some(principal),
            Some(Pinned::Opaque) | None => None,
        };
        let compare = |name: &str, ids: [Option<&str>; 2]| {
            let mut ids = ids.into_iter().flatten().peekable();
            if ids.peek().is_none() {
                return Relation::Unknown;
            }
            if ids.any(|id| id.eq_ignore_ascii_case(name)) {
                Relation::Same
            } else {
                Relation::Other
            }
        };
        match named {
            None => Relation::Same,
            Some(NamedIdentity::ClientId(name)) => compare(
                name,
                [
                    self.client_id.as_deref(),
                    known.and_then(|own| own.app_id.as_deref()),
                ],
            ),
            Some(NamedIdentity::ObjectId(name)) => {
                compare(name, [known.and_then(|own| own.object_id.as_deref()), None])
            }
            // No token says its identity's resource id, so the one there is can't be told by it, before or after.
            Some(NamedIdentity::ResourceId(_)) => match self.naming {
                Naming::TheOne => Relation::Other,
                _ => Relation::Unknown,
            },
        }
    }

    fn allows(&self, named: &NamedIdentity) -> bool {
        let (NamedIdentity::ClientId(name)
        | NamedIdentity::ObjectId(name)
        | NamedIdentity::ResourceId(name)) = named;
        self.config
            .allow_identities
            .as_ref()
            .is_none_or(|list| list.iter().any(|id| id.eq_ignore_ascii_case(name)))
    }

    fn tenant(
        &self,
        named: &str,
        own: Option<&Pinned>,
        source_honours_tenant: bool,
    ) -> Result<Tenant, TokenError> {
        let is_name = named
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if named.is_empty() || !is_name {
            return Err(TokenError::new(
                ErrorCode::InvalidRequest,
                "tenant_id must be a tenant's GUID or domain name",
            ));
        }
        let of_tokens = match own {
            Some(Pinned::Known(principal)) => principal.tenant_id.as_deref(),
            Some(Pinned::Opaque) | None => None,
        };
        let home = self.tenant_id.as_deref().or(of_tokens);
        match home {
            Some(home) if home.eq_ignore_ascii_case(named) => Ok(Tenant::Home),
            _ if source_honours_tenant => Ok(Tenant::Other(named.to_ascii_lowercase())),
            None if own.is_none() => Ok(Tenant::Unknown),
            _ => Err(denied(
                "foreign-tenant",
                format!("this job's identity can't get tokens from tenant {named}"),
            )
            .with_hint(
                "Ask without tenant_id; a managed identity has tokens of its own tenant only.",
            )),
        }
    }
}

/// What a named tenant turned out to be.
enum Tenant {
    Home,
    Other(String),
    Unknown,
}

impl Naming {
    fn of(strategy: Strategy) -> Self {
        match strategy {
            Strategy::ComputeIdentity => Self::Allowed,
            Strategy::Kubernetes
            | Strategy::SystemIdentity
            | Strategy::ServicePrincipal
            | Strategy::AzureCli
            | Strategy::Sandbox => Self::TheOne,
            Strategy::UserIdentity => Self::Nothing(
                "this job runs as the submitting user, so no managed identity can be named",
            ),
            Strategy::ComputeInstanceUser => Self::Nothing(
                "this compute instance gives the tokens of its user, so no managed identity can be named",
            ),
        }
    }
}

fn to_application(application: Application<'_>) -> Identity {
    Identity::Application {
        client_id: application.client_id.to_ascii_lowercase(),
        tenant_id: application.tenant_id.to_ascii_lowercase(),
    }
}

fn to_identity(named: &NamedIdentity) -> Identity {
    match named {
        NamedIdentity::ClientId(id) => Identity::ClientId(id.to_ascii_lowercase()),
        NamedIdentity::ObjectId(id) => Identity::ObjectId(id.to_ascii_lowercase()),
        NamedIdentity::ResourceId(id) => Identity::ResourceId(id.clone()),
    }
}

/// Only GUIDs go upstream as ids: the Azure ML endpoint answers a client id that is none with the *user's* token on a
/// compute instance, without saying so.
fn check_name(named: &NamedIdentity) -> Result<(), TokenError> {
    let (message, hint) = match named {
        NamedIdentity::ClientId(id) if id == "clientid" => (
            "client_id must be a GUID, and `clientid` is a placeholder",
            "Azure ML sets DEFAULT_IDENTITY_CLIENT_ID to `clientid` where the compute has no managed identity: assign one to it, or ask without client_id (unset AZURE_CLIENT_ID for SDKs that read it).",
        ),
        NamedIdentity::ClientId(id) if !is_guid(id) => (
            "client_id must be a GUID",
            "Give the identity's client id, not its name; an SDK takes it from AZURE_CLIENT_ID, which may hold something else here.",
        ),
        NamedIdentity::ObjectId(id) if !is_guid(id) => (
            "object_id must be a GUID",
            "Give the object (principal) id of the identity, not its name.",
        ),
        NamedIdentity::ResourceId(id) if !id.starts_with('/') => (
            "resource_id must be an Azure resource id: /subscriptions/...",
            "`az identity show --query id` prints it.",
        ),
        _ => return Ok(()),
    };
    Err(TokenError::new(ErrorCode::InvalidRequest, message).with_hint(hint))
}

fn check_claims(text: &str) -> Result<String, TokenError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(_)) => Ok(text.to_owned()),
        _ => Err(TokenError::new(
            ErrorCode::InvalidRequest,
            "claims must be a JSON object, as a resource's challenge has it once base64 is undone",
        )),
    }
}

fn denied(rule: &str, message: impl std::fmt::Display) -> TokenError {
    TokenError::new(ErrorCode::Denied, format!("{message} (rule {rule})"))
}
