//! A job's program that gets tokens with the crates that Rust jobs use, and knows nothing of jobcred.
//!
//! Each line of its standard input asks once, and is answered by a line of JSON: whose token came of it, or the error. It never
//! prints a token.
//!
//! - `{"kind": "managed", "client_id": C?}`: `azure_identity`'s `ManagedIdentityCredential`
//! - `{"kind": "object_store", "client_id": C?}`: what `object_store` makes of the environment
//!
//! A credential is made once for each kind and client id, as a program would, unless `"fresh": true`.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use object_store::azure::{AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

enum Client {
    Managed(Arc<ManagedIdentityCredential>),
    Store(MicrosoftAzure),
}

impl Client {
    fn new(kind: &str, client_id: Option<&str>) -> Result<Self, Failure> {
        match kind {
            "managed" => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.map(|id| UserAssignedId::ClientId(id.to_owned())),
                    ..Default::default()
                };
                Ok(Self::Managed(ManagedIdentityCredential::new(Some(
                    options,
                ))?))
            }
            "object_store" => {
                let mut builder = MicrosoftAzureBuilder::from_env()
                    .with_account("devstoreaccount1")
                    .with_container_name("data");
                if let Some(id) = client_id {
                    builder = builder.with_client_id(id);
                }
                Ok(Self::Store(builder.build()?))
            }
            other => Err(format!("no kind {other}").into()),
        }
    }

    async fn token(&self) -> Result<String, Failure> {
        match self {
            Self::Managed(credential) => {
                let scope = ["https://storage.azure.com/.default"];
                Ok(credential
                    .get_token(&scope, None)
                    .await?
                    .token
                    .secret()
                    .to_owned())
            }
            Self::Store(store) => match &*store.credentials().get_credential().await? {
                AzureCredential::BearerToken(token) => Ok(token.clone()),
                _ => Err("object_store found a credential that is no token".into()),
            },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut clients = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match ask(&mut clients, &request).await {
            Ok(token) => {
                let claims = claims(&token)?;
                json!({"oid": claims["oid"], "aud": claims["aud"], "error": null, "message": null})
            }
            Err(error) => {
                let mut message = error.to_string();
                let mut source = error.source();
                while let Some(cause) = source {
                    message.push_str(&format!(": {cause}"));
                    source = cause.source();
                }
                json!({"oid": null, "aud": null, "error": "Error", "message": message})
            }
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn ask(clients: &mut HashMap<String, Client>, request: &Value) -> Result<String, Failure> {
    let kind = request["kind"].as_str().unwrap_or_default();
    let client_id = request["client_id"].as_str();
    let name = format!("{kind} {client_id:?}");
    if request["fresh"] == true {
        clients.remove(&name);
    }
    if !clients.contains_key(&name) {
        clients.insert(name.clone(), Client::new(kind, client_id)?);
    }
    clients.get(&name).ok_or("it was just made")?.token().await
}

fn claims(token: &str) -> Result<Value, Failure> {
    let payload = token.split('.').nth(1).ok_or("the token has no claims")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}
