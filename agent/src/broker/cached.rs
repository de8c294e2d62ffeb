//! A token as the broker keeps it: what the source gave, when, and the answer made of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use jobcred_wire::{REGISTRY_USERNAME, RegistryResponse, TokenResponse};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Key;
use crate::platform::UnixTime;
use crate::token::AccessToken;

/// Room for the field names and numbers of an answer, so that rendering does not grow the buffer: a grown buffer leaves
/// an unwiped copy of the secret behind.
const ANSWER_FRAME_BYTES: usize = 512;

/// A token, when it was got, and the native answer made of it.
pub struct CachedToken {
    /// What the source gave.
    pub token: AccessToken,
    /// When it arrived.
    pub obtained_on: UnixTime,
    /// When callers are told to ask again; never after the expiry. The broker itself renews a little earlier.
    pub refresh_on: UnixTime,
    /// The whole JSON body of the native answer ([`TokenResponse`] or [`RegistryResponse`]), made once. Its memory is
    /// wiped when the last user lets go of it.
    pub answer: Bytes,
    /// How much of `answer` says what the token is and nothing else, in bytes; none of a registry's.
    head: Option<usize>,
}

impl CachedToken {
    /// Renders the answer for `key`. `None` when the answer cannot be rendered, which no input is known to cause.
    pub(super) fn new(
        key: &Key,
        token: AccessToken,
        obtained_on: UnixTime,
        refresh_on: UnixTime,
    ) -> Option<Self> {
        // Up to the whole second that callers are told, so that none comes before the renewal.
        let refresh_on = refresh_on.to_next_second().min(token.expires_on);
        let answer = render(key, &token, refresh_on)?;
        let head = head_of(&answer);
        Some(Self {
            token,
            obtained_on,
            refresh_on,
            answer,
            head,
        })
    }

    /// The token and what else a dialect says of it, `rest`, as one JSON object whose memory is wiped when the last user lets go of
    /// it. What the native answer begins with is taken over: to look through a token for what has to be escaped takes longer
    /// than everything else about an answer.
    ///
    /// `None` for a registry's credential, and where `rest` is no object with something in it.
    pub(crate) fn answer_with(&self, rest: &impl Serialize) -> Option<Bytes> {
        let head = self.answer.get(..self.head?)?;
        let room = ANSWER_FRAME_BYTES + head.len() + 2 * self.token.resource.len();
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        body.extend_from_slice(head);
        serde_json::to_writer(&mut *body, rest).ok()?;
        let Some([brace @ b'{', b'"', ..]) = body.get_mut(head.len()..) else {
            return None;
        };
        *brace = b',';
        Some(Bytes::from_owner(body))
    }

    /// When the token ends.
    #[must_use]
    pub fn expires_on(&self) -> UnixTime {
        self.token.expires_on
    }

    /// How long it is still valid at `now`; zero when it is not.
    #[must_use]
    pub fn life_left(&self, now: UnixTime) -> Duration {
        self.token.expires_on.since(now)
    }

    /// Whether it may be handed out at `now`.
    #[must_use]
    pub fn is_valid(&self, now: UnixTime) -> bool {
        now < self.token.expires_on
    }
}

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedToken")
            .field("token", &self.token)
            .field("obtained_on", &self.obtained_on)
            .field("refresh_on", &self.refresh_on)
            .finish_non_exhaustive()
    }
}

fn render(key: &Key, token: &AccessToken, refresh_on: UnixTime) -> Option<Bytes> {
    match key {
        Key::Token { .. } => wiped_json(
            token,
            &TokenResponse {
                access_token: token.secret.clone(),
                token_type: "Bearer".to_owned(),
                expires_on: token.expires_on.as_secs(),
                refresh_on: refresh_on.as_secs(),
                resource: token.resource.clone(),
                client_id: token.client_id.clone(),
            },
        ),
        Key::Registry { server, .. } => wiped_json(
            token,
            &RegistryResponse {
                server: server.clone(),
                username: REGISTRY_USERNAME.to_owned(),
                secret: token.secret.clone(),
                expires_on: token.expires_on.as_secs(),
                refresh_on: refresh_on.as_secs(),
            },
        ),
    }
}

/// Where the first field of a native answer ends, the token. In its text no quotation mark is without a backslash before it.
fn head_of(answer: &[u8]) -> Option<usize> {
    const NEXT: &[u8] = br#"","token_type":"#;
    if !answer.starts_with(br#"{"access_token":""#) {
        return None;
    }
    let at = answer.windows(NEXT.len()).position(|it| it == NEXT)?;
    Some(at + 1)
}

/// `answer`, which has `token` in it, as JSON whose memory is wiped when the last user lets go of it.
fn wiped_json(token: &AccessToken, answer: &impl Serialize) -> Option<Bytes> {
    let room = ANSWER_FRAME_BYTES + token.secret.expose().len() + 2 * token.resource.len();
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *body, answer).ok()?;
    Some(Bytes::from_owner(body))
}

#[cfg(test)]
mod tests {
    use jobcred_wire::Secret;

    use super::CachedToken;
    use crate::broker::Key;
    use crate::platform::UnixTime;
    use crate::resource::Cloud;
    use crate::token::{AccessToken, Identity};

    fn token() -> AccessToken {
        AccessToken {
            secret: Secret::from("s3cret"),
            expires_on: UnixTime::from_millis(5_900),
            refresh_on: None,
            resource: "R".to_owned(),
            client_id: Some("c".to_owned()),
        }
    }

    #[test]
    fn the_answer_is_the_wire_format_and_refresh_is_never_after_expiry() {
        let key = Key::Token {
            identity: Identity::Job,
            resource: Cloud::storage(),
            tenant: None,
        };
        let cached = CachedToken::new(&key, token(), UnixTime::default(), UnixTime::MAX).unwrap();
        assert_eq!(
            cached.answer,
            r#"{"access_token":"s3cret","token_type":"Bearer","expires_on":5,"refresh_on":5,"resource":"R","client_id":"c"}"#
        );
        assert!(cached.is_valid(UnixTime::from_millis(5_899)));
        assert!(!cached.is_valid(UnixTime::from_millis(5_900)));
    }

    #[test]
    fn a_dialects_answer_begins_with_the_token_whatever_is_in_it() {
        let key = Key::Token {
            identity: Identity::Job,
            resource: Cloud::storage(),
            tenant: None,
        };
        for secret in ["s3cret", "", "\"", "a\",\"token_type\":\"b", "\\", "\u{1}"] {
            let token = AccessToken {
                secret: Secret::from(secret),
                ..token()
            };
            let cached = CachedToken::new(&key, token, UnixTime::default(), UnixTime::MAX).unwrap();
            let answer = cached.answer_with(&serde_json::json!({"expires_on": "5"}));
            let answer: serde_json::Value = serde_json::from_slice(&answer.unwrap()).unwrap();
            let expected = serde_json::json!({"access_token": secret, "expires_on": "5"});
            assert_eq!(answer, expected);
            for rest in [serde_json::json!(5), serde_json::json!({})] {
                assert_eq!(cached.answer_with(&rest), None, "{rest}");
            }
        }
        let key = Key::Registry {
            identity: Identity::Job,
            server: "m".to_owned(),
        };
        let cached = CachedToken::new(&key, token(), UnixTime::default(), UnixTime::MAX).unwrap();
        let answer = cached.answer_with(&serde_json::json!({"expires_on": "5"}));
        assert_eq!(answer, None, "no token of a registry's for an SDK");
    }

    #[test]
    fn a_registry_credential_has_the_user_name_of_tokens() {
        let key = Key::Registry {
            identity: Identity::Job,
            server: "m.azurecr.io".to_owned(),
        };
        let cached = CachedToken::new(&key, token(), UnixTime::default(), UnixTime::from_secs(3));
        assert_eq!(
            cached.unwrap().answer,
            r#"{"server":"m.azurecr.io","username":"00000000-0000-0000-0000-000000000000","secret":"s3cret","expires_on":5,"refresh_on":3}"#
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = Key::Registry {
            identity: Identity::Job,
            server: "m".to_owned(),
        };
        let cached = CachedToken::new(&key, token(), UnixTime::default(), UnixTime::default());
        assert!(!format!("{cached:?}").contains("s3cret"));
    }
}
