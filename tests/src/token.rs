//! Minting: access tokens that a storage emulator takes for real ones, each of them remembered.
//!
//! The claims are those of a version 1 Entra token. The signature is random bytes: emulators don't check it, and it
//! makes every token of a size and a shape that real ones have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::secrets::Secrets;

/// The tenant of a principal that names none.
pub const DEFAULT_TENANT: &str = "6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10";

/// Whether a token speaks for an application (a managed identity is one) or for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// `idtyp` is `app`.
    #[default]
    Application,
    /// `idtyp` is `user`, with a user name and a delegated scope.
    User,
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Principal {
    /// Claim `tid`; also the last part of `iss`.
    pub tenant_id: String,
    /// Claims `oid` and `sub`.
    pub object_id: String,
    /// Claim `appid`; the client id of a managed identity.
    pub client_id: String,
    /// Claim `idtyp`.
    pub kind: PrincipalKind,
}

impl Default for Principal {
    fn default() -> Self {
        Self::application()
    }
}

impl Principal {
    /// A managed identity with ids of its own, in the default tenant.
    #[must_use]
    pub fn application() -> Self {
        Self {
            tenant_id: DEFAULT_TENANT.to_owned(),
            object_id: guid(),
            client_id: guid(),
            kind: PrincipalKind::Application,
        }
    }

    /// A person with ids of its own, in the default tenant.
    #[must_use]
    pub fn user() -> Self {
        Self {
            kind: PrincipalKind::User,
            ..Self::application()
        }
    }
}

/// One token that was handed out.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct IssuedToken {
    /// The token itself.
    pub token: String,
    /// Whom it speaks for.
    pub principal: Principal,
    /// Claim `aud`, as asked.
    pub audience: String,
    /// Claim `iat`, unix seconds by the double's clock.
    pub issued_on: i64,
    /// Claim `exp`, unix seconds.
    pub expires_on: i64,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("IssuedToken")
            .field("principal", &self.principal)
            .field("audience", &self.audience)
            .field("expires_on", &self.expires_on)
            .finish_non_exhaustive()
    }
}

/// What mints a double's tokens. Clones share everything.
#[derive(Clone)]
pub struct Mint {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    clock: Clock,
    secrets: Secrets,
    state: Mutex<State>,
}

struct State {
    lifetime: i64,
    repeat: bool,
    impostor: Option<Principal>,
    claims: BTreeMap<String, Value>,
    issued: Vec<IssuedToken>,
}

impl fmt::Debug for Mint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Mint")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl Mint {
    /// A mint whose tokens live `lifetime` seconds by `clock` and are added to `secrets` under `name`.
    #[must_use]
    pub fn new(name: &str, lifetime: i64, clock: Clock, secrets: Secrets) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.to_owned(),
                clock,
                secrets,
                state: Mutex::new(State {
                    lifetime,
                    repeat: false,
                    impostor: None,
                    claims: BTreeMap::new(),
                    issued: Vec::new(),
                }),
            }),
        }
    }

    /// How long tokens minted from now on live, in seconds. May be negative: such a token has expired already.
    pub fn set_lifetime(&self, seconds: i64) {
        self.lock().lifetime = seconds;
    }

    /// Whether a live token is handed out again for the same principal and audience, as the platform's own cache does
    /// for about a day. Off at first.
    pub fn set_repeat(&self, repeat: bool) {
        self.lock().repeat = repeat;
    }

    /// From now on every token speaks for `principal`, whoever was asked for; `None` ends the lie.
    pub fn set_impostor(&self, principal: Option<Principal>) {
        self.lock().impostor = principal;
    }

    /// Claims put into every token minted from now on; they win over the usual ones. `null` takes a claim away.
    pub fn set_claims(&self, claims: impl IntoIterator<Item = (String, Value)>) {
        self.lock().claims = claims.into_iter().collect();
    }

    /// Every token handed out so far, oldest first; a repeated one is listed once.
    #[must_use]
    pub fn issued(&self) -> Vec<IssuedToken> {
        self.lock().issued.clone()
    }

    /// Mints a token for `principal`, or repeats one (see [`Mint::set_repeat`]).
    #[must_use]
    pub fn issue(&self, principal: &Principal, audience: &str) -> IssuedToken {
        let now = self.shared.clock.now();
        let mut state = self.lock();
        let principal = state.impostor.clone().unwrap_or_else(|| principal.clone());
        if state.repeat {
            let again = state.issued.iter().rev().find(|earlier| {
                earlier.principal == principal
                    && earlier.audience == audience
                    && earlier.expires_on > now
            });
            if let Some(again) = again {
                return again.clone();
            }
        }
        let expires_on = now.saturating_add(state.lifetime);
        let mut claims = claims(&principal, audience, now, expires_on);
        if let Value::Object(claims) = &mut claims {
            for (name, value) in &state.claims {
                if value.is_null() {
                    claims.remove(name);
                } else {
                    claims.insert(name.clone(), value.clone());
                }
            }
        }
        let token = write_token(&claims);
        self.shared.secrets.add(
            format!("{} token {}", self.shared.name, state.issued.len() + 1),
            &token,
        );
        let issued = IssuedToken {
            token,
            principal,
            audience: audience.to_owned(),
            issued_on: now,
            expires_on,
        };
        state.issued.push(issued.clone());
        issued
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn claims(principal: &Principal, audience: &str, now: i64, expires_on: i64) -> Value {
    let tenant = &principal.tenant_id;
    // Tokens for the exchange are of the second version, whose issuer applications name when they trust an identity.
    let issuer = if audience.starts_with("api://AzureADTokenExchange") {
        format!("https://login.microsoftonline.com/{tenant}/v2.0")
    } else {
        format!("https://sts.windows.net/{tenant}/")
    };
    let mut claims = json!({
        "aud": audience,
        "iss": issuer,
        "iat": now,
        "nbf": now,
        "exp": expires_on,
        "appid": principal.client_id,
        "oid": principal.object_id,
        "sub": principal.object_id,
        "tid": tenant,
        "jti": guid(),
        "ver": "1.0",
    });
    if let Value::Object(claims) = &mut claims {
        match principal.kind {
            PrincipalKind::Application => {
                claims.insert("idtyp".into(), json!("app"));
                claims.insert("appidacr".into(), json!("2"));
            }
            PrincipalKind::User => {
                claims.insert("idtyp".into(), json!("user"));
                claims.insert("scp".into(), json!("user_impersonation"));
                claims.insert("upn".into(), json!("someone@example.org"));
            }
        }
    }
    claims
}

fn write_token(claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "double", "x5t": "double"});
    let signature: [u8; 256] = random();
    format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string()),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

/// The claims of a three-part token, unchecked. `None` when it isn't one.
#[must_use]
pub fn decode_claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}

/// Random bytes.
#[expect(
    clippy::expect_used,
    reason = "a machine without a random source can run no test at all"
)]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the machine's random source answers");
    bytes
}

/// A random secret of 32 hexadecimal digits, as platforms put into a variable.
#[must_use]
pub fn random_secret() -> String {
    guid().replace('-', "")
}

/// A random GUID (version 4).
#[must_use]
pub fn guid() -> String {
    let value = u128::from_be_bytes(random());
    // Version and variant bits as RFC 9562 sets them.
    let value = value & !(0xf << 76) | (0x4 << 76);
    let value = value & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{value:032x}");
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    groups
        .map(|group| hex.get(group).unwrap_or_default())
        .join("-")
}

/// Whether `text` has the form of a GUID.
#[must_use]
pub fn is_guid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12])
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mint() -> Mint {
        Mint::new("test", 3600, Clock::new(), Secrets::new())
    }

    #[test]
    fn a_token_says_what_a_storage_emulator_wants_to_read() {
        let principal = Principal::application();
        let issued = mint().issue(&principal, "https://storage.azure.com/");
        let claims = decode_claims(&issued.token).unwrap();
        assert_eq!(claims["aud"], "https://storage.azure.com/");
        assert_eq!(
            claims["iss"],
            format!("https://sts.windows.net/{DEFAULT_TENANT}/")
        );
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap(),
            3600
        );
        assert_eq!(claims["oid"], principal.object_id);
        assert_eq!(claims["appid"], principal.client_id);
        assert_eq!(claims["idtyp"], "app");
    }

    #[test]
    fn tokens_differ_unless_the_platform_repeats_them() {
        let (mint, principal) = (mint(), Principal::user());
        let first = mint.issue(&principal, "a");
        assert_ne!(first.token, mint.issue(&principal, "a").token);
        mint.set_repeat(true);
        let second = mint.issue(&principal, "a");
        assert_eq!(second.token, mint.issue(&principal, "a").token);
        assert_ne!(second.token, mint.issue(&principal, "b").token);
        assert_eq!(mint.issued().len(), 3);
    }

    #[test]
    fn a_repeated_token_that_has_expired_is_replaced() {
        let (mint, principal) = (mint(), Principal::application());
        mint.set_repeat(true);
        mint.set_lifetime(-1);
        let expired = mint.issue(&principal, "a");
        assert_ne!(expired.token, mint.issue(&principal, "a").token);
    }

    #[test]
    fn an_impostor_speaks_in_every_token_until_the_lie_ends() {
        let (mint, asked, other) = (mint(), Principal::application(), Principal::application());
        mint.set_impostor(Some(other.clone()));
        assert_eq!(mint.issue(&asked, "a").principal, other);
        mint.set_impostor(None);
        assert_eq!(mint.issue(&asked, "a").principal, asked);
    }

    #[test]
    fn every_token_is_among_the_secrets() {
        let secrets = Secrets::new();
        let mint = Mint::new("m", 60, Clock::new(), secrets.clone());
        let issued = mint.issue(&Principal::application(), "a");
        assert_eq!(secrets.leaks(&issued.token)[0].name, "m token 1");
        assert!(!format!("{issued:?}").contains(&issued.token));
    }

    #[test]
    fn guids_have_their_form() {
        assert!(is_guid(&guid()));
        assert!(!is_guid("clientid"));
        assert!(!is_guid(""));
    }
}
