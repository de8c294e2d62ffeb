//! Registry credentials: an Entra token is exchanged for the registry's own long token.

mod answer;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests;

use async_trait::async_trait;

use crate::error::TokenError;
use crate::resource::Resource;
use crate::token::{AccessToken, Identity};

pub use self::exchange::Registry;

/// Where the exchange takes its Entra tokens from: the broker, so that they are cached and shared like any other.
#[async_trait]
pub trait EntraTokens: Send + Sync + 'static {
    /// A token of `identity` for `resource`, issued by `tenant` where one is configured for the registry.
    ///
    /// # Errors
    /// What the broker says.
    async fn entra_token(
        &self,
        identity: &Identity,
        resource: &Resource,
        tenant: Option<&str>,
    ) -> Result<AccessToken, TokenError>;
}
