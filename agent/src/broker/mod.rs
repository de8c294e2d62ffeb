//! Cache, single flight and refresh together: what is asked for, what is held, when it is renewed.

use async_trait::async_trait;

use crate::error::TokenError;
use crate::resource::Resource;
use crate::token::{AccessToken, Identity};

/// What the broker holds an entry for. Two requests with equal keys share one token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A token.
    Token {
        /// As whom.
        identity: Identity,
        /// What for.
        resource: Resource,
        /// The issuing tenant, only where the source honours one.
        tenant: Option<String>,
    },
    /// A registry credential.
    Registry {
        /// As whom.
        identity: Identity,
        /// The login server, lower case, without scheme, port 443 or path.
        server: String,
    },
}

/// Gets what a key stands for from upstream. The broker calls it in a task of its own, one call per key at a time.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// One fetch. `claims` is a claims challenge that the caller was given by a resource.
    async fn fetch(&self, key: &Key, claims: Option<&str>) -> Result<AccessToken, TokenError>;
}
