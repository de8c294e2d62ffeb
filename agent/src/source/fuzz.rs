//! The readers of this module, for `fuzz/` alone.

use jobcred_wire::Secret;

use super::answer::{Issuer, Question};
pub use super::azure_cli::fuzz as azure_cli;
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::token::AccessToken;
use crate::transport::{Endpoint, Response};

/// What an answer is taken for from each issuer.
pub fn read(
    endpoint: &Endpoint,
    resource: &str,
    secrets: &[Secret],
    response: &Response,
    now: UnixTime,
) -> [Result<AccessToken, TokenError>; 6] {
    [
        Issuer::AzureMl,
        Issuer::SignedInUser,
        Issuer::UserGrant,
        Issuer::AppService,
        Issuer::Imds,
        Issuer::Entra,
    ]
    .map(|issuer| {
        let question = Question {
            issuer,
            endpoint,
            resource,
            secrets,
        };
        question.read(response, now)
    })
}
