//! What the broker holds an entry for.

use std::fmt;

use crate::resource::Resource;
use crate::token::Identity;

/// What the broker holds an entry for. Two requests with equal keys share one token.
///
/// A claims challenge is no part of it: no managed-identity endpoint can answer one with a token of its own, so it is a
/// newer fetch of the same key.
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

impl Key {
    /// As whom.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match self {
            Self::Token { identity, .. } | Self::Registry { identity, .. } => identity,
        }
    }

    /// `token` or `registry`, as the status names them.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::Registry { .. } => "registry",
        }
    }

    /// The resource, or the login server.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Token { resource, .. } => resource.as_str(),
            Self::Registry { server, .. } => server,
        }
    }
}

/// For the log. Every part that a caller may have spelt is quoted and escaped, so that no two keys look alike and none
/// can break a line.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.subject())?;
        match self.identity() {
            Identity::Job => {}
            Identity::ClientId(id) => write!(f, " as client_id {id:?}")?,
            Identity::ObjectId(id) => write!(f, " as object_id {id:?}")?,
            Identity::ResourceId(id) => write!(f, " as resource_id {id:?}")?,
            Identity::Application {
                client_id,
                tenant_id,
            } => write!(f, " as application {client_id:?} of tenant {tenant_id:?}")?,
        }
        match self {
            Self::Token {
                tenant: Some(tenant),
                ..
            } => write!(f, " of tenant {tenant:?}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Key;
    use crate::resource::{Cloud, Resource};
    use crate::token::Identity;

    fn identity() -> impl Strategy<Value = Identity> {
        prop_oneof![
            Just(Identity::Job),
            "[ab\" ]{0,3}".prop_map(Identity::ClientId),
            "[ab\" ]{0,3}".prop_map(Identity::ObjectId),
            "[ab\" ]{0,3}".prop_map(Identity::ResourceId),
        ]
    }

    /// Short texts over few characters, the ones of the rendering itself among them, so that near misses are likely.
    fn key() -> impl Strategy<Value = Key> {
        let text = || "[ab\" \\\\]{0,3}( as | of tenant )?[ab\"]{0,2}";
        prop_oneof![
            (identity(), text(), proptest::option::of(text())).prop_map(
                |(identity, resource, tenant)| Key::Token {
                    identity,
                    resource: Resource::parse(&resource, Cloud::Public),
                    tenant,
                }
            ),
            (identity(), text()).prop_map(|(identity, server)| Key::Registry { identity, server }),
        ]
    }

    proptest! {
        #[test]
        fn only_equal_keys_look_alike_and_sort_alike(a in key(), b in key()) {
            prop_assert_eq!(a == b, a.to_string() == b.to_string(), "{} | {}", a, b);
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        }
    }

    #[test]
    fn a_key_cannot_break_a_line_of_the_log() {
        let key = Key::Registry {
            identity: Identity::ResourceId("a\nb".to_owned()),
            server: "m.azurecr.io".to_owned(),
        };
        assert_eq!(
            key.to_string(),
            r#"registry "m.azurecr.io" as resource_id "a\nb""#
        );
    }
}
