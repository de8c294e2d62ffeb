//! What a registry says to an exchange, read without trust: a credential, or an error that helps.

use http::StatusCode;
use jobcred_wire::{ErrorCode, LoginServer, Secret};
use serde::Deserialize;
use serde_json::Value;

use crate::error::TokenError;
use crate::transport::{FailureKind, Response, TransportError};

/// The header that the registry's support asks for.
const CORRELATION_HEADER: &str = "x-ms-correlation-request-id";

/// The Azure CLI's names of connectivity failures. They are documented, and people look them up.
pub(super) mod name {
    pub(in crate::registry) const DNS: &str = "CONNECTIVITY_DNS_ERROR";
    pub(in crate::registry) const FORBIDDEN: &str = "CONNECTIVITY_FORBIDDEN_ERROR";
    pub(in crate::registry) const REFRESH_TOKEN: &str = "CONNECTIVITY_REFRESH_TOKEN_ERROR";
    pub(in crate::registry) const SSL: &str = "CONNECTIVITY_SSL_ERROR";
}

/// The answer to a successful exchange. There is nothing else in it, and no lifetime.
#[derive(Deserialize)]
struct Exchanged {
    refresh_token: Secret,
}

/// Which audience the exchanged token had, as far as the next step depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// The registry's own.
    Registry,
    /// Azure Resource Manager's, as a fallback or pinned.
    ResourceManager,
    /// Another one, pinned in the configuration.
    Other,
}

/// The registry's id of the exchange, fit for a log.
pub(super) fn correlation_id(response: &Response) -> Option<&str> {
    let text = response.headers().get(CORRELATION_HEADER)?.to_str().ok()?;
    let is_id = text.len() <= 100
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id.then_some(text)
}

/// The registry's refresh token.
pub(super) fn read_token(server: &LoginServer, response: &Response) -> Result<Secret, TokenError> {
    match serde_json::from_slice::<Exchanged>(response.body()) {
        Ok(Exchanged { refresh_token }) if is_token(refresh_token.expose()) => Ok(refresh_token),
        _ => Err(TokenError::new(
            ErrorCode::Transient,
            format!("https://{server}/oauth2/exchange answered 200 without a token in it"),
        )
        .with_issuer_code(name::REFRESH_TOKEN)
        .with_hint("If this goes on, see whether the host is an Azure container registry and no proxy answers in its place.")),
    }
}

/// A password must survive every client's way of storing it.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Any answer but 200.
pub(super) fn refusal(
    server: &LoginServer,
    response: &Response,
    audience: Audience,
    tenant: Option<&str>,
) -> TokenError {
    let status = response.status();
    let code = read_code(response.body());
    let said = code.map_or_else(String::new, |code| format!(" ({code})"));
    let message = format!(
        "https://{server}/oauth2/exchange answered {}{said}",
        status.as_u16()
    );
    let error =
        |kind| TokenError::new(kind, message.as_str()).with_issuer_code(name::REFRESH_TOKEN);
    match status {
        StatusCode::UNAUTHORIZED => error(ErrorCode::Rejected).with_hint(unauthorized(audience, tenant)),
        StatusCode::FORBIDDEN => TokenError::new(ErrorCode::Rejected, message.as_str())
            .with_issuer_code(name::FORBIDDEN)
            .with_hint("The registry's firewall keeps this address out (allow the compute's network; behind a private endpoint, see that the registry's name resolves to its private address), or the identity has no role on the registry (AcrPull)."),
        StatusCode::NOT_FOUND => error(ErrorCode::Rejected)
            .with_hint("This host has no exchange: see whether it is an Azure container registry's login server."),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            waiting(error(ErrorCode::Transient), response)
        }
        status if status.is_server_error() => waiting(error(ErrorCode::Transient), response),
        _ => error(ErrorCode::Rejected).with_hint("See whether the host is an Azure container registry's login server."),
    }
}

fn waiting(error: TokenError, response: &Response) -> TokenError {
    match response.retry_after() {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

fn unauthorized(audience: Audience, tenant: Option<&str>) -> String {
    let first = match audience {
        Audience::ResourceManager => {
            "The registry may accept tokens of its own audience only (its policy authentication-as-arm is disabled), and this one was of Azure Resource Manager: enable the policy, or run where tokens for https://containerregistry.azure.net can be had. Else "
        }
        Audience::Registry | Audience::Other => "",
    };
    let tenant = match tenant {
        Some(_) => " and that `tenant_id` is the registry's tenant",
        None => " and that it is of the registry's tenant",
    };
    format!(
        "{first}{}ive the identity a role on the registry (AcrPull, or Container Registry Repository Reader where it uses repository permissions){tenant}.",
        if first.is_empty() { "G" } else { "g" }
    )
}

/// `{"errors":[{"code":"UNAUTHORIZED",...}]}`. The message next to it is not shown: it may hold anything.
fn read_code(body: &[u8]) -> Option<&'static str> {
    const KNOWN: [&str; 6] = [
        "UNAUTHORIZED",
        "DENIED",
        "NAME_UNKNOWN",
        "NOTFOUND",
        "TOOMANYREQUESTS",
        "UNSUPPORTED",
    ];
    let body: Value = serde_json::from_slice(body).ok()?;
    let code = body.get("errors")?.get(0)?.get("code")?.as_str()?;
    KNOWN.into_iter().find(|known| *known == code)
}

/// A denial by a registry that the configuration says can be read by anybody: no credential, and no error of the
/// registry's either.
pub(super) fn anonymous(server: &LoginServer, refusal: &TokenError) -> TokenError {
    TokenError::new(
        ErrorCode::Anonymous,
        format!(
            "no credential for {server}, which is read without one (anonymous_when_denied): {refusal}"
        ),
    )
}

/// No answer at all.
pub(super) fn no_answer(error: &TransportError) -> TokenError {
    let token_error = error.to_token_error();
    match error.kind() {
        FailureKind::Tls | FailureKind::OutOfDate | FailureKind::Roots => token_error.with_issuer_code(name::SSL),
        FailureKind::Connect if error.to_string().contains("lookup") => token_error
            .with_issuer_code(name::DNS)
            .with_hint("The registry's name does not resolve: see whether the registry exists, its cloud suffix is right, and its private DNS zone is linked to this network."),
        _ => token_error.with_issuer_code(name::REFRESH_TOKEN),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
    use jobcred_wire::LoginServer;
    use proptest::prelude::*;

    use super::{Audience, correlation_id, read_token, refusal};
    use crate::mutation::near;
    use crate::platform::UnixTime;
    use crate::transport::Response;

    const TOKEN: &str =
        "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw";

    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        near(vec![
            format!(r#"{{"refresh_token":"{TOKEN}"}}"#),
            format!(
                r#"{{"errors":[{{"code":"UNAUTHORIZED","message":"{TOKEN} is not valid","detail":[]}}]}}"#
            ),
            format!("<html>{TOKEN}</html>"),
        ])
    }

    proptest! {
        #[test]
        fn an_answer_is_a_password_or_an_error_without_its_words(
            status in 200..600_u16,
            body in bodies(),
            correlation in "[a-z0-9-]{0,120}|[ -~]{0,20}",
            retry_after in proptest::option::of("[0-9]{1,25}"),
        ) {
            let server = LoginServer::parse("myreg.azurecr.io", &[]).unwrap();
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(&correlation).unwrap();
            headers.insert(HeaderName::from_static("x-ms-correlation-request-id"), value);
            if let Some(wait) = retry_after {
                headers.insert(http::header::RETRY_AFTER, HeaderValue::from_str(&wait).unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            let response = Response::new(status, headers, Bytes::from(body), UnixTime::from_secs(0));
            let errors = [
                read_token(&server, &response).map(|token| {
                    assert!(token.expose().bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty());
                }).err(),
                Some(refusal(&server, &response, Audience::ResourceManager, Some("t"))),
            ];
            for error in errors.into_iter().flatten() {
                let shown = format!("{error} {error:?}");
                prop_assert!(!TOKEN.as_bytes().windows(8).any(|piece| shown.contains(std::str::from_utf8(piece).unwrap())), "{}", shown);
                prop_assert!(shown.len() < 2000);
            }
            if let Some(id) = correlation_id(&response) {
                prop_assert!(id.len() <= 100 && !id.contains(' '));
            }
        }
    }
}
