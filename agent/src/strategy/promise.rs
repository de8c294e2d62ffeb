//! Whether a token belongs to whom the strategy announced.

use jobcred_wire::{Notice, PrincipalClaims};

use super::notice::{info, warning};
use super::{Choice, Strategy, Upstream, reason};
use crate::platform::{ClockFault, UnixTime};

/// A token that is older than this when it is got comes from a cache of the platform, in seconds.
const OLD_SECONDS: u64 = 3600;

/// Compares what a token says of itself with what the choice promises; `None` when they agree, or when the token does not
/// tell enough to say that they do not.
#[must_use]
pub fn promise_broken(choice: &Choice, claims: &PrincipalClaims) -> Option<Notice> {
    let strategy = choice.strategy;
    if (strategy == Strategy::Sandbox) != claims.sandbox {
        return Some(warning(
            reason::PROMISE_SANDBOX,
            if claims.sandbox {
                format!("The strategy is {strategy}, but the token is made up by a sandbox.")
            } else {
                "The strategy is sandbox, but the token does not carry the sandbox's mark."
                    .to_owned()
            },
            "Something else answers in the place of what was announced: look at the endpoint above.",
        ));
    }
    let promises_user = matches!(
        strategy,
        Strategy::UserIdentity | Strategy::ComputeInstanceUser
    );
    match claims.kind.as_deref() {
        Some("user") if !promises_user && strategy != Strategy::AzureCli && !claims.sandbox => {
            return Some(warning(
                reason::PROMISE_USER_TOKEN,
                format!(
                    "The strategy is {strategy}, but the token is a user's: what the job does is done with that person's rights."
                ),
                "On a compute instance turn single sign-on off or set DEFAULT_IDENTITY_CLIENT_ID to the client id of the instance's \
                 identity. An agent refuses such tokens.",
            ));
        }
        Some("app") if promises_user => {
            return Some(warning(
                reason::PROMISE_APPLICATION_TOKEN,
                format!(
                    "The strategy is {strategy}, but the token is an application's: it is not the user who acts."
                ),
                "OBO_ENDPOINT probably leads to the managed-identity endpoint; in a pipeline set `identity: {type: user_identity}` on \
                 every step.",
            ));
        }
        _ => {}
    }
    let promised = match &choice.upstream {
        Upstream::WorkloadIdentity { client_id, .. }
        | Upstream::ServicePrincipal { client_id, .. } => Some(client_id.as_str()),
        _ => choice.client_id.as_deref(),
    };
    match (promised, claims.app_id.as_deref()) {
        (Some(promised), Some(got)) if !promised.eq_ignore_ascii_case(got) => Some(warning(
            reason::PROMISE_OTHER_CLIENT_ID,
            format!("Asked for the client id {promised}, got a token of another application."),
            "The endpoint does not honour the client id. An agent refuses such tokens; report it to the platform.",
        )),
        _ => None,
    }
}

/// Says that a token which was just asked for is an old one: who has been put into a group since then is not in it by that token.
///
/// Source: the limitations of managed identities in Microsoft's documentation: their tokens are kept for up to 24 hours, and
/// changes of groups and roles in them take as long.
#[must_use]
pub fn token_of_earlier(issued: UnixTime, now: UnixTime) -> Option<Notice> {
    let hours = now.since(issued).as_secs() / OLD_SECONDS;
    (hours > 0).then(|| {
        info(
            reason::TOKEN_OF_EARLIER,
            format!(
                "The platform gave a token that was issued {hours} h ago: the groups in it are those of then."
            ),
            Some(
                "Whoever was put into a group since then has its rights with the next token, up to 24 hours after this one, and nobody can \
                 renew it sooner. A role given to the identity itself works within minutes.",
            ),
        )
    })
}

/// Says that this machine's clock is wrong, which every judgement about tokens hangs on.
#[must_use]
pub fn clock_wrong(fault: ClockFault) -> Notice {
    warning(
        reason::CLOCK_WRONG,
        format!("{fault}."),
        "Set the clock of the node; a container has no clock of its own. Tokens are fetched anew as soon as it is right.",
    )
}

/// What is said of roots that are named and not there. `missing` is a sentence without its full stop.
#[must_use]
pub fn roots_not_found(missing: &str) -> Notice {
    warning(
        reason::ROOTS_NOT_FOUND,
        format!("{missing}. It is ignored."),
        "Correct it or unset it.",
    )
}

#[cfg(test)]
mod tests {
    use super::token_of_earlier;
    use crate::platform::UnixTime;

    #[test]
    fn only_a_token_of_an_hour_ago_is_old() {
        let now = UnixTime::from_secs(1_700_000_000);
        let at = |ago: i64| token_of_earlier(UnixTime::from_secs(now.as_secs() - ago), now);
        assert_eq!(at(0), None);
        assert_eq!(at(3_599), None);
        assert!(at(9 * 3_600).unwrap().message.contains("9 h ago"));
        // A clock that is behind the issuer's.
        assert_eq!(at(-600), None);
    }
}
