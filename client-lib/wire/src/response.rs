//! The answers that carry a token or a registry credential.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// The answer to a token request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The bearer token.
    #[serde(serialize_with = "Secret::serialize_exposed")]
    pub access_token: Secret,
    /// Always `Bearer` today.
    pub token_type: String,
    /// When the token ends, in unix seconds.
    pub expires_on: i64,
    /// When a client that caches should ask again, in unix seconds; never after `expires_on`.
    pub refresh_on: i64,
    /// The resource the token is for, as the issuer was asked for it.
    pub resource: String,
    /// The client id the identity endpoint said the token belongs to, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// The answer to a registry credential request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryResponse {
    /// The login server, lower case.
    pub server: String,
    /// The user name container clients must send; see [`crate::REGISTRY_USERNAME`].
    pub username: String,
    /// The registry's refresh token, used as a password.
    #[serde(serialize_with = "Secret::serialize_exposed")]
    pub secret: Secret,
    /// When the credential ends, in unix seconds.
    pub expires_on: i64,
    /// When to ask again, in unix seconds; never after `expires_on`.
    pub refresh_on: i64,
}

#[cfg(test)]
mod tests {
    use super::{RegistryResponse, TokenResponse};
    use crate::Secret;

    #[test]
    fn exact_json_of_a_token() {
        let answer = TokenResponse {
            access_token: Secret::from("a.b.c"),
            token_type: "Bearer".to_owned(),
            expires_on: 2_000,
            refresh_on: 1_000,
            resource: "https://storage.azure.com/".to_owned(),
            client_id: None,
        };
        let text = r#"{"access_token":"a.b.c","token_type":"Bearer","expires_on":2000,"refresh_on":1000,"resource":"https://storage.azure.com/"}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert_eq!(serde_json::from_str::<TokenResponse>(text).unwrap(), answer);
        assert!(!format!("{answer:?}").contains("a.b.c"));
    }

    #[test]
    fn exact_json_of_a_registry_credential() {
        let text = r#"{"server":"m.azurecr.io","username":"u","secret":"s3cret","expires_on":2,"refresh_on":1}"#;
        let answer: RegistryResponse = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert!(!format!("{answer:?}").contains("s3cret"));
    }
}
