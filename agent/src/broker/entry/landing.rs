//! The end of a fetch: what it changes in its entry.

use std::sync::Arc;
use std::time::Duration;

use jobcred_wire::{ErrorCode, UpstreamError};

use super::{ClaimsTry, Entry, Failure, Held, Moment, Refusal};
use crate::broker::flight::Landing;
use crate::broker::refresh::{SHORTEST_PAUSE, back_off, refresh_plan};
use crate::broker::{CachedToken, Key};
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::token::AccessToken;

/// How long a refusal is remembered that a role or identity assignment can heal.
const REMEMBER_REFUSAL: Duration = Duration::from_secs(30);
/// How long a refusal is remembered that only another request can heal.
const REMEMBER_MALFORMED: Duration = Duration::from_secs(10 * 60);
/// How long it is remembered that a user's grant has ended. Nothing the job does heals that, and every try is one more
/// failed sign-in of that user; a caller still finds out within minutes when a policy was changed back.
const REMEMBER_ENDED: Duration = Duration::from_secs(5 * 60);
/// How long an issuer's wish to be left alone holds for callers without a valid token.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long it holds for the background without a valid token, and with one: half of the life left, up to an hour.
const MOST_RETRY_AFTER_WITHOUT: Duration = Duration::from_secs(60);
const MOST_RETRY_AFTER_WITH: Duration = Duration::from_secs(3600);

impl Entry {
    /// Takes the end of the fetch under way.
    pub(in crate::broker) fn land(
        &mut self,
        key: &Key,
        now: Moment,
        result: Result<AccessToken, TokenError>,
        jitter: u16,
        had_claims: bool,
    ) -> Landing {
        let is_demanded = self
            .airborne
            .take()
            .is_some_and(|flight| flight.is_demanded);
        self.last_end = Some(now.runtime);
        let mut is_unchanged = false;
        let result = result.and_then(|token| {
            let token = check(token, now.wall)?;
            let token = match self.valid(now) {
                Some(held) if held.token.secret == token.secret => {
                    is_unchanged = true;
                    self.keep(key, now, &token, jitter)
                }
                _ => self.replace(key, now, token, jitter, is_demanded),
            };
            token.ok_or_else(|| {
                TokenError::new(ErrorCode::Internal, "the answer could not be rendered")
            })
        });
        match &result {
            Ok(_) => {
                self.refusal = None;
                self.ended = None;
                self.last_error = None;
            }
            Err(error) => {
                self.failures += 1;
                self.last_error = Some(Failure {
                    shown: upstream_error(key, error, now.wall),
                    is_blocked: error.is_blocked(),
                });
                // A challenge may be malformed, and is its caller's: its failure must not refuse the key to others. That the
                // grant has ended is nobody's fault and holds for all.
                if !had_claims || error.kind() == ErrorCode::GrantEnded {
                    self.back_off(now, error, jitter);
                }
            }
        }
        if had_claims {
            self.claims = Some(ClaimsTry {
                at: now.runtime,
                error: match &result {
                    Ok(_) => is_unchanged.then(unchanged),
                    Err(error) => Some(error.clone()),
                },
            });
        }
        Landing {
            result,
            is_unchanged,
            had_claims,
        }
    }

    /// Nothing newer. The token stays as it is; callers are told to come back when the background has tried again.
    fn keep(
        &mut self,
        key: &Key,
        now: Moment,
        again: &AccessToken,
        jitter: u16,
    ) -> Option<Arc<CachedToken>> {
        self.tries = self.tries.saturating_add(1);
        let held = self.held.as_mut()?;
        let mut token = held.token.token.clone();
        // One token with two ends: a relative lifetime that is repeated from a cache makes it look longer each time.
        token.expires_on = token.expires_on.min(again.expires_on);
        let pause = back_off(token.expires_on.since(now.wall), self.tries, jitter);
        self.not_before = now.runtime + pause;
        // A little later than the background, so that who comes back then finds what it brought.
        let told = held.token.refresh_on.max(now.wall + pause + pause / 20);
        let kept = CachedToken::new(key, token, held.token.obtained_on, told)?;
        held.token = Arc::new(kept);
        held.ends_at = held
            .ends_at
            .min(now.runtime + held.token.life_left(now.wall));
        Some(Arc::clone(&held.token))
    }

    fn replace(
        &mut self,
        key: &Key,
        now: Moment,
        token: AccessToken,
        jitter: u16,
        is_demanded: bool,
    ) -> Option<Arc<CachedToken>> {
        let plan = refresh_plan(now.wall, token.expires_on, token.refresh_on, jitter);
        let token = Arc::new(CachedToken::new(key, token, now.wall, plan.told)?);
        self.held = Some(Held {
            token: Arc::clone(&token),
            refresh_on: plan.refresh_on,
            refresh_at: now.runtime + plan.refresh_on.since(now.wall),
            ends_at: now.runtime + token.life_left(now.wall),
        });
        self.tries = 0;
        self.not_before = now.runtime;
        self.was_asked = self.is_asked || is_demanded;
        self.is_asked = false;
        Some(token)
    }

    /// A failed fetch takes nothing away; it only says when to try again, and what to answer until then.
    fn back_off(&mut self, now: Moment, error: &TokenError, jitter: u16) {
        self.tries = self.tries.saturating_add(1);
        let left = self.left(now);
        let asked = error.retry_after().unwrap_or_default();
        let most = (left / 2)
            .min(MOST_RETRY_AFTER_WITH)
            .max(MOST_RETRY_AFTER_WITHOUT);
        let pause = back_off(left, self.tries, jitter).max(asked.min(most));
        self.not_before = now.runtime + pause;
        match error.kind() {
            ErrorCode::GrantEnded => self.ended = Some(error.clone()),
            // Trouble on the way says nothing of the grant.
            ErrorCode::Transient | ErrorCode::Internal | ErrorCode::Unknown => {}
            _ => self.ended = None,
        }
        if let Some(ended) = &self.ended {
            let remember = if error.kind() == ErrorCode::GrantEnded {
                REMEMBER_ENDED
            } else {
                REMEMBER_REFUSAL
            };
            self.refusal = Some(Refusal {
                error: ended.clone(),
                until: now.runtime + remember,
            });
            return;
        }
        let remember = match error.kind() {
            ErrorCode::Transient | ErrorCode::Internal | ErrorCode::Unknown => {
                asked.clamp(SHORTEST_PAUSE, MOST_RETRY_AFTER)
            }
            _ if error.is_healable() => REMEMBER_REFUSAL,
            _ => REMEMBER_MALFORMED,
        };
        self.refusal = Some(Refusal {
            error: error.clone(),
            until: now.runtime + remember,
        });
    }
}

/// What the status shows of a failure. Messages are made for readers outside; the cause stays in the log.
pub(in crate::broker) fn upstream_error(
    key: &Key,
    error: &TokenError,
    at: UnixTime,
) -> UpstreamError {
    UpstreamError {
        code: error.kind(),
        message: error.message().to_owned(),
        at: at.as_secs(),
        hint: error.hint().map(str::to_owned),
        issuer_code: error.issuer_code().map(str::to_owned),
        resource: Some(key.subject().to_owned()),
    }
}

/// The answer to a claims challenge that brought nothing newer.
pub(in crate::broker) fn unchanged() -> TokenError {
    TokenError::new(
        ErrorCode::Rejected,
        "the platform answered the claims challenge with the same token again",
    )
    .with_hint(
        "the platform keeps an identity's tokens for up to 24 hours and cannot be made to issue a newer one; \
         wait for it, or lift the condition that asks for a newer token",
    )
}

/// Refuses what must never be handed out, so that no blank or expired answer takes a good token's place.
fn check(mut token: AccessToken, now: UnixTime) -> Result<AccessToken, TokenError> {
    // Callers are told whole seconds; a token that is held a little longer than they are told would reach them ended.
    token.expires_on = token.expires_on.to_second();
    if token.secret.is_empty() {
        return Err(TokenError::new(
            ErrorCode::Internal,
            "the source gave an empty token",
        ));
    }
    if token.expires_on <= now {
        return Err(TokenError::new(
            ErrorCode::Transient,
            "the token that arrived has ended already by this machine's clock",
        )
        .with_hint("check that this machine's clock is right"));
    }
    Ok(token)
}
