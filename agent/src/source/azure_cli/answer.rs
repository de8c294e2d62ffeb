//! What the program says, well or badly.

use jobcred_wire::{ErrorCode, Secret};
use serde_json::Value;

use super::super::answer::{clean, entra_number, expiry, heals_by_itself, is_end_of_grant, token};
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::token::AccessToken;

const LOG_IN: &str =
    "run `az login` as the user that the agent runs as, with the same HOME and AZURE_CONFIG_DIR";

/// Reads `{"accessToken","expires_on","expiresOn","tenant","tokenType",...}`. `expires_on` (Unix seconds) is there since
/// version 2.54; `expiresOn` is local time, which the call sets to UTC.
pub(super) fn read(
    output: &[u8],
    resource: &str,
    now: UnixTime,
) -> Result<AccessToken, TokenError> {
    let unusable = |how: &str| {
        TokenError::new(
            ErrorCode::Rejected,
            format!("the Azure CLI answered {how}"),
        )
        .with_hint("see what `az account get-access-token` prints in a shell; another version may be needed")
    };
    let Ok(Value::Object(fields)) = serde_json::from_slice(output) else {
        return Err(unusable("with something else than a JSON object"));
    };
    let token = token(&fields).ok_or_else(|| unusable("without a token"))?;
    let expires_on = expiry(&fields, token, None, now)
        .ok_or_else(|| unusable("with a token that has no readable expiry"))?;
    if expires_on <= now {
        return Err(TokenError::new(
            ErrorCode::Transient,
            "the Azure CLI answered with a token that has already expired",
        )
        .with_hint("see whether this machine's clock is right"));
    }
    Ok(AccessToken {
        secret: Secret::from(token),
        expires_on,
        refresh_on: None,
        resource: resource.to_owned(),
        client_id: None,
    })
}

/// What the end of a run without success means.
///
/// Sources: the texts of the Azure CLI's own sources ("Please run 'az login' to setup account."; "Interactive authentication is
/// needed. Please run:" after what Entra said) and of its HTTP library.
pub(super) fn refused(code: Option<i32>, words: &str) -> TokenError {
    let is_offline = [
        "Failed to establish a new connection",
        "Max retries exceeded",
        "Temporary failure in name resolution",
        "Name or service not known",
        "Connection aborted",
        "Connection reset",
        "timed out",
    ]
    .iter()
    .any(|sign| words.contains(sign));
    let number = entra_number(words);
    let needs_login = words.contains("az login");
    let (kind, hint) = if is_offline {
        (
            ErrorCode::Transient,
            "the Azure CLI cannot reach the issuer; see its network and proxy",
        )
    } else if heals_by_itself(number) {
        (
            ErrorCode::Transient,
            "Entra is in trouble, or has seen this request too often; it may recover by itself",
        )
    } else if is_end_of_grant(number, words) {
        (ErrorCode::GrantEnded, LOG_IN)
    } else if needs_login {
        (ErrorCode::Rejected, LOG_IN)
    } else if words.contains("az account set") {
        (
            ErrorCode::Rejected,
            "choose a subscription of this login with `az account set`, or correct `azure_cli.tenant_id`",
        )
    } else {
        (
            ErrorCode::Rejected,
            "see what `az account get-access-token` says in a shell of the same user",
        )
    };
    let ended = match code {
        Some(code) => format!("the Azure CLI ended with code {code}"),
        None => "the Azure CLI was ended by a signal".to_owned(),
    };
    let said = words
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("ERROR:"))
        .or_else(|| words.lines().map(str::trim).rfind(|line| !line.is_empty()))
        .and_then(|line| clean(line, &[]));
    let message = match said {
        Some(said) => format!("{ended}: {said}"),
        None => ended,
    };
    let error = TokenError::new(kind, message).with_hint(hint);
    match number {
        Some(number) => error.with_issuer_code(format!("AADSTS{number}")),
        None => error,
    }
}
