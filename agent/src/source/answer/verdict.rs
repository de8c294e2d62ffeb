//! What a refusal means and what a person can do about it.

use std::fmt::Write;

use http::StatusCode;
use jobcred_wire::ErrorCode;

use super::clean::clean;
use super::refusal::Refusal;
use super::{Issuer, Question};
use crate::error::TokenError;
use crate::transport::Response;

/// Entra's numbers that say that the *user's* grant is over or that the user has to act. What the on-behalf-of endpoint
/// answers when a grant ends is not documented, so the whole family is taken.
///
/// Source: Entra's reference of error codes.
const GRANT_ENDED: [u64; 26] = [
    50013, 50055, 50057, 50058, 50072, 50074, 50076, 50078, 50079, 50089, 50097, 50129, 50132,
    50133, 50140, 50144, 50158, 50173, 53000, 53001, 53003, 65001, 70008, 70043, 500_133, 700_082,
];
/// The same in the protocol's words.
const GRANT_ENDED_WORDS: [&str; 4] = [
    "invalid_grant",
    "interaction_required",
    "login_required",
    "consent_required",
];

/// Entra's numbers that heal by themselves: it is overloaded, or has seen the same request too often (50196).
///
/// Source: Entra's reference of error codes.
const HEALS: [u64; 4] = [50196, 90012, 90024, 90033];
/// The same in the protocol's words.
const HEALS_WORDS: [&str; 2] = ["temporarily_unavailable", "server_error"];

struct Verdict {
    code: ErrorCode,
    hint: &'static str,
    malformed: bool,
}

/// Whether Entra's number or words say that a user's grant is over.
pub(in crate::source) fn is_end_of_grant(number: Option<u64>, text: &str) -> bool {
    number.is_some_and(|number| GRANT_ENDED.contains(&number))
        || GRANT_ENDED_WORDS.iter().any(|ended| text.contains(ended))
}

/// `Identity not found`, `no azure identity found for request`, and the like.
fn says_no_identity(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("identity not found") || text.contains("identity found")
}

/// Whether Entra's number says that the same request may succeed soon.
pub(in crate::source) fn heals_by_itself(number: Option<u64>) -> bool {
    number.is_some_and(|number| HEALS.contains(&number))
}

impl Question<'_> {
    /// Turns an answer that is no success into an error.
    pub(super) fn refused(&self, response: &Response, refusal: &Refusal) -> TokenError {
        let status = response.status();
        let verdict = self.verdict(status, refusal);
        let ours = |code: &str| {
            self.secrets
                .iter()
                .any(|secret| !secret.is_empty() && code.contains(secret.expose()))
        };
        let issuer_code = refusal.issuer_code().filter(|code| !ours(code));
        let mut message = format!("{} answered {}", self.endpoint, status.as_u16());
        if let Some(code) = &issuer_code {
            // Writing to a String cannot fail.
            let _ = write!(message, " ({code})");
        }
        if let Some(text) = refusal
            .text
            .as_deref()
            .and_then(|text| clean(text, self.secrets))
        {
            message.push_str(": ");
            message.push_str(&text);
        }
        let mut error = TokenError::new(verdict.code, message).with_hint(verdict.hint);
        if let Some(code) = issuer_code {
            error = error.with_issuer_code(code);
        }
        if let Some(wait) = response.retry_after().filter(|_| error.is_transient()) {
            error = error.with_retry_after(wait);
        }
        if verdict.malformed {
            error = error.malformed();
        }
        error
    }

    fn verdict(&self, status: StatusCode, refusal: &Refusal) -> Verdict {
        let verdict = |code, hint| Verdict {
            code,
            hint,
            malformed: false,
        };
        let text = refusal.text.as_deref().unwrap_or_default();
        let word = refusal.code.as_deref().unwrap_or_default();
        let by_code = is_end_of_grant(refusal.number, text) || GRANT_ENDED_WORDS.contains(&word);
        // Words alone count only where nothing but a grant can be meant: the managed-identity endpoint says "SSO failure"
        // of any resource that it has no token for.
        let by_text = text.contains("SSO failure");
        if match self.issuer {
            Issuer::UserGrant => by_code || by_text,
            Issuer::SignedInUser => by_code,
            _ => false,
        } {
            return verdict(
                ErrorCode::GrantEnded,
                "the user's session behind this job has ended: the user has to sign in again and submit the job again",
            );
        }
        // It says so of a resource that it cannot issue tokens for, whatever the status, and no waiting heals that.
        let not_issued = by_text && matches!(self.issuer, Issuer::AzureMl | Issuer::SignedInUser);
        let overloaded = matches!(status.as_u16(), 408 | 410 | 429 | 500..=599);
        if (overloaded && !not_issued)
            || HEALS_WORDS.contains(&word)
            || heals_by_itself(refusal.number)
        {
            return verdict(
                ErrorCode::Transient,
                match (self.issuer, status.as_u16()) {
                    (_, 429) => "too many requests: let fewer processes ask, or ask later",
                    (Issuer::Imds, 410) => {
                        "the metadata service is being updated, which takes up to 70 s"
                    }
                    (Issuer::Imds, 502 | 504) => {
                        "a proxy answers in place of the metadata service, which cannot be used through one"
                    }
                    _ => "the endpoint is in trouble; it may recover by itself",
                },
            );
        }
        if self.issuer == Issuer::Imds {
            // A new assignment takes seconds to arrive at the service, or at what stands in for it in a pod.
            if status == StatusCode::NOT_FOUND && says_no_identity(text) {
                return verdict(
                    ErrorCode::Transient,
                    "an assignment that was just made takes a while to arrive; if this goes on, assign an identity",
                );
            }
            if status == StatusCode::NOT_FOUND {
                return verdict(
                    ErrorCode::Rejected,
                    "this address is not Azure's metadata service, or it offers no identity here",
                );
            }
            if status == StatusCode::FORBIDDEN && text.contains("unreachable") {
                return verdict(
                    ErrorCode::Rejected,
                    "the container runtime's proxy answered: the metadata service cannot be reached from here",
                );
            }
        }
        if word == "invalid_resource"
            || matches!(refusal.number, Some(50001 | 500_011 | 70011 | 1_002_012))
        {
            return Verdict {
                code: ErrorCode::Rejected,
                hint: "the tenant does not know the resource that was asked for: correct its spelling",
                malformed: true,
            };
        }
        verdict(ErrorCode::Rejected, self.hint(status, refusal.number, text))
    }

    fn hint(&self, status: StatusCode, number: Option<u64>, text: &str) -> &'static str {
        match number {
            Some(70021 | 700_211 | 700_212 | 700_213 | 7_002_138) => {
                return "no federated credential of the identity matches the pod: compare issuer, subject and audience, to the letter; one just made takes minutes to work";
            }
            Some(700_024) => {
                return "the pod's token is outside its time range: see whether the clock is right and the token file is renewed";
            }
            Some(7_000_215) => {
                return "the application's secret is wrong: give the secret's value, not its id";
            }
            Some(7_000_222) => return "the application's secret has expired: make a new one",
            Some(700_016) => {
                return "the tenant does not know the client id: correct the client id or the tenant";
            }
            Some(90002) => return "there is no such tenant: correct the tenant id",
            Some(53003) => return "a conditional access policy of the tenant blocks the identity",
            _ => {}
        }
        match (self.issuer, status.as_u16()) {
            (Issuer::AzureMl | Issuer::SignedInUser | Issuer::UserGrant, _)
                if text.contains("Invalid secret token header") =>
            {
                "the endpoint does not accept MSI_SECRET: see that the job's environment is passed on unchanged"
            }
            (Issuer::AzureMl | Issuer::SignedInUser, _) if text.contains("SSO failure") => {
                "the compute instance has no signed-in user: sign in, or assign a managed identity to it"
            }
            (Issuer::AzureMl, 400) => {
                "the identity is not assigned to the compute, or the client id is wrong: compare DEFAULT_IDENTITY_CLIENT_ID with the compute's identities"
            }
            (Issuer::UserGrant, 400) => {
                "the user's session has ended, or the job was submitted without the identity type `user_identity`: submit it again with it"
            }
            (Issuer::Imds | Issuer::AppService, 400) => {
                "no such identity is assigned here, or there are several and none was named: name one by its client id"
            }
            (Issuer::AppService, 401 | 403) => {
                "the endpoint does not accept IDENTITY_HEADER (or MSI_SECRET, as of 2017)"
            }
            (Issuer::Entra, 400 | 401) => "look the code up in Entra's reference of error codes",
            _ => "see whether the identity is assigned and the endpoint's address is right",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use jobcred_wire::ErrorCode::{self, GrantEnded, Rejected, Transient};

    use super::super::Issuer::{self, AppService, AzureMl, Entra, Imds, UserGrant};
    use super::super::tests::read_with;

    /// Issuer, status and body of a refusal; its kind, its code, and whether waiting may heal it.
    type Case = (
        Issuer,
        u16,
        &'static str,
        ErrorCode,
        Option<&'static str>,
        bool,
    );

    fn check(cases: &[Case]) {
        for &(issuer, status, body, kind, code, healable) in cases {
            let error = read_with(issuer, status, HeaderMap::new(), body.as_bytes()).unwrap_err();
            let case = format!("{issuer:?} {status} {body}: {error}");
            assert_eq!(error.kind(), kind, "{case}");
            assert_eq!(error.issuer_code(), code, "{case}");
            assert_eq!(error.is_healable(), healable, "{case}");
            assert!(
                error.message().contains(&format!("answered {status}")),
                "{case}"
            );
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{case}");
        }
    }

    #[test]
    fn refusals_of_azure_mls_endpoints() {
        check(&[
            (AzureMl, 400, "", Rejected, None, true),
            (
                AzureMl,
                401,
                "Invalid secret token header: .",
                Rejected,
                None,
                true,
            ),
            (
                AzureMl,
                500,
                "InternalError - :{ Info: Request failure status c",
                Transient,
                None,
                true,
            ),
            (
                AzureMl,
                200,
                r#"{"error":{"code":"X","message":"y"}}"#,
                Rejected,
                Some("X"),
                true,
            ),
            (AzureMl, 404, "", Rejected, None, true),
            (
                AzureMl,
                400,
                r#"{"error":"invalid_grant"}"#,
                Rejected,
                Some("invalid_grant"),
                true,
            ),
            // A code that is the request's own secret is no code.
            (AzureMl, 400, r#"{"error":"s3cr3t"}"#, Rejected, None, true),
            (
                UserGrant,
                400,
                r#"{"error":"invalid_grant"}"#,
                GrantEnded,
                Some("invalid_grant"),
                true,
            ),
            (
                UserGrant,
                500,
                "AADSTS50173: over",
                GrantEnded,
                Some("AADSTS50173"),
                true,
            ),
            (UserGrant, 502, "", Transient, None, true),
        ]);
    }

    #[test]
    fn b4_what_heals_by_itself_is_not_a_refusal() {
        let not_found = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
        let server_error = r#"{"error":"server_error","error_description":"x"}"#;
        let (asked, error) = (Some("invalid_request"), Some("server_error"));
        check(&[
            (Imds, 404, not_found, Transient, asked, true),
            (
                Imds,
                404,
                "no azure identity found for request clientID x",
                Transient,
                None,
                true,
            ),
            // Nothing there says that it is a metadata service.
            (Imds, 404, "<html>", Rejected, None, true),
            (Imds, 400, not_found, Rejected, asked, true),
            (AzureMl, 200, server_error, Transient, error, true),
            (AzureMl, 400, server_error, Transient, error, true),
            (UserGrant, 400, server_error, Transient, error, true),
            (AppService, 400, server_error, Transient, error, true),
            (Imds, 400, server_error, Transient, error, true),
            (Entra, 400, server_error, Transient, error, true),
            (
                Entra,
                400,
                r#"{"error":"invalid_grant","error_codes":[50196]}"#,
                Transient,
                Some("AADSTS50196"),
                true,
            ),
            // The user's grant is not over for it.
            (
                UserGrant,
                400,
                "AADSTS50196: loop",
                Transient,
                Some("AADSTS50196"),
                true,
            ),
        ]);
    }

    #[test]
    fn refusals_of_all_others() {
        check(&[
            (Imds, 404, "", Rejected, None, true),
            (Imds, 410, "", Transient, None, true),
            (Imds, 429, "", Transient, None, true),
            (Imds, 502, "", Transient, None, true),
            (Imds, 403, "network unreachable", Rejected, None, true),
            (Imds, 403, "no", Rejected, None, true),
            (
                Imds,
                400,
                r#"{"error":"invalid_resource"}"#,
                Rejected,
                Some("invalid_resource"),
                false,
            ),
            (
                Entra,
                400,
                r#"{"error":"x","error_codes":[500011]}"#,
                Rejected,
                Some("AADSTS500011"),
                false,
            ),
            (
                Entra,
                400,
                r#"{"error":"x","error_codes":[90033]}"#,
                Transient,
                Some("AADSTS90033"),
                true,
            ),
            (
                Entra,
                400,
                r#"{"error":"temporarily_unavailable"}"#,
                Transient,
                Some("temporarily_unavailable"),
                true,
            ),
            (
                AppService,
                500,
                r#"{"statusCode":500,"message":"x"}"#,
                Transient,
                None,
                true,
            ),
            (AppService, 408, "", Transient, None, true),
            (AppService, 418, "", Rejected, None, true),
        ]);
    }
}
