//! What each word of the credential helper protocol does.
//!
//! Source of the protocol and of its exact strings: docker/docker-credential-helpers, `credentials` and `client`.

use std::collections::BTreeMap;
use std::time::Duration;

use jobcred_client::{Client, Error, ErrorKind, RegistryResponse};
use jobcred_wire::{ErrorCode, LoginServer, LoginServerError, REGISTRY_USERNAME, RegistryAddress};
use serde::{Deserialize, Serialize};

/// What goes out, and the exit status.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: u8,
}

/// What the address on standard input asks for.
enum Asked {
    /// One of Azure's registries: ours to serve, so that whatever goes wrong has to be said.
    Registry(LoginServer),
    /// A host that only the agent's configuration can make a registry of ours.
    Other(RegistryAddress),
    /// A host that never gets a credential.
    Never,
}

/// The answer to `get`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Credential<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

/// What `store` brings; the secret in it is not even read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
}

/// The credential for the address on standard input.
pub(crate) fn get(input: &[u8]) -> Reply {
    let Ok(address) = std::str::from_utf8(input).map(str::trim) else {
        return Reply::not_found();
    };
    let result = match Asked::parse(address) {
        Err(NoServer) => return Reply::failure(NO_SERVER),
        Ok(Asked::Never) => return Reply::not_found(),
        Ok(Asked::Registry(server)) => patient_client().registry(&server.to_string()),
        Ok(Asked::Other(other)) => match quick_client().registry(&other.to_string()) {
            Err(error) if !is_about_a_served_host(&error) => return Reply::not_found(),
            result => result,
        },
    };
    match result {
        Ok(answer) => credential(address, &answer),
        // The words that make every client go on without a credential, which is what this registry is configured for.
        Err(error) if error.code() == ErrorCode::Anonymous => Reply::not_found(),
        Err(error) => Reply::failure(&error.to_string()),
    }
}

/// Accepts what `docker login` wants kept, and keeps nothing: the agent has a fresher one whenever it is asked.
///
/// For hosts that are not served that would lose a password the user believes stored, so those are refused.
pub(crate) fn store(input: &[u8]) -> Reply {
    let Ok(stored) = serde_json::from_slice::<Stored>(input) else {
        return Reply::failure("the credential to store is not JSON");
    };
    let is_served = match Asked::parse(stored.server_url.trim()) {
        Err(NoServer) => return Reply::failure(NO_SERVER),
        Ok(_) if stored.username.is_empty() => return Reply::failure(NO_USERNAME),
        Ok(Asked::Registry(_)) => true,
        Ok(Asked::Other(other)) => quick_client().registry(&other.to_string()).is_ok(),
        Ok(Asked::Never) => false,
    };
    if is_served {
        Reply::success("")
    } else {
        Reply::failure(
            "jobcred keeps no credentials for this host: it serves Azure container registries and hosts in its configuration",
        )
    }
}

/// Makes the agent drop what it holds for the address on standard input. Where there is nothing to drop, that is a
/// success: `docker logout` asks four times.
pub(crate) fn erase(input: &[u8]) -> Reply {
    let Ok(address) = std::str::from_utf8(input).map(str::trim) else {
        return Reply::success("");
    };
    let result = match Asked::parse(address) {
        Err(NoServer) => return Reply::failure(NO_SERVER),
        Ok(Asked::Never) => Ok(()),
        Ok(Asked::Registry(server)) => quick_client().erase_registry(&server.to_string()),
        // Whatever the agent has against it, it holds nothing for a host that it does not serve.
        Ok(Asked::Other(other)) => {
            let _ = quick_client().erase_registry(&other.to_string());
            Ok(())
        }
    };
    match result {
        Err(error) if is_worth_telling(&error) => Reply::failure(&error.to_string()),
        _ => Reply::success(""),
    }
}

/// The registries the agent holds credentials for. Tools fail hard when this does, so it never does.
pub(crate) fn list() -> Reply {
    let held: BTreeMap<String, &str> = impatient_client()
        .status()
        .map(|status| status.tokens)
        .unwrap_or_default()
        .into_iter()
        // One that was erased, or never came, is known without an end.
        .filter(|token| token.kind == "registry" && token.expires_on.is_some())
        .map(|token| (token.resource, REGISTRY_USERNAME))
        .collect();
    let text = serde_json::to_string(&held).unwrap_or_else(|_| "{}".to_owned());
    Reply::success(&format!("{text}\n"))
}

impl Reply {
    pub(crate) fn success(text: &str) -> Self {
        Self {
            stdout: text.to_owned(),
            stderr: String::new(),
            status: 0,
        }
    }

    /// On both streams: some tools show one, some the other.
    pub(crate) fn failure(text: &str) -> Self {
        let line = format!("{text}\n");
        Self {
            stdout: line.clone(),
            stderr: line,
            status: 1,
        }
    }

    /// The one failure after which every tool goes on without a credential. Quiet on standard error: it is no mistake.
    fn not_found() -> Self {
        Self {
            stdout: format!("{NOT_FOUND}\n"),
            stderr: String::new(),
            status: 1,
        }
    }
}

/// The address is empty.
struct NoServer;

impl Asked {
    fn parse(address: &str) -> Result<Self, NoServer> {
        match LoginServer::parse(address, &[]) {
            Ok(server) => Ok(Self::Registry(server)),
            Err(LoginServerError::Empty) => Err(NoServer),
            Err(LoginServerError::NotServed | LoginServerError::Port) => {
                Ok(RegistryAddress::parse(address).map_or(Self::Never, Self::Other))
            }
            Err(_) => Ok(Self::Never),
        }
    }
}

fn credential(address: &str, answer: &RegistryResponse) -> Reply {
    if answer.secret.is_empty() {
        return Reply::failure("the jobcred agent answered without a credential");
    }
    let credential = Credential {
        server_url: address,
        username: &answer.username,
        secret: answer.secret.expose(),
    };
    match serde_json::to_string(&credential) {
        Ok(text) => Reply::success(&format!("{text}\n")),
        Err(_) => Reply::failure("the credential cannot be written as JSON"),
    }
}

/// Whether the agent serves the host and something else is wrong. Everything less certain must not stand in the way of
/// a pull that needs no credential at all.
fn is_about_a_served_host(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Agent(
            ErrorCode::Rejected
                | ErrorCode::GrantEnded
                | ErrorCode::Transient
                | ErrorCode::Internal
                | ErrorCode::Unknown
        )
    )
}

/// After an `erase`: without an agent, or without a way to such credentials, there was nothing to drop.
fn is_worth_telling(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Agent(ErrorCode::Denied | ErrorCode::Internal | ErrorCode::Transient)
    )
}

/// For a registry that is ours: longer than the agent needs for an exchange with its retries, and short enough that a
/// pull does not look hung.
fn patient_client() -> Client {
    client(Duration::from_secs(3), Duration::from_secs(25))
}

/// For a host that may be none of ours.
fn quick_client() -> Client {
    client(Duration::from_secs(1), Duration::from_secs(10))
}

/// For a list that may as well be empty.
fn impatient_client() -> Client {
    client(Duration::from_secs(1), Duration::from_secs(2))
}

fn client(connect: Duration, total: Duration) -> Client {
    Client::builder()
        .connect_timeout(connect)
        .timeout(total)
        .build()
}

const NOT_FOUND: &str = "credentials not found in native keychain";
const NO_SERVER: &str = "no credentials server URL";
const NO_USERNAME: &str = "no credentials username";

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::{Asked, get, store};

    const SECRET: &str = "hunter2hunter2";

    /// Hosts about which no agent is asked: by `store` those of Azure, and by both those that never get a credential.
    const NEVER: [&str; 6] = [
        "mcr.microsoft.com",
        "https://mcr.microsoft.com/v2/",
        "a.westeurope.data.azurecr.io",
        "user:hunter2hunter2@myreg.azurecr.io",
        "127.0.0.1",
        "my_reg.azurecr.io",
    ];

    /// What docker sends to `store`, changed in a few places.
    fn stored() -> impl Strategy<Value = Vec<u8>> {
        let host = prop_oneof![select(NEVER.to_vec()), Just("myreg.azurecr.io")];
        let piece = select(vec![
            "\"", "\\", "{", "}", ",", ":", "null", "\0", "[", "\u{e9}", "1e999",
        ]);
        let changes = vec((any::<Index>(), piece), 0..4);
        (host, changes).prop_map(|(host, changes)| {
            let text = format!(r#"{{"ServerURL":"{host}","Username":"u","Secret":"{SECRET}"}}"#);
            let mut bytes = text.into_bytes();
            // Behind the address, so that no other host comes of it that an agent would be asked about.
            let after = host.len() + 16;
            for (at, piece) in changes {
                let at = after + at.index(bytes.len() - after);
                bytes.splice(at..at, piece.bytes());
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn what_is_nearly_a_credential_to_store_is_never_repeated(input in stored()) {
            let reply = store(&input);
            prop_assert!(!reply.stdout.contains(SECRET) && !reply.stderr.contains(SECRET), "{:?}", reply);
            let is_accepted = reply.status == 0;
            let is_azures = input.windows(16).any(|part| part == b"myreg.azurecr.io");
            prop_assert!(!is_accepted || is_azures, "{:?}", reply);
            prop_assert_eq!(is_accepted, reply.stdout.is_empty() && reply.stderr.is_empty());
        }

        #[test]
        fn an_address_that_never_gets_a_credential_gets_none(
            address in select(NEVER.to_vec()),
            before in "[ \t\n]{0,3}",
            after in "[ \t\n]{0,3}|/[ -~]{0,20}",
        ) {
            let input = format!("{before}{address}{after}");
            prop_assume!(matches!(Asked::parse(input.trim()), Ok(Asked::Never)));
            let reply = get(input.as_bytes());
            prop_assert_eq!(reply.status, 1);
            prop_assert!(!reply.stdout.contains(SECRET) && reply.stderr.is_empty(), "{:?}", reply);
        }
    }
}
