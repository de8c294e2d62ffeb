//! The two requests about endpoints on the agent's own socket: a `run` offers one, and a shell learns of one.

use std::collections::BTreeMap;

use http::request::Parts;
use jobcred_wire::{ErrorCode, PREFIX_HEADER, SECRET_HEADER, Secret};

use super::Keys;
use crate::config::Dialect;
use crate::error::TokenError;
use crate::front::handed::Handed;
use crate::front::native::{NativeApi, not_own};
use crate::front::reply::{self, Reply, RequestId};
use crate::peer::Peer;

impl NativeApi {
    /// Opens an identity endpoint on the listener that came along, until the connection closes. Only for the agent's own user.
    pub(in crate::front) fn open_endpoint(
        &self,
        id: RequestId,
        peer: Peer,
        parts: &Parts,
    ) -> Result<Reply, TokenError> {
        if !self.admission.is_own(&peer) {
            return Err(not_own(peer, "may not open an endpoint"));
        }
        let invalid = |message: &str| TokenError::new(ErrorCode::InvalidRequest, message);
        let secret = |name: &str| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some(Secret::from(value)).filter(|secret| !secret.is_empty())
        };
        let keys = Keys {
            secret: secret(SECRET_HEADER).ok_or_else(|| invalid("no secret came along"))?,
            prefix: secret(PREFIX_HEADER),
        };
        let descriptor = parts.extensions.get::<Handed>().and_then(Handed::take);
        let descriptor = descriptor.ok_or_else(|| invalid("no listener came along"))?;
        let kept = self
            .endpoints
            .open_handed(descriptor, self.admission.of_run_endpoint(), keys)
            .map_err(|error| {
                invalid("the descriptor that came along is no listener on loopback")
                    .with_source(error)
            })?;
        Ok(reply::until_closed(id, kept))
    }

    /// What leads SDKs to an endpoint that is open. Only for the agent's own user: it has the secret in it.
    pub(in crate::front) fn show_endpoint(
        &self,
        id: RequestId,
        peer: Peer,
    ) -> Result<Reply, TokenError> {
        if !self.admission.is_own(&peer) {
            return Err(not_own(peer, "may not ask for the endpoint's secret"));
        }
        let mut variables = BTreeMap::new();
        if let Some((address, keys)) = self.endpoints.any() {
            for dialect in Dialect::ALL {
                variables.extend(keys.variables(dialect, address));
            }
        }
        Ok(reply::json(
            id,
            &serde_json::json!({"variables": variables}),
        ))
    }
}
