//! What kind of registry the double is.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How an [`Acr`](super::Acr) double behaves when nothing else is said. All but `bind` can be changed while it runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about a registry"
)]
pub struct AcrOptions {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Its name: `service` in the challenge and `aud` of its tokens.
    pub login_server: String,
    /// The host in the challenge's realm, when it is not the login server itself.
    pub realm_host: Option<String>,
    /// A real registry that answers everything but `/oauth2`; without one there are no images.
    pub upstream: Option<SocketAddr>,
    /// Whether an Entra token for ARM is taken too (`azureADAuthenticationAsArmPolicy` enabled).
    pub arm_allowed: bool,
    /// Whether the identity has no role: the exchange says `DENIED`.
    pub denied: bool,
    /// Whether the firewall keeps the client out: 403 everywhere.
    pub firewalled: bool,
    /// Whether anybody may pull.
    pub anonymous_pull: bool,
    /// Whether the registry is in ABAC mode.
    pub abac: bool,
    /// Actions that the identity may take on repositories.
    pub actions: Vec<String>,
    /// Seconds that a refresh token lives.
    pub refresh_lifetime: i64,
    /// Seconds that an access token lives.
    pub access_lifetime: i64,
}

impl Default for AcrOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            login_server: "myreg.azurecr.io".to_owned(),
            realm_host: None,
            upstream: None,
            arm_allowed: true,
            denied: false,
            firewalled: false,
            anonymous_pull: false,
            abac: false,
            actions: ["pull", "push", "delete"].map(str::to_owned).to_vec(),
            refresh_lifetime: 3 * 3600,
            access_lifetime: 4500,
        }
    }
}
