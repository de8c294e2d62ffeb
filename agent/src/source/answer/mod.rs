//! The one reader of token answers. It takes every form that was seen in the field and nothing on faith.
//!
//! Sources of the forms: IMDS sends all numbers as strings, Azure ML as JSON integers (recorded live traffic), App
//! Service 2017 sends dates in two local spellings, Spark's on-behalf-of service `token` and `expiresOn`, Entra only
//! `expires_in`; refusals are JSON of several shapes, plain text, or nothing.

mod clean;
mod moment;
mod refusal;
mod verdict;

use std::time::Duration;

use jobcred_wire::{ErrorCode, Secret};
use serde_json::{Map, Value};

use self::moment::unix_time;
use self::refusal::Refusal;
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::principal::jwt_expiry;
use crate::token::AccessToken;
use crate::transport::{Endpoint, Response};

pub(super) use self::clean::clean;
pub(super) use self::refusal::entra_number;
pub(super) use self::verdict::{heals_by_itself, is_end_of_grant};

/// No token is believed to live longer than this, so that a wrong date cannot pin a dead token. Entra's longest is 28 h.
const LONGEST_LIFE: Duration = Duration::from_secs(48 * 3600);
/// Clocks this far apart are worth a word.
const NOTABLE_SKEW: Duration = Duration::from_secs(60);

/// Who answers, for the meaning of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Issuer {
    /// Azure ML's managed-identity endpoint.
    AzureMl,
    /// The same on a compute instance, where it answers with the signed-in user's token.
    SignedInUser,
    /// Azure ML's on-behalf-of endpoint, which answers with the submitting user's token.
    UserGrant,
    /// App Service.
    AppService,
    /// The instance metadata service.
    Imds,
    /// Entra itself.
    Entra,
}

/// What was asked, to read the answer against.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Who answers.
    pub(super) issuer: Issuer,
    /// Where it was asked.
    pub(super) endpoint: &'a Endpoint,
    /// What for, as it was sent.
    pub(super) resource: &'a str,
    /// What must not come back in an error.
    pub(super) secrets: &'a [Secret],
}

impl Question<'_> {
    /// Reads an answer that arrived at `now`.
    pub(super) fn read(
        &self,
        response: &Response,
        now: UnixTime,
    ) -> Result<AccessToken, TokenError> {
        let parsed = parse(response.body());
        if !response.status().is_success() {
            return Err(self.refused(response, &Refusal::read(parsed.as_ref(), response.body())));
        }
        let Some(Value::Object(fields)) = parsed else {
            return Err(self.unusable(response, "with something else than a JSON object"));
        };
        let Some(token) = token(&fields) else {
            // Seen: an error in the body of a 200.
            if fields.contains_key("error") {
                let refusal = Refusal::read(Some(&Value::Object(fields)), &[]);
                return Err(self.refused(response, &refusal));
            }
            return Err(self.unusable(response, "without a token"));
        };
        if let Some(kind) = string(&fields, &["token_type", "tokenType"])
            && !kind.eq_ignore_ascii_case("bearer")
        {
            return Err(self.unusable(response, "with a token that is no bearer token"));
        }
        let Some(expires_on) = expiry(&fields, token, response.date(), now) else {
            return Err(self.unusable(response, "with a token that has no readable expiry"));
        };
        if expires_on <= now {
            return Err(self.expired(response, now));
        }
        Ok(AccessToken {
            secret: Secret::from(token),
            expires_on,
            refresh_on: moment::life(fields.get("refresh_in"))
                .map(|life| now + life)
                .filter(|refresh_on| now < *refresh_on && *refresh_on < expires_on),
            resource: self.resource.to_owned(),
            client_id: string(&fields, &["client_id"])
                .filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic()))
                .map(str::to_owned),
        })
    }

    /// The answer was a success that is none. Its body is not shown: a token may be in it under another name.
    fn unusable(&self, response: &Response, how: &str) -> TokenError {
        TokenError::new(
            ErrorCode::Transient,
            format!(
                "{} answered {} {how}",
                self.endpoint,
                response.status().as_u16()
            ),
        )
        .with_hint("if this goes on, see whether the address is that of a token endpoint")
    }

    fn expired(&self, response: &Response, now: UnixTime) -> TokenError {
        let skew = response
            .date()
            .map_or(Duration::ZERO, |date| date.since(now).max(now.since(date)));
        let hint = if skew > NOTABLE_SKEW {
            format!(
                "this machine's clock and the endpoint's differ by {} s: correct the clock",
                skew.as_secs()
            )
        } else {
            "the endpoint holds an old token; it may renew it within minutes".to_owned()
        };
        TokenError::new(
            ErrorCode::Transient,
            format!(
                "{} answered with a token that has already expired",
                self.endpoint
            ),
        )
        .with_hint(hint)
    }
}

/// JSON, with or without a byte order mark.
fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).ok()
}

fn string<'a>(fields: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| fields.get(*name)?.as_str())
        .filter(|text| !text.is_empty())
}

/// The token, if it can be sent in a header.
pub(super) fn token(fields: &Map<String, Value>) -> Option<&str> {
    string(fields, &["access_token", "accessToken", "token"])
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// `expires_on`, else `expires_in`, else the token's own `exp`, which also wins when it comes first; never later than a token
/// can live.
///
/// By a clock that is behind, an `expires_on` is too far away. Where it is further than any token lives, or the endpoint's own clock says
/// so, the lifetime that is told as well wins, or what is left by the endpoint's clock.
pub(super) fn expiry(
    fields: &Map<String, Value>,
    token: &str,
    date: Option<UnixTime>,
    now: UnixTime,
) -> Option<UnixTime> {
    let on = ["expires_on", "expiresOn"]
        .iter()
        .find_map(|name| unix_time(fields.get(*name)?));
    let life = ["expires_in", "expiresIn"]
        .iter()
        .find_map(|name| moment::life(fields.get(*name)));
    let stated = match (on, life) {
        (None, life) => life.map(|life| now + life),
        (Some(on), life) => {
            let is_behind = on.since(now) > LONGEST_LIFE
                || date.is_some_and(|date| date.since(now) > NOTABLE_SKEW);
            let left = date.map(|date| on.since(date));
            // No life at all with an end to come is no life that is meant.
            let lives = [life, left].into_iter().flatten();
            let life = lives.filter(|life| is_behind && !life.is_zero()).min();
            Some(life.map_or(on, |life| on.min(now + life)))
        }
    };
    let own = jwt_expiry(token, now);
    let expires_on = match (stated, own) {
        (Some(stated), Some(own)) => Some(stated.min(own)),
        (stated, own) => stated.or(own),
    };
    expires_on.map(|end| end.min(now + LONGEST_LIFE))
}

#[cfg(test)]
mod tests;
