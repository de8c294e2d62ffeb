//! What a jobcred agent and its clients say to each other: requests, answers, errors, constants. No I/O.
//!
//! The wire is HTTP/1.1 with JSON bodies over a Unix socket; `docs/protocol.md` is the contract in prose. Every type
//! here ignores fields it does not know and every enumeration has an unknown variant, so that an older client can talk
//! to a newer agent and the other way round.

mod error;
mod explain;
mod login_server;
mod readiness;
mod request;
mod response;
mod secret;
mod socket;
mod status;

pub use crate::error::{ErrorBody, ErrorCode, ErrorDetail};
pub use crate::explain::{
    Candidate, Decider, Explanation, Notice, Outcome, PrincipalClaims, ProbeError, Severity,
};
pub use crate::login_server::{
    ListedHost, LoginServer, LoginServerError, MAX_ADDRESS_BYTES, REGISTRY_SUFFIXES,
    RegistryAddress,
};
pub use crate::readiness::{DeclaredResource, Readiness, ResourceState};
pub use crate::request::{NamedIdentity, RegistryRequest, RequestError, Target, TokenRequest};
pub use crate::response::{RegistryResponse, TokenResponse};
pub use crate::secret::Secret;
pub use crate::socket::{SOCKET_FILE, SocketSearch};
pub use crate::status::{CallerStatus, Status, TokenStatus, UpstreamError};

/// Path of a token request.
pub const TOKEN_PATH: &str = "/v1/token";
/// Path of a registry credential request (`GET`) and of dropping a cached one (`DELETE`).
pub const REGISTRY_PATH: &str = "/v1/registry";
/// Path of the selection with its evidence.
pub const EXPLAIN_PATH: &str = "/v1/explain";
/// Path of what the agent holds and how it fares.
pub const STATUS_PATH: &str = "/v1/status";
/// Path of a lease (`GET`): an answer that stays open for as long as somebody counts on the agent; and of the word that the command of
/// one who has a lease has failed (`POST`).
pub const LEASE_PATH: &str = "/v1/lease";
/// Path where a `run` offers its identity endpoint (`POST`), and where a shell learns of one (`GET`).
pub const ENDPOINT_PATH: &str = "/v1/endpoint";
/// Path that answers 200 while the agent runs.
pub const HEALTH_PATH: &str = "/healthz";
/// Path that answers 200 once every declared token exists.
pub const READY_PATH: &str = "/readyz";
/// Path of the Prometheus text.
pub const METRICS_PATH: &str = "/metrics";

/// The header that every request on the socket carries, with any value. A program that only follows a URL cannot set it.
pub const REQUEST_HEADER: &str = "jobcred";
/// Headers of what a caller of an offered endpoint has to show.
pub const SECRET_HEADER: &str = "jobcred-secret";
/// See [`SECRET_HEADER`]: the first segment of the paths of dialects that send no secret.
pub const PREFIX_HEADER: &str = "jobcred-prefix";
/// Variable that names the agent's socket. When set, a client looks nowhere else.
pub const SOCKET_VARIABLE: &str = "JOBCRED_SOCKET";
/// Variable that names one more uid (besides its own and root) whose agent a client accepts.
pub const AGENT_UID_VARIABLE: &str = "JOBCRED_AGENT_UID";
/// The `Host` header clients send. The agent accepts `localhost` as well, which curl and others send, and no other.
pub const HOST: &str = "jobcred";
/// The user name that tells Azure Container Registry that the password is a registry token.
///
/// Source: the registry's AAD-OAuth documentation; the form every container client was seen to accept.
pub const REGISTRY_USERNAME: &str = "00000000-0000-0000-0000-000000000000";
/// The longest resource or scope a request may carry, in bytes. Real ones are below 200.
pub const MAX_TARGET_BYTES: usize = 2048;
/// The longest claims challenge a request may carry, in bytes: percent-encoded three times as long, it still fits the headers.
pub const MAX_CLAIMS_BYTES: usize = 4096;
/// The longest request line and headers the agent reads, in bytes; beyond it answers 431.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The longest answer a client reads, in bytes. Tokens are 2 to 10 KiB.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
