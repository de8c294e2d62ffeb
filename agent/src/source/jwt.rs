//! The few claims a source needs from a token. Nothing is verified: the issuer's endpoint is trusted, and the audience
//! verifies.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::platform::UnixTime;

/// The claims of a token that is a JWT.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// `None` for an opaque token.
    pub(super) fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(claims)
            .or_else(|_| URL_SAFE.decode(claims))
            .ok()?;
        serde_json::from_slice(&bytes).ok().map(Self)
    }

    /// When the token ends.
    pub(super) fn expires_on(&self) -> Option<UnixTime> {
        super::answer::unix_time(self.0.get("exp")?)
    }

    /// The application the token was issued to: `appid` in v1 tokens, `azp` in v2.
    pub(super) fn app_id(&self) -> Option<&str> {
        ["appid", "azp"]
            .iter()
            .find_map(|name| self.0.get(*name)?.as_str())
    }
}
