//! The readers of this module, for `fuzz/` alone.

use jobcred_wire::{LoginServer, Secret};

use super::answer::{self, Audience};
use crate::error::TokenError;
use crate::transport::Response;

/// What an answer is taken for where it is a success.
///
/// # Errors
/// When there is no token in it.
pub fn read_token(server: &LoginServer, response: &Response) -> Result<Secret, TokenError> {
    answer::read_token(server, response)
}

/// What it is taken for where it is none, for each audience that was asked with.
#[must_use]
pub fn refusals(server: &LoginServer, response: &Response) -> [TokenError; 3] {
    [
        Audience::Registry,
        Audience::ResourceManager,
        Audience::Other,
    ]
    .map(|audience| answer::refusal(server, response, audience, Some("t")))
}

/// The registry's id of the exchange.
#[must_use]
pub fn correlation_id(response: &Response) -> Option<&str> {
    answer::correlation_id(response)
}
