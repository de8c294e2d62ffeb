//! Sources against scripted endpoints on real sockets.

mod azure_cli;
mod choice;
mod doubles;
mod endpoints;
mod entra;
mod federated;
mod on_behalf_of;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Outside, Source, SourceRequest};
use crate::error::TokenError;
use crate::platform::{Clock, Environment, Files};
use crate::resource::{Cloud, Resource};
use crate::token::{AccessToken, Identity};
use crate::transport::Transport;
use crate::transport::testing::{NOW, Reply, json as reply, transport};

/// A client id to name.
const GUID: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
const VAULT: &str = "https://vault.azure.net";

/// An unsigned token with these claims.
pub(super) fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(claims))
}

fn outside() -> Outside {
    with(transport())
}

fn with(transport: Transport) -> Outside {
    Outside {
        transport: Arc::new(transport),
        clock: Clock::with_runtime(NOW),
        files: Files::system(),
        environment: Environment::default(),
        sandbox_lifetime: Duration::from_secs(3600),
    }
}

fn ask_as(identity: Identity) -> SourceRequest {
    SourceRequest {
        identity,
        resource: Resource::parse(VAULT, Cloud::Public),
        tenant: None,
        claims: None,
    }
}

async fn fetch(source: &dyn Source, identity: Identity) -> Result<AccessToken, TokenError> {
    source.fetch(&ask_as(identity)).await
}

/// A good answer with an opaque token.
fn good() -> Reply {
    let expires_on = NOW.as_secs() + 3600;
    reply(
        200,
        &json!({"access_token": "opaque", "expires_on": expires_on}),
    )
}

fn refusal(status: u16, code: &str, text: &str) -> Reply {
    reply(status, &json!({"error": code, "error_description": text}))
}
