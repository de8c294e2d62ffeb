//! The selection with its evidence: what `jobcred explain --json` and `GET /v1/explain` say.

use serde::{Deserialize, Serialize};

use crate::ErrorCode;

/// Which strategy was chosen, why, and why each other one was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The version of jobcred that decided.
    pub version: String,
    /// The chosen strategy's name, for example `compute-identity`; `none` when nothing can be served.
    pub strategy: String,
    /// The stable code of the reason.
    pub reason: String,
    /// The reason as a sentence.
    pub message: String,
    /// What is asked upstream, in words, without secrets: endpoint and the client id sent, if any.
    #[serde(default)]
    pub upstream: Option<String>,
    /// Whether `run` leads its command's Azure SDKs to jobcred, and by which dialects or why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdks: Option<String>,
    /// Every strategy in the order it was considered, the chosen one included.
    pub candidates: Vec<Candidate>,
    /// Conflicts, placeholders, variables by which SDKs bypass jobcred.
    pub notices: Vec<Notice>,
    /// Whose token a probe got, where one was asked for (`--probe`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalClaims>,
    /// Why a probe got no token that may be used, where one was asked for and did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_error: Option<ProbeError>,
    /// The agent that has decided so; absent where it was decided only to be explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Decider>,
}

/// An agent that serves by the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decider {
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// When it started, and with that decided, in unix seconds.
    pub started_on: i64,
}

/// Why a probe got no token, or one that an agent would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeError {
    /// The kind.
    pub code: ErrorCode,
    /// What happened, as one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The issuer's own code, for example `AADSTS70021`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_code: Option<String>,
}

/// One strategy and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The strategy's name.
    pub strategy: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The stable code of the reason.
    pub reason: String,
    /// The reason as a sentence.
    pub message: String,
    /// The facts looked at, for example `AZUREML_OBO_ENABLED is unset`; secrets only as "set".
    pub evidence: Vec<String>,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is the one.
    Chosen,
    /// It applies here, but is set up wrongly: a start-up error.
    Failed,
    /// It does not apply here, or another one came first.
    PassedOver,
    /// An outcome this version does not know.
    #[serde(other)]
    Unknown,
}

/// Something a person should know about the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// The stable code.
    pub code: String,
    /// What it is.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// A person should look.
    Warning,
    /// A severity this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a token says of whom it was issued to. Never a name or an e-mail address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalClaims {
    /// `oid`: the object id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// `appid` or `azp`: the application (client) id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// `tid`: the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// `aud`: the audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// `user` or `app`, where the token tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// When the token ends, in unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<i64>,
    /// Whether the token carries the sandbox's mark and is worth nothing outside it.
    #[serde(default)]
    pub sandbox: bool,
}
