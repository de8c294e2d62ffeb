//! Azure ML on behalf of a user: what `OBO_ENDPOINT` leads to. No api-version, no header; answers and refusals are as on Azure
//! ML's other endpoint.

/// The path of a token request, below the prefix.
pub const PATH: &str = "/OBO/token";
