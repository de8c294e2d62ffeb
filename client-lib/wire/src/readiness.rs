//! Whether every declared token exists, and why not: the answer to `GET /readyz`. Holds no token and no secret.

use serde::{Deserialize, Serialize};

use crate::{ErrorDetail, UpstreamError};

/// The body of every answer of `/readyz`: without `error` and with status 200 once every declared token exists.
///
/// Otherwise it is an error answer like any other, whose kind says whether waiting helps (`transient`) or one was refused
/// for good, with the list beside it. `/readyz?wait=SECONDS` answers as soon as either is settled, and after that time at
/// the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// `ready`; absent in an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
    /// Every declared resource; empty where none is, and where the agent can serve nothing at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<DeclaredResource>,
}

/// One declared resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredResource {
    /// The resource.
    pub resource: String,
    /// How it stands.
    pub state: ResourceState,
    /// The last failure, until a fetch succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<UpstreamError>,
}

/// How a declared resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceState {
    /// Its token exists.
    Ready,
    /// The agent is still trying.
    Trying,
    /// It was refused in a way that waiting does not heal.
    Refused,
    /// No issuer refused it. A setting of the machine is in the way (proxy, roots, TLS), or the agent withholds a token whose
    /// principal is not that of the job's earlier ones.
    Blocked,
    /// A state this version does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::{DeclaredResource, Readiness, ResourceState};

    #[test]
    fn exact_json_of_a_ready_agent() {
        let ready = Readiness {
            status: Some("ready".to_owned()),
            error: None,
            resources: vec![DeclaredResource {
                resource: "https://storage.azure.com".to_owned(),
                state: ResourceState::Ready,
                last_error: None,
            }],
        };
        assert_eq!(
            serde_json::to_string(&ready).unwrap(),
            r#"{"status":"ready","resources":[{"resource":"https://storage.azure.com","state":"ready"}]}"#
        );
    }

    #[test]
    fn what_an_agent_without_the_list_says_is_read() {
        let text = r#"{"error":{"code":"transient","message":"m","request_id":"r"}}"#;
        let read: Readiness = serde_json::from_str(text).unwrap();
        assert!(read.error.is_some() && read.resources.is_empty());
        let text = r#"{"resources":[{"resource":"r","state":"brand_new"}]}"#;
        let read: Readiness = serde_json::from_str(text).unwrap();
        assert_eq!(read.resources[0].state, ResourceState::Unknown);
    }
}
