//! What a source gives and the broker keeps.

use std::fmt;

use jobcred_wire::Secret;

use crate::platform::UnixTime;

/// A token as the issuer gave it, or a registry credential as the registry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// The bearer token, or the registry's refresh token.
    pub secret: Secret,
    /// When it ends.
    pub expires_on: UnixTime,
    /// When the issuer wants it renewed (`refresh_in`), where it said so.
    pub refresh_on: Option<UnixTime>,
    /// The resource as it was asked for upstream; the login server for a registry credential.
    pub resource: String,
    /// The client id the endpoint said the token belongs to, where it said so.
    pub client_id: Option<String>,
}

/// Who a token is asked for, in the job's own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// The one identity that the strategy announced at start.
    #[default]
    Job,
    /// A user-assigned (or the system-assigned) identity by client id, lower case.
    ClientId(String),
    /// The same by the object id of its service principal, lower case.
    ObjectId(String),
    /// The same by Azure resource id, as the caller spelt it.
    ResourceId(String),
    /// An application of any tenant that trusts the job's identity; only the configuration names one.
    Application {
        /// Its client id, lower case.
        client_id: String,
        /// The tenant it acts in, lower case.
        tenant_id: String,
    },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job => f.write_str("default"),
            Self::ClientId(id) => write!(f, "client_id {id}"),
            Self::ObjectId(id) => write!(f, "object_id {id}"),
            Self::ResourceId(id) => write!(f, "resource_id {id}"),
            Self::Application {
                client_id,
                tenant_id,
            } => write!(f, "application {client_id} of tenant {tenant_id}"),
        }
    }
}
