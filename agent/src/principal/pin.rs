//! The promise that tokens keep belonging to whom the job was told they belong to.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use jobcred_wire::ErrorCode;

use super::{Principal, PrincipalKind, is_guid};
use crate::config::Expect;
use crate::error::TokenError;
use crate::strategy::{Choice, Strategy, Upstream};
use crate::token::{AccessToken, Identity};

/// Why an expectation of the configuration holds.
const CONFIG: &str = "the configuration expects it";
/// Why an application that the configuration names is held to that.
const CONFIGURED: &str = "the configuration names it";
/// Why what earlier tokens said holds.
const EARLIER: &str = "earlier tokens of this job had it";
/// How many identities are remembered. A job uses a handful; beyond this an identity is still held to the name it was
/// asked for by, only not to what its earlier tokens said.
const MAX_IDENTITIES: usize = 256;

/// Checks every token's principal: against what the strategy announced, what the configuration expects, what a request
/// named, and what earlier tokens of the same identity said. One per agent.
#[derive(Debug)]
pub struct Pin {
    strategy: Strategy,
    /// The application the strategy announced, where it announced one.
    app_id: Option<String>,
    /// The tenant the strategy announced.
    tenant_id: Option<String>,
    expect: Expect,
    seen: Mutex<BTreeMap<(Identity, Option<String>), Pinned>>,
    keeper: Keeper,
}

/// Who is told when more becomes known of the job's own principal.
#[derive(Default)]
struct Keeper(OnceLock<Box<Keep>>);

type Keep = dyn Fn(&Principal) + Send + Sync;

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

/// What is known of an identity from its tokens so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// There was a token, but none that could be read.
    Opaque,
    /// What its tokens said; a claim that none of them had is `None`. `audience` and `expires_on` are the last token's.
    Known(Principal),
}

/// What about a token is not as announced.
struct Mismatch {
    what: &'static str,
    expected: String,
    found: String,
    why: String,
    hint: &'static str,
}

impl Pin {
    /// A pin for the strategy's choice and the configuration's `expect`.
    #[must_use]
    pub fn new(choice: &Choice, expect: &Expect) -> Self {
        let (app_id, tenant_id) = match &choice.upstream {
            Upstream::WorkloadIdentity {
                client_id, tenant, ..
            }
            | Upstream::ServicePrincipal {
                client_id, tenant, ..
            } => (Some(client_id.as_str()), Some(tenant.as_str())),
            _ => (choice.client_id.as_deref(), None),
        };
        // Something that is no GUID (a placeholder, a tenant's domain name) can't be compared with a claim.
        let guid = |text: Option<&str>| {
            text.filter(|text| is_guid(text))
                .map(str::to_ascii_lowercase)
        };
        Self {
            strategy: choice.strategy,
            app_id: guid(app_id),
            tenant_id: guid(tenant_id),
            expect: expect.clone(),
            seen: Mutex::default(),
            keeper: Keeper::default(),
        }
    }

    /// Holds the job's own tokens to what an earlier agent of the same job saw. To be called before the first token.
    pub fn restore(&self, principal: Principal) {
        self.lock()
            .insert((Identity::Job, None), Pinned::Known(principal));
    }

    /// Tells `keep` whenever more becomes known of the job's own principal, so that an agent started after this one can be
    /// told. The first one to ask is told.
    pub fn tell(&self, keep: impl Fn(&Principal) + Send + Sync + 'static) {
        let _ = self.keeper.0.set(Box::new(keep));
    }

    /// The client id that the job's own tokens must have, where the strategy announced one.
    #[must_use]
    pub fn expected_client_id(&self) -> Option<&str> {
        self.app_id.as_deref()
    }

    /// What is known of `identity` in its own tenant; `None` before its first token.
    #[must_use]
    pub fn pinned(&self, identity: &Identity) -> Option<Pinned> {
        let key = (identity.clone(), None);
        self.lock().get(&key).cloned()
    }

    /// Checks a new token of `identity` before anyone gets it; `tenant` is the issuing tenant where the request had to
    /// name one. An opaque token passes, because nothing can be said of it, unless the configuration expects something.
    ///
    /// A claim that is missing is not a change: tokens for different resources carry different ones.
    ///
    /// # Errors
    /// `rejected`, when the token belongs to someone else. It is logged loudly, with ids and without the token.
    pub fn check(
        &self,
        identity: &Identity,
        tenant: Option<&str>,
        token: &AccessToken,
    ) -> Result<Pinned, TokenError> {
        let key = (identity.clone(), tenant.map(str::to_ascii_lowercase));
        let Some(new) = Principal::from_token(token.secret.expose()) else {
            let silent = Principal::default();
            if let Some(mismatch) = self.find_wrong_id(identity, tenant, &silent) {
                return Err(refuse(identity, token, &silent, mismatch));
            }
            tracing::debug!(%identity, resource = token.resource, "the token cannot be read, so nothing is known of its owner");
            let mut seen = self.lock();
            if let Some(known) = seen.get(&key) {
                return Ok(known.clone());
            }
            if seen.len() < MAX_IDENTITIES || *identity == Identity::Job {
                seen.insert(key, Pinned::Opaque);
            }
            return Ok(Pinned::Opaque);
        };
        let mut seen = self.lock();
        let old = match seen.get(&key) {
            Some(Pinned::Known(old)) => Some(old.clone()),
            Some(Pinned::Opaque) | None => None,
        };
        let mismatch = self
            .find_wrong_kind(identity, &new)
            .or_else(|| self.find_wrong_id(identity, tenant, &new))
            .or_else(|| old.as_ref().and_then(|old| find_change(old, &new)));
        if let Some(mismatch) = mismatch {
            drop(seen);
            return Err(refuse(identity, token, &new, mismatch));
        }
        let merged = merge(old.clone(), new);
        let is_news = *identity == Identity::Job
            && tenant.is_none()
            && old.is_none_or(|old| !old.is_same_as(&merged));
        if let (true, Some(keep)) = (is_news, self.keeper.0.get()) {
            keep(&merged);
        }
        let pinned = Pinned::Known(merged);
        if seen.contains_key(&key) || seen.len() < MAX_IDENTITIES || *identity == Identity::Job {
            seen.insert(key, pinned.clone());
        }
        Ok(pinned)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Identity, Option<String>), Pinned>> {
        // No code that holds the lock can panic half-way through a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Person or application, and the sandbox's mark.
    fn find_wrong_kind(&self, identity: &Identity, new: &Principal) -> Option<Mismatch> {
        let is_sandbox = self.strategy == Strategy::Sandbox;
        if new.sandbox != is_sandbox {
            let name = |marked: bool| {
                if marked {
                    "a sandbox token"
                } else {
                    "an issuer's token"
                }
            };
            return Some(Mismatch {
                what: "kind of issuer",
                expected: name(is_sandbox).to_owned(),
                found: name(new.sandbox).to_owned(),
                why: format!("the strategy is {}", self.strategy),
                hint: "A sandbox and real tokens never mix: start the job without --sandbox, or in it alone.",
            });
        }
        let (wrong, hint) = match self.strategy {
            Strategy::UserIdentity => (
                PrincipalKind::App,
                "The on-behalf-of endpoint answered for the compute instead of the submitting user: check the job's identity setting (user_identity), on each step in a pipeline.",
            ),
            Strategy::ComputeInstanceUser => (
                PrincipalKind::App,
                "Single sign-on is off on this compute instance, so its endpoint answers for the managed identity: set strategy = \"system-identity\" if that is what you want.",
            ),
            Strategy::ComputeIdentity
            | Strategy::Kubernetes
            | Strategy::SystemIdentity
            | Strategy::ServicePrincipal => (
                PrincipalKind::User,
                "The endpoint answered with a person's token, as a compute instance with single sign-on does: set strategy = \"compute-instance-user\" if that is what you want, else give the compute a managed identity.",
            ),
            Strategy::AzureCli | Strategy::Sandbox => return None,
        };
        // A name in the request is a managed identity's, whatever the strategy.
        (new.kind == Some(wrong)).then(|| Mismatch {
            what: "kind of principal",
            expected: match wrong {
                PrincipalKind::User => "app",
                PrincipalKind::App => "user",
            }
            .to_owned(),
            found: wrong.as_str().to_owned(),
            why: match identity {
                Identity::Job => format!("the strategy is {}", self.strategy),
                Identity::Application { .. } => CONFIGURED.to_owned(),
                named => format!("the request named {named}"),
            },
            // The strategy is not what a request that names somebody is about.
            hint: match identity {
                Identity::Job | Identity::Application { .. } => hint,
                _ => "The request names an identity, and the endpoint answered for another kind of principal: correct the name (SDKs take it from AZURE_CLIENT_ID), assign that identity to the compute, or ask without naming one.",
            },
        })
    }

    fn find_wrong_id(
        &self,
        identity: &Identity,
        tenant: Option<&str>,
        new: &Principal,
    ) -> Option<Mismatch> {
        const STRATEGY: &str = "the strategy announced it";
        const REQUEST: &str = "the request named it";
        const CHECK_EXPECT: &str =
            "Correct `expect` in jobcred's configuration, or the identity of the job.";
        const CHECK_IDENTITY: &str = "The endpoint answered with another identity than the one it was asked for: check which identities are assigned to the compute.";
        const CHECK_TENANT: &str = "The issuer answered for another tenant than the one it was asked for: check the tenant's id.";

        const CHECK_APPLICATION: &str = "The issuer answered for another application or tenant than the configured one: check `federated` and `authority_host`.";
        if let Identity::Application {
            client_id,
            tenant_id,
        } = identity
        {
            // What the configuration expects of the job's own identity does not hold for it.
            let tenant = Some(tenant_id.as_str()).filter(|tenant| is_guid(tenant));
            return first_wrong([
                (
                    "client id",
                    Some(client_id.as_str()),
                    &new.app_id,
                    CONFIGURED,
                    CHECK_APPLICATION,
                ),
                (
                    "tenant",
                    tenant,
                    &new.tenant_id,
                    CONFIGURED,
                    CHECK_APPLICATION,
                ),
            ]);
        }
        let tenant = tenant.filter(|tenant| is_guid(tenant));
        let is_job = *identity == Identity::Job;
        let is_home = tenant.is_none();
        let named_app = match identity {
            Identity::ClientId(id) => Some(id.as_str()),
            _ => None,
        };
        let named_object = match identity {
            Identity::ObjectId(id) => Some(id.as_str()),
            _ => None,
        };
        // An application has one client id everywhere, and another object id in every tenant.
        let rules = [
            (
                "client id",
                self.app_id.as_deref().filter(|_| is_job),
                &new.app_id,
                STRATEGY,
                CHECK_IDENTITY,
            ),
            (
                "client id",
                self.expect.client_id.as_deref().filter(|_| is_job),
                &new.app_id,
                CONFIG,
                CHECK_EXPECT,
            ),
            ("client id", named_app, &new.app_id, REQUEST, CHECK_IDENTITY),
            (
                "object id",
                self.expect
                    .object_id
                    .as_deref()
                    .filter(|_| is_job && is_home),
                &new.object_id,
                CONFIG,
                CHECK_EXPECT,
            ),
            (
                "object id",
                named_object,
                &new.object_id,
                REQUEST,
                CHECK_IDENTITY,
            ),
            (
                "tenant",
                self.expect.tenant_id.as_deref(),
                &new.tenant_id,
                CONFIG,
                CHECK_EXPECT,
            ),
            (
                "tenant",
                self.tenant_id.as_deref().filter(|_| is_home),
                &new.tenant_id,
                STRATEGY,
                CHECK_TENANT,
            ),
            ("tenant", tenant, &new.tenant_id, REQUEST, CHECK_TENANT),
        ];
        first_wrong(rules)
    }
}

/// What is checked, what it has to be, what the token says, who says what it has to be, and what to do.
type Rule<'a> = (
    &'static str,
    Option<&'a str>,
    &'a Option<String>,
    &'static str,
    &'static str,
);

fn first_wrong<'a>(rules: impl IntoIterator<Item = Rule<'a>>) -> Option<Mismatch> {
    rules
        .into_iter()
        .find_map(|(what, expected, found, why, hint)| {
            let expected = expected?;
            // Whoever configures an expectation wants it held: a token that does not tell cannot be known to meet it.
            let found = match found.as_deref() {
                Some(found) => found,
                None if why == CONFIG => "not told by the token",
                None => return None,
            };
            (!expected.eq_ignore_ascii_case(found)).then(|| Mismatch {
                what,
                expected: expected.to_owned(),
                found: found.to_owned(),
                why: why.to_owned(),
                hint,
            })
        })
}

/// What earlier tokens said and this one says otherwise.
fn find_change(old: &Principal, new: &Principal) -> Option<Mismatch> {
    let kind = |principal: &Principal| principal.kind.map(|kind| kind.as_str().to_owned());
    [
        ("tenant", old.tenant_id.clone(), new.tenant_id.clone()),
        ("object id", old.object_id.clone(), new.object_id.clone()),
        ("client id", old.app_id.clone(), new.app_id.clone()),
        ("kind of principal", kind(old), kind(new)),
    ]
    .into_iter()
    .find_map(|(what, old, new)| {
        let (expected, found) = (old?, new?);
        (expected != found).then(|| Mismatch {
            what,
            expected,
            found,
            why: EARLIER.to_owned(),
            hint: "The identity behind the endpoint was changed while the job ran. Undo the change, or start the job again to use the new one.",
        })
    })
}

/// Keeps what is known and adds what is new, so that a claim seen once is held to.
fn merge(old: Option<Principal>, new: Principal) -> Principal {
    let Some(old) = old else { return new };
    Principal {
        object_id: old.object_id.or(new.object_id),
        app_id: old.app_id.or(new.app_id),
        tenant_id: old.tenant_id.or(new.tenant_id),
        kind: old.kind.or(new.kind),
        ..new
    }
}

fn refuse(
    identity: &Identity,
    token: &AccessToken,
    new: &Principal,
    mismatch: Mismatch,
) -> TokenError {
    let Mismatch {
        what,
        expected,
        found,
        why,
        hint,
    } = mismatch;
    tracing::error!(
        %identity,
        resource = token.resource,
        what,
        expected,
        found,
        why,
        object_id = new.object_id,
        app_id = new.app_id,
        tenant_id = new.tenant_id,
        kind = new.kind.map(PrincipalKind::as_str),
        hint,
        "REFUSED a token of another principal than the announced one"
    );
    let error = TokenError::new(
        ErrorCode::Rejected,
        format!(
            "refused a token for {}: its {what} is {found}, not {expected} ({why})",
            token.resource
        ),
    )
    .with_hint(hint);
    // Without jobcred the job would have been given it.
    if why == EARLIER {
        error.blocked()
    } else {
        error
    }
}
