//! Tokens that look right and are worth nothing: for laptops, CI and demos with a storage emulator.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jobcred_wire::Secret;
use serde_json::json;

use super::ask::refuse_tenant;
use super::service_principal::check_identity;
use super::{Source, SourceRequest};
use crate::error::TokenError;
use crate::platform::Clock;
use crate::principal::SANDBOX_CLAIM;
use crate::token::AccessToken;

/// Ids that no one can take for real ones.
const TENANT: &str = "5a5a5a5a-0000-4000-8000-000000000001";
const OBJECT: &str = "5a5a5a5a-0000-4000-8000-000000000002";
const CLIENT: &str = "5a5a5a5a-0000-4000-8000-000000000003";
/// Tokens are valid a little before they are issued, so that clocks may differ.
const ALLOWED_SKEW: Duration = Duration::from_secs(300);

/// Issues sandbox tokens, each different from the last.
///
/// They have the three parts and the claims that Azurite checks (`nbf`, `exp`, `iat`, a v1 `iss`, `aud`). The signature is
/// random bytes: nothing that verifies one can ever accept it.
#[derive(Debug)]
pub struct SandboxSource {
    clock: Clock,
    lifetime: Duration,
}

impl SandboxSource {
    /// `lifetime` is that of each token, at least a second.
    pub fn new(clock: Clock, lifetime: Duration) -> Result<Self, getrandom::Error> {
        // Found out at start rather than with the first token.
        random()?;
        Ok(Self {
            clock,
            lifetime: lifetime.max(Duration::from_secs(1)),
        })
    }
}

#[async_trait]
impl Source for SandboxSource {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    async fn fetch(&self, request: &SourceRequest) -> Result<AccessToken, TokenError> {
        refuse_tenant(request, "the sandbox")?;
        check_identity(request, CLIENT)?;
        let now = self.clock.now();
        let expires_on = (now + self.lifetime).to_second();
        let random = random().map_err(|error| {
            TokenError::new(
                jobcred_wire::ErrorCode::Internal,
                format!("the sandbox has no randomness: {error}"),
            )
        })?;
        let header = json!({"typ": "JWT", "alg": "HS256", "kid": "jobcred-sandbox"});
        let claims = json!({
            "aud": request.resource.as_str(),
            "iss": format!("https://sts.windows.net/{TENANT}/"),
            "iat": now.as_secs(),
            "nbf": (now - ALLOWED_SKEW).as_secs(),
            "exp": expires_on.as_secs(),
            "appid": CLIENT,
            "oid": OBJECT,
            "sub": OBJECT,
            "tid": TENANT,
            "idtyp": "app",
            "uti": URL_SAFE_NO_PAD.encode(&random[..16]),
            "ver": "1.0",
            SANDBOX_CLAIM: true,
        });
        let token = [
            header.to_string().as_bytes(),
            claims.to_string().as_bytes(),
            &random,
        ]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
        Ok(AccessToken {
            secret: Secret::from(token),
            expires_on,
            refresh_on: None,
            resource: request.resource.as_str().to_owned(),
            client_id: Some(CLIENT.to_owned()),
        })
    }
}

fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
