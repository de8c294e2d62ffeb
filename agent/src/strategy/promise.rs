//! Whether a token belongs to whom the strategy announced.

use jobcred_wire::{Notice, PrincipalClaims};

use super::notice::warning;
use super::{Choice, Strategy, Upstream, reason};

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
