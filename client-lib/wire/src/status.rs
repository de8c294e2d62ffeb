//! What an agent holds and how it fares: the answer to `GET /v1/status`. Holds no token and no secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ErrorCode, PrincipalClaims};

/// The state of a running agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The agent's process id, in its own pid namespace.
    pub pid: u32,
    /// The chosen strategy's name.
    pub strategy: String,
    /// A hash of strategy and configuration: equal fingerprints mean interchangeable agents.
    pub fingerprint: String,
    /// When the agent started, in unix seconds.
    pub started_on: i64,
    /// How many count on the agent and keep it alive: each `jobcred run` that shares it, and programs that hold a lease.
    #[serde(default)]
    pub leases: u64,
    /// Whether every declared token exists and the configured identity endpoint is open.
    pub ready: bool,
    /// Why the configured identity endpoint is not open, in one sentence; absent when it is, or none is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whose tokens these are, once one has been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalClaims>,
    /// The tokens held.
    pub tokens: Vec<TokenStatus>,
    /// Seconds until the first of the tokens in use ends: how long an outage could last unnoticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runway: Option<i64>,
    /// Fetches that failed since the start, by kind; kinds that never happened are absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, u64>,
    /// Who asked for tokens, by uid and pid as the kernel tells them.
    pub callers: Vec<CallerStatus>,
    /// The last thing that went wrong upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_upstream_error: Option<UpstreamError>,
    /// The last few things that went wrong upstream, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_errors: Vec<UpstreamError>,
    /// Answers of upstream that said "too many requests" (429).
    #[serde(default)]
    pub throttles: u64,
    /// Requests that were denied, by policy or because of who asked.
    #[serde(default)]
    pub denials: u64,
    /// How often this job's agent was started again after it had died.
    #[serde(default)]
    pub restarts: u32,
    /// What is wrong with the machine's clock, in one sentence; absent when nothing is known to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
}

/// One token or registry credential held, without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// `token` or `registry`.
    pub kind: String,
    /// As whom: `default`, or the id that was named.
    pub identity: String,
    /// The resource, or the login server.
    pub resource: String,
    /// When it was got, in unix seconds; absent while the first fetch has not succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obtained_on: Option<i64>,
    /// When it ends, in unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<i64>,
    /// When the agent means to renew it, in unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_on: Option<i64>,
    /// Whether the configuration declares it: then it is always kept fresh.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
    /// Seconds that an outage could last before a caller notices: the life left of a token in use, zero for a declared one
    /// that is missing, absent for one that nobody asks for any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runway: Option<i64>,
    /// Answers given from memory.
    pub hits: u64,
    /// Fetches begun upstream.
    pub fetches: u64,
    /// Fetches that failed.
    pub failures: u64,
    /// The last failure, until a fetch succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<UpstreamError>,
}

/// A caller, as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerStatus {
    /// The effective uid when it connected.
    pub uid: u32,
    /// Its pid in the agent's pid namespace; absent where it is not visible there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Tokens and credentials it asked for.
    pub requests: u64,
    /// When it last asked, in unix seconds.
    pub last_seen_on: i64,
    /// The name of its program, as the kernel keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its place in the training: variables of launchers (`RANK`, `LOCAL_RANK`, `OMPI_COMM_WORLD_RANK` ...) and their numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranks: BTreeMap<String, String>,
    /// Whether it is known to have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// One failure upstream, fit for a reader outside the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamError {
    /// Its kind.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
    /// When, in unix seconds.
    pub at: i64,
    /// What a person can do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The issuer's own code, for example `AADSTS70021`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_code: Option<String>,
    /// The resource, or the login server, that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}
