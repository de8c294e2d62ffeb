//! The managed-identity dialects, by which unmodified SDKs ask: HTTP on loopback TCP in the form of each platform's endpoint.
//!
//! A request passes the guard, shows that it may ask at all (the secret, or a path that only who was told can know, and its
//! uid), is read by its dialect, and goes the way of every other request from policy on. Nothing is ever forwarded.

mod app_service;
mod azure_ml;
mod caller;
#[cfg(fuzzing)]
pub mod fuzz;
mod imds;
mod keys;
mod listen;
mod offers;
mod on_behalf_of;
mod query;
mod reply;
mod routes;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, Method, Request, StatusCode};
use hyper::body::Incoming;
use jobcred_wire::{ErrorCode, Secret};

pub use self::caller::{Caller, SocketTable};
pub use self::keys::{Keys, Variable, names_of};
pub use self::listen::MAX_CONNECTIONS;
pub use self::offers::{Endpoints, Kept};

use self::query::Query;
use super::guard;
use super::native::NativeApi;
use super::reply::{Reply, RequestId};
use super::turned_away::TurnedAway;
use crate::config::Dialect;
use crate::error::TokenError;
use crate::peer::Admission;

impl Dialect {
    /// Whether its clients send a secret. For the others the path has to be one.
    #[must_use]
    pub fn has_secret(self) -> bool {
        self.secret_header().is_some()
    }

    fn secret_header(self) -> Option<HeaderName> {
        match self {
            Self::AppService => Some(app_service::SECRET_HEADER),
            Self::AzureMl => Some(azure_ml::SECRET_HEADER),
            Self::OnBehalfOf | Self::Imds => None,
        }
    }

    /// Reads a request that may be asked.
    fn read(self, parts: &Parts) -> Result<Query, TokenError> {
        if self == Self::Imds {
            imds::want_header(&parts.headers)?;
        }
        let query = parts.uri.query().unwrap_or_default();
        let query = query::read(query, self == Self::AzureMl)?;
        match self {
            Self::AppService => app_service::check(&query)?,
            Self::AzureMl => azure_ml::check(&query)?,
            Self::OnBehalfOf => {}
            Self::Imds => imds::check(&query)?,
        }
        Ok(query)
    }
}

/// One endpoint: what is answered to the connections of one listener.
#[derive(Debug)]
pub struct IdentityEndpoint {
    api: Arc<NativeApi>,
    admission: Admission,
    keys: Keys,
    port: u16,
    turned_away: TurnedAway,
}

/// A request that is refused before its query is looked at.
struct Refused {
    status: Option<StatusCode>,
    error: TokenError,
}

impl IdentityEndpoint {
    fn new(api: Arc<NativeApi>, admission: Admission, keys: Keys, port: u16) -> Self {
        Self {
            api,
            admission,
            keys,
            port,
            turned_away: TurnedAway::default(),
        }
    }

    /// Whether the caller is of the agent's own user.
    fn is_own(&self, caller: Caller) -> bool {
        caller.uid == Some(self.admission.own_uid())
    }

    /// The answer to one request. Never fails: an error is an answer too.
    async fn answer(&self, caller: Caller, request: Request<Incoming>) -> Reply {
        let id = self.api.ids.next();
        let (parts, _body) = request.into_parts();
        let dialect = route(parts.uri.path(), self.keys.prefix.as_ref());
        // Where there is no such path, the shape that most clients understand.
        let shape = dialect.unwrap_or(Dialect::AppService);
        if let Err(Refused { status, error }) = self.admit(caller, dialect, &parts) {
            self.turned_away.note(id, &caller, &error);
            self.api.count_denial(caller.uid, None, &error);
            return match status {
                Some(status) => reply::refuse_with(status, shape, id, &error),
                None => reply::refuse(shape, id, &error),
            };
        }
        match self.token(caller, id, shape, &parts).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::info!(
                    request.id = %id, %caller, dialect = shape.name(), code = %error.kind(), error = %error,
                    issuer.code = error.issuer_code(), cause = error.causes(),
                    "refused"
                );
                if error.kind() == ErrorCode::Denied {
                    self.api.count_denial(caller.uid, None, &error);
                }
                reply::refuse(shape, id, &error)
            }
        }
    }

    fn admit(
        &self,
        caller: Caller,
        dialect: Option<Dialect>,
        parts: &Parts,
    ) -> Result<(), Refused> {
        knock(dialect, parts, &self.keys, self.port)?;
        match caller.uid {
            Some(uid) => Ok(guard::check_uid(&self.admission, uid)?),
            None => {
                Err(TokenError::new(ErrorCode::Denied, "the kernel does not tell who asks").into())
            }
        }
    }

    async fn token(
        &self,
        caller: Caller,
        id: RequestId,
        dialect: Dialect,
        parts: &Parts,
    ) -> Result<Reply, TokenError> {
        let query = dialect.read(parts)?;
        if let Some(uid) = caller.uid {
            self.api.callers.note(uid, None, self.api.clock.now());
        }
        let held = self.api.by_dialect(dialect, &query.request).await?;
        let now = self.api.clock.now();
        let resource = &query.resource;
        let body = match dialect {
            Dialect::AppService => app_service::answer(&held, resource),
            Dialect::AzureMl | Dialect::OnBehalfOf => azure_ml::answer(&held, resource, now),
            Dialect::Imds => imds::answer(&held, resource, now),
        };
        let body = body
            .ok_or_else(|| TokenError::new(ErrorCode::Internal, "the answer cannot be written"))?;
        tracing::debug!(request.id = %id, %caller, dialect = dialect.name(), "answered");
        Ok(super::reply::json_bytes(id, body))
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self {
            status: None,
            error,
        }
    }
}

/// Whether a request shows what one to this endpoint has to show, whoever sends it.
fn knock(dialect: Option<Dialect>, parts: &Parts, keys: &Keys, port: u16) -> Result<(), Refused> {
    guard::check_endpoint(parts, port)?;
    let Some(dialect) = dialect else {
        return Err(invalid("there is no such path").into());
    };
    if parts.method != Method::GET {
        return Err(Refused {
            status: Some(StatusCode::METHOD_NOT_ALLOWED),
            error: invalid("tokens are asked for by GET"),
        });
    }
    if let Some(header) = dialect.secret_header() {
        let given = parts.headers.get(&header);
        if !given.is_some_and(|given| keys::is_secret(given.as_bytes(), &keys.secret)) {
            let what = if given.is_some() { "wrong" } else { "missing" };
            return Err(Refused {
                status: Some(StatusCode::UNAUTHORIZED),
                error: TokenError::new(
                    ErrorCode::Denied,
                    format!("the header {header} is {what}"),
                )
                .with_hint("It goes with the endpoint's variables, which are new for every `jobcred run`. `jobcred env` prints them, and beside a sidecar `endpoint.env` has them."),
            });
        }
    }
    Ok(())
}

/// The dialect of a path.
fn route(path: &str, prefix: Option<&Secret>) -> Option<Dialect> {
    if path == app_service::PATH {
        return Some(Dialect::AppService);
    }
    if path.strip_suffix('/').unwrap_or(path) == azure_ml::PATH {
        return Some(Dialect::AzureMl);
    }
    let (first, _) = path.strip_prefix('/')?.split_once('/')?;
    if !keys::is_secret(first.as_bytes(), prefix?) {
        return None;
    }
    let rest = path.get(first.len() + 1..)?;
    if rest == on_behalf_of::PATH {
        return Some(Dialect::OnBehalfOf);
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.eq_ignore_ascii_case(imds::PATH)
        .then_some(Dialect::Imds)
}

fn invalid(message: &str) -> TokenError {
    TokenError::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use jobcred_wire::Secret;
    use proptest::prelude::*;

    use super::route;
    use crate::config::Dialect;

    #[test]
    fn paths_are_exact_and_those_without_a_secret_are_behind_the_prefix() {
        let prefix = Secret::from("0123");
        for (path, dialect) in [
            ("/msi/token", Some(Dialect::AppService)),
            ("/MSI/auth", Some(Dialect::AzureMl)),
            ("/MSI/auth/", Some(Dialect::AzureMl)),
            ("/0123/OBO/token", Some(Dialect::OnBehalfOf)),
            ("/0123/metadata/identity/oauth2/token", Some(Dialect::Imds)),
            ("/0123/metadata/identity/oauth2/token/", Some(Dialect::Imds)),
            ("/0123/Metadata/Identity/OAuth2/Token", Some(Dialect::Imds)),
            ("/msi/token/", None),
            ("/msi/token/x", None),
            ("//msi/token", None),
            ("/MSI/token", None),
            ("/msi/auth", None),
            ("/MSI/auth//", None),
            ("/OBO/token", None),
            ("/metadata/identity/oauth2/token", None),
            ("/0124/OBO/token", None),
            ("//OBO/token", None),
            ("/0123/msi/token", None),
            ("/0123/metadata/instance", None),
            ("/0123/metadata/identity/oauth2/token//", None),
            ("/0123", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(route(path, Some(&prefix)), dialect, "{path}");
            let open = dialect.filter(|dialect| dialect.has_secret());
            assert_eq!(route(path, None), open, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in any::<String>(), prefix in "[a-z]{1,4}") {
            let _ = route(&path, Some(&Secret::from(prefix.as_str())));
        }

        /// However a path is put together, what has no secret of its own is behind the prefix, whole.
        #[test]
        fn nothing_without_a_secret_is_reached_around_the_prefix(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("/"), Just("0123"), Just("012"), Just("/OBO/token"), Just("/msi/token"), Just("/MSI/auth"), Just(".."), Just("%2f"),
                    Just("/metadata/identity/oauth2/token"), Just("/METADATA/IDENTITY/OAUTH2/TOKEN"), Just("//"), Just("*"), Just("?"),
                ],
                0..5,
            ),
        ) {
            let path = parts.concat();
            let prefix = Secret::from("0123");
            match route(&path, Some(&prefix)) {
                Some(Dialect::OnBehalfOf) => prop_assert_eq!(path.as_str(), "/0123/OBO/token"),
                Some(Dialect::Imds) => {
                    let lower = path.to_ascii_lowercase();
                    let whole = "/0123/metadata/identity/oauth2/token";
                    prop_assert_eq!(lower.strip_suffix('/').unwrap_or(&lower), whole);
                }
                Some(Dialect::AppService) => prop_assert_eq!(path.as_str(), "/msi/token"),
                Some(Dialect::AzureMl) => prop_assert_eq!(path.strip_suffix('/').unwrap_or(&path), "/MSI/auth"),
                None => {}
            }
            prop_assert!(route(&path, None).is_none_or(Dialect::has_secret));
        }
    }
}
