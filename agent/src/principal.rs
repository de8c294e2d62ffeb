//! Whose token it is: what an access token says of itself, read without any check of its signature.
//!
//! The agent is no relying party: it reads claims to notice a token of the wrong identity before anyone uses it, never
//! to trust anyone. Names and e-mail addresses are not kept, so that no log can show them.

mod pin;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use jobcred_wire::PrincipalClaims;
use serde_json::{Map, Value};

use crate::platform::UnixTime;

pub use self::pin::{Pin, Pinned};

/// The claim by which the sandbox marks its tokens: `true`, and in no token of a real issuer.
pub const SANDBOX_CLAIM: &str = "jobcred_sandbox";

/// The longest token that is read, in bytes. Entra's are 1 to 10 KiB; one with many groups stays below 32.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// The longest id that is kept, in bytes. Entra's are GUIDs of 36.
const MAX_ID_BYTES: usize = 64;
/// The longest audience that is kept, in bytes.
const MAX_AUDIENCE_BYTES: usize = 512;

/// base64url with padding or without: issuers leave it out, some stand-ins do not.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Whether a token was issued to a person or to an application (managed identities are applications).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A person, possibly through an application.
    User,
    /// An application on its own.
    App,
}

/// What a token says of whom it was issued to. Ids are lower case; what the token does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// `oid`.
    pub object_id: Option<String>,
    /// `appid` (v1) or `azp` (v2).
    pub app_id: Option<String>,
    /// `tid`.
    pub tenant_id: Option<String>,
    /// `aud`, the first one of a list.
    pub audience: Option<String>,
    /// Person or application.
    pub kind: Option<PrincipalKind>,
    /// `exp`.
    pub expires_on: Option<UnixTime>,
    /// Whether the sandbox's mark is there.
    pub sandbox: bool,
}

impl PrincipalKind {
    /// `user` or `app`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::App => "app",
        }
    }
}

impl Principal {
    /// Reads a JWT's claims. `None` for anything else: an opaque token is no error.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        let claims = read_claims(token)?;
        Some(Self {
            object_id: id(&claims, "oid"),
            app_id: id(&claims, "appid").or_else(|| id(&claims, "azp")),
            tenant_id: id(&claims, "tid"),
            audience: audience(&claims),
            kind: kind(&claims),
            expires_on: expiry(&claims),
            sandbox: claims.get(SANDBOX_CLAIM) == Some(&Value::Bool(true)),
        })
    }

    /// Whether both say the same of whose token it is.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.object_id, &self.app_id, &self.tenant_id, self.kind)
            == (
                &other.object_id,
                &other.app_id,
                &other.tenant_id,
                other.kind,
            )
    }

    /// What [`Self::to_wire`] made, read again.
    #[must_use]
    pub fn from_wire(claims: &PrincipalClaims) -> Self {
        Self {
            object_id: claims.object_id.clone(),
            app_id: claims.app_id.clone(),
            tenant_id: claims.tenant_id.clone(),
            audience: claims.audience.clone(),
            kind: match claims.kind.as_deref() {
                Some("user") => Some(PrincipalKind::User),
                Some("app") => Some(PrincipalKind::App),
                _ => None,
            },
            expires_on: claims.expires_on.map(UnixTime::from_secs),
            sandbox: claims.sandbox,
        }
    }

    /// The same for the wire.
    #[must_use]
    pub fn to_wire(&self) -> PrincipalClaims {
        PrincipalClaims {
            object_id: self.object_id.clone(),
            app_id: self.app_id.clone(),
            tenant_id: self.tenant_id.clone(),
            audience: self.audience.clone(),
            kind: self.kind.map(|kind| kind.as_str().to_owned()),
            expires_on: self.expires_on.map(UnixTime::as_secs),
            sandbox: self.sandbox,
        }
    }
}

/// The end of a JWT's life (`exp`) by a clock that shows `now`. Where that is behind the time the token was issued at, the end is
/// no further away than the whole of its life.
#[must_use]
pub fn jwt_expiry(token: &str, now: UnixTime) -> Option<UnixTime> {
    let claims = read_claims(token)?;
    let end = expiry(&claims)?;
    Some(match time(&claims, "iat") {
        Some(issued) if now < issued => end.min(now + end.since(issued)),
        _ => end,
    })
}

/// When a JWT was issued (`iat`): the groups in it are those of then, however fresh it looks.
#[must_use]
pub fn jwt_issued(token: &str) -> Option<UnixTime> {
    time(&read_claims(token)?, "iat")
}

/// Whether `text` is a GUID as Azure writes client, object and tenant ids: 8-4-4-4-12 hexadecimal digits, and not the nil one,
/// which names nobody.
#[must_use]
pub fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
        && text.bytes().any(|byte| byte != b'0' && byte != b'-')
}

/// The claims of a signed JWT (three parts). An encrypted one (five parts) has none that could be read.
fn read_claims(token: &str) -> Option<Map<String, Value>> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let bytes = BASE64URL.decode(payload).ok()?;
    match serde_json::from_slice(&bytes).ok()? {
        Value::Object(claims) => Some(claims),
        _ => None,
    }
}

/// An id in lower case. Only what can be an id: this is what keeps a name or an e-mail address out of the logs, whatever
/// an issuer puts there.
fn id(claims: &Map<String, Value>, name: &str) -> Option<String> {
    let text = claims.get(name)?.as_str()?;
    let is_id = (1..=MAX_ID_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id.then(|| text.to_ascii_lowercase())
}

fn audience(claims: &Map<String, Value>) -> Option<String> {
    let text = match claims.get("aud")? {
        Value::String(text) => text.as_str(),
        Value::Array(list) => list.first()?.as_str()?,
        _ => return None,
    };
    let is_kept = text.len() <= MAX_AUDIENCE_BYTES && !text.contains(char::is_control);
    is_kept.then(|| text.to_owned())
}

/// `idtyp` where the issuer adds it; else scopes and a user's name are only in a person's tokens, and an application's
/// own tokens have their object id as subject, or roles.
fn kind(claims: &Map<String, Value>) -> Option<PrincipalKind> {
    match claims.get("idtyp").and_then(Value::as_str) {
        Some("user") => return Some(PrincipalKind::User),
        Some("app") => return Some(PrincipalKind::App),
        _ => {}
    }
    let has = |name: &str| claims.get(name).is_some_and(|value| !value.is_null());
    if ["scp", "upn", "unique_name", "preferred_username"]
        .into_iter()
        .any(has)
    {
        return Some(PrincipalKind::User);
    }
    let subject_is_object = has("oid") && claims.get("oid") == claims.get("sub");
    (subject_is_object || has("roles")).then_some(PrincipalKind::App)
}

/// `exp` is a number that may have a fraction (RFC 7519). One before 1970 says nothing.
fn expiry(claims: &Map<String, Value>) -> Option<UnixTime> {
    time(claims, "exp")
}

fn time(claims: &Map<String, Value>, name: &str) -> Option<UnixTime> {
    let value = claims.get(name)?;
    if let Some(seconds) = value.as_i64() {
        return (seconds > 0).then(|| UnixTime::from_secs(seconds));
    }
    let seconds = value.as_f64()?;
    // Beyond this a float has no whole seconds any more, and no token lives that long.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let whole = (0.0..1e12).contains(&seconds).then_some(seconds as i64)?;
    Some(UnixTime::from_secs(whole))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{Principal, PrincipalKind, is_guid, jwt_expiry, jwt_issued};
    use crate::mutation::near;
    use crate::platform::UnixTime;

    const OID: &str = "11111111-2222-3333-4444-555555555555";

    fn token(claims: &Value) -> String {
        format!(
            "e30.{}.c2ln",
            URL_SAFE_NO_PAD.encode(claims.to_string().as_bytes())
        )
    }

    fn read(claims: &Value) -> Principal {
        Principal::from_token(&token(claims)).unwrap()
    }

    #[test]
    fn reads_v1_and_v2_tokens() {
        let v1 = read(&json!({
            "oid": "ABCDEF00-2222-3333-4444-555555555555", "appid": "A", "tid": "T",
            "aud": "https://storage.azure.com/", "exp": 1_700_000_000, "idtyp": "app",
        }));
        let expected = Principal {
            object_id: Some("abcdef00-2222-3333-4444-555555555555".to_owned()),
            app_id: Some("a".to_owned()),
            tenant_id: Some("t".to_owned()),
            audience: Some("https://storage.azure.com/".to_owned()),
            kind: Some(PrincipalKind::App),
            expires_on: Some(UnixTime::from_secs(1_700_000_000)),
            sandbox: false,
        };
        assert_eq!(v1, expected);
        let v2 = read(&json!({ "azp": "B", "aud": ["x", "y"], "exp": 1.5 }));
        assert_eq!(v2.app_id.as_deref(), Some("b"));
        assert_eq!(v2.audience.as_deref(), Some("x"));
        assert_eq!(v2.expires_on, Some(UnixTime::from_secs(1)));
        assert_eq!(v2.object_id, None);
    }

    #[test]
    fn padding_does_not_matter() {
        for text in [r#"{"oid":"a"}"#, r#"{"oid":"ab"}"#, r#"{"oid":"abc"}"#] {
            for payload in [URL_SAFE.encode(text), URL_SAFE_NO_PAD.encode(text)] {
                let principal = Principal::from_token(&format!("h.{payload}.s"));
                assert!(
                    principal.is_some_and(|read| read.object_id.is_some()),
                    "{payload}"
                );
            }
        }
    }

    #[test]
    fn tells_people_from_applications() {
        use PrincipalKind::{App, User};
        for (claims, expected) in [
            (json!({"idtyp": "user", "roles": ["x"]}), Some(User)),
            (json!({"idtyp": "app", "scp": "x"}), Some(App)),
            (json!({"idtyp": "device"}), None),
            (json!({"scp": "user_impersonation"}), Some(User)),
            (json!({"upn": "a@example.org", "roles": ["x"]}), Some(User)),
            (json!({"unique_name": "a"}), Some(User)),
            (json!({"roles": ["x"]}), Some(App)),
            (json!({"oid": OID, "sub": OID}), Some(App)),
            (json!({"oid": OID, "sub": "pairwise"}), None),
            (json!({"scp": null}), None),
            (json!({}), None),
        ] {
            assert_eq!(read(&claims).kind, expected, "{claims}");
        }
    }

    #[test]
    fn keeps_no_names() {
        let principal = read(&json!({
            "oid": "someone@example.org", "appid": "a b", "tid": 7, "upn": "someone@example.org",
            "name": "Some One", "aud": "a\nb",
        }));
        let expected = Principal {
            kind: Some(PrincipalKind::User),
            ..Principal::default()
        };
        assert_eq!(principal, expected);
    }

    #[test]
    fn the_sandbox_mark_is_exactly_true() {
        assert!(read(&json!({"jobcred_sandbox": true})).sandbox);
        assert!(!read(&json!({"jobcred_sandbox": "true"})).sandbox);
        assert!(read(&json!({"jobcred_sandbox": true})).to_wire().sandbox);
    }

    #[test]
    fn anything_else_is_opaque() {
        let long = token(&json!({ "oid": OID, "x": "y".repeat(70_000) }));
        for text in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "a.b.c.d.e",
            "h.e30",
            "h.e30.s.t",
            "h.W10.s",
            "h.\u{e9}.s",
            &long,
        ] {
            assert_eq!(Principal::from_token(text), None, "{} bytes", text.len());
        }
    }

    #[test]
    fn expiry_out_of_range_is_none() {
        for exp in [json!(1e300), json!(-0.5), json!("1"), json!(null)] {
            let token = token(&json!({ "exp": exp }));
            assert_eq!(jwt_expiry(&token, UnixTime::default()), None, "{exp}");
        }
        assert_eq!(
            jwt_expiry(&token(&json!({"exp": 5})), UnixTime::default()),
            Some(UnixTime::from_secs(5))
        );
    }

    #[test]
    fn a_clock_that_is_behind_makes_no_life_longer() {
        let token = token(&json!({"iat": 1_800_000_000, "exp": 1_800_003_600}));
        for (now, end) in [
            (0, 3_600),
            (1_799_999_990, 1_800_003_590),
            (1_800_000_000, 1_800_003_600),
            (1_900_000_000, 1_800_003_600),
        ] {
            assert_eq!(
                jwt_expiry(&token, UnixTime::from_secs(now)),
                Some(UnixTime::from_secs(end)),
                "{now}"
            );
        }
    }

    fn claims() -> impl Strategy<Value = Vec<u8>> {
        near(vec![
            json!({"oid": OID, "appid": OID, "tid": OID, "aud": "https://storage.azure.com/", "exp": 1_800_003_600, "iat": 1_800_000_000}).to_string(),
            json!({"oid": OID, "azp": OID, "aud": ["a", "b"], "idtyp": "user", "upn": "someone@example.org", "exp": 1.8e9}).to_string(),
            json!({"sub": OID, "oid": OID, "roles": [], "jobcred_sandbox": true, "exp": u64::MAX}).to_string(),
        ])
    }

    proptest! {
        #[test]
        fn nearly_claims_give_ids_and_times_that_can_be(payload in claims(), now in 0..4_000_000_000_i64) {
            let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(&payload));
            let now = UnixTime::from_secs(now);
            if let Some(principal) = Principal::from_token(&token) {
                let ids = [&principal.object_id, &principal.app_id, &principal.tenant_id];
                for id in ids.into_iter().flatten() {
                    prop_assert!(id.len() <= 64 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{}", id);
                }
                let wire = principal.to_wire();
                prop_assert_eq!(Principal::from_wire(&wire).to_wire(), wire);
            }
            if let Some(end) = jwt_expiry(&token, now)
                && let Some(issued) = jwt_issued(&token).filter(|issued| now < *issued)
            {
                let life = jwt_expiry(&token, issued).unwrap().since(issued);
                prop_assert!(end <= now + life);
            }
        }

        #[test]
        fn nearly_a_token_is_read_or_opaque(token in near(vec![token(&json!({"oid": OID, "exp": 5}))])) {
            if let Ok(token) = std::str::from_utf8(&token) {
                let _ = (Principal::from_token(token), jwt_expiry(token, UnixTime::default()));
            }
        }
    }

    #[test]
    fn guids_and_placeholders() {
        assert!(is_guid(OID));
        assert!(is_guid("ABCDEF00-2222-3333-4444-555555555555"));
        for text in [
            "",
            "clientid",
            "11111111222233334444555555555555",
            &OID[1..],
            "{11111111-2222-3333-4444-55555555555}",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(!is_guid(text), "{text}");
        }
    }
}
