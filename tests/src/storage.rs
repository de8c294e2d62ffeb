//! Azure Storage's blob and Data Lake endpoints over TLS, as far as a client asks whether it gets in: challenge, refusals,
//! one-entry listings, and empty files made and deleted.
//!
//! Written from Microsoft's documentation of the error codes and from recorded answers: XML with `AuthenticationErrorDetail` and
//! a `www-authenticate` challenge on one endpoint, JSON on the other; `x-ms-request-id` and `x-ms-error-code` on both.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::ca::Leaf;
use crate::clock::Clock;
use crate::recorder::RecordedRequest;
use crate::reply::{Received, Reply};
use crate::script::Script;
use crate::server::{Endpoint, Handler};
use crate::token::{DEFAULT_TENANT, decode_claims, guid};

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// Nothing: no role.
    None,
    /// List and read.
    Reader,
    /// Everything.
    Contributor,
}

/// How a [`Storage`] double behaves when nothing else is said. All but `bind` can be changed while it runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageOptions {
    /// Where it listens.
    pub bind: SocketAddr,
    /// The account. By address it is the first part of the path, as with emulators; by name it is the host's.
    pub account: String,
    /// The tenant whose tokens the account takes.
    pub tenant: String,
    /// Containers, each with the names of its files.
    pub containers: BTreeMap<String, Vec<String>>,
    /// What whoever asks may do.
    pub rights: Rights,
    /// A refusal of every request with this status and code, after the token was taken: `(403, "AuthorizationFailure")`.
    pub refusal: Option<(u16, String)>,
    /// The same for requests that make something.
    pub write_refusal: Option<(u16, String)>,
    /// The same for requests that delete something.
    pub delete_refusal: Option<(u16, String)>,
}

impl Default for StorageOptions {
    fn default() -> Self {
        let files = vec!["train/a.parquet".to_owned(), "train/b.parquet".to_owned()];
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            account: "myaccount".to_owned(),
            tenant: DEFAULT_TENANT.to_owned(),
            containers: BTreeMap::from([("data".to_owned(), files)]),
            rights: Rights::Contributor,
            refusal: None,
            write_refusal: None,
            delete_refusal: None,
        }
    }
}

/// One account, with both of its endpoints on one port: which one is asked shows in the host's name, else in the query.
#[derive(Debug)]
pub struct Storage {
    endpoint: Endpoint,
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    options: Mutex<StorageOptions>,
    clock: Clock,
}

/// The two protocols.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Blob,
    Dfs,
}

impl Storage {
    /// Starts the account with this certificate.
    pub fn start(options: StorageOptions, leaf: &Leaf) -> io::Result<Self> {
        let clock = Clock::new();
        let bind = options.bind;
        let core = Arc::new(Core {
            options: Mutex::new(options),
            clock: clock.clone(),
        });
        let handler: Arc<Core> = Arc::clone(&core);
        let tls = Some(leaf.server_config()?);
        let endpoint = Endpoint::start("storage", bind, tls, clock, handler)?;
        Ok(Self { endpoint, core })
    }

    /// The one endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its script.
    #[must_use]
    pub fn script(&self) -> &Script {
        self.endpoint.script()
    }

    /// What it was asked.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.endpoint.requests()
    }

    /// What it goes by now.
    #[must_use]
    pub fn options(&self) -> StorageOptions {
        self.core.options().clone()
    }

    /// Changes its ways from the next request on.
    pub fn update(&self, change: impl FnOnce(&mut StorageOptions)) {
        change(&mut self.core.options());
    }
}

impl Core {
    fn options(&self) -> MutexGuard<'_, StorageOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with the token, as the service says it; `None` when nothing is.
    fn token_fault(&self, token: &str, options: &StorageOptions) -> Option<&'static str> {
        let Some(claims) = decode_claims(token) else {
            return Some("Signature validation failed.");
        };
        let audience = claims["aud"].as_str().unwrap_or_default();
        let own = format!("https://{}.blob.core.windows.net", options.account);
        let known = [
            "https://storage.azure.com",
            "e406a681-f3d4-42a8-90b6-c2b029497af1",
            own.as_str(),
        ];
        if !known.contains(&audience.trim_end_matches('/')) {
            return Some("Audience validation failed. Audience did not match.");
        }
        let issuers = [
            format!("https://sts.windows.net/{}/", options.tenant),
            format!("https://login.microsoftonline.com/{}/v2.0", options.tenant),
        ];
        let issuer = claims["iss"].as_str().unwrap_or_default();
        if !issuers.iter().any(|known| known == issuer) {
            return Some("Issuer validation failed. Issuer did not match.");
        }
        let now = self.clock.now();
        if claims["exp"].as_i64().is_none_or(|end| end <= now) {
            return Some("Lifetime validation failed. The token is expired.");
        }
        if claims["nbf"].as_i64().is_none_or(|begin| begin > now + 300) {
            return Some("Lifetime validation failed.");
        }
        None
    }

    fn respond(&self, protocol: Protocol, path: &str, request: &Received) -> Reply {
        let mut options = self.options();
        // A service version since 2019-12-12 is what a challenge comes for.
        let challenged = request
            .header("x-ms-version")
            .is_some_and(|version| version >= "2019-12-12");
        let Some(token) = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
        else {
            return challenge(&options, "NoAuthenticationInformation", None);
        };
        if let Some(fault) = self.token_fault(token, &options) {
            if challenged {
                return challenge(&options, "InvalidAuthenticationInfo", Some(fault));
            }
            return xml_error(403, "AuthenticationFailed", SIGNATURE, Some(fault));
        }
        let error = |status, code: &str| error(protocol, status, code);
        if let Some((status, code)) = &options.refusal {
            return error(*status, code);
        }
        let (container, file) = path.split_once('/').unwrap_or((path, ""));
        let (reads, makes) = (request.method == Method::GET, request.method == Method::PUT);
        // Who has no role is not told what there is.
        if options.rights == Rights::None || (!reads && options.rights == Rights::Reader) {
            return error(403, "AuthorizationPermissionMismatch");
        }
        let refusal = if makes {
            &options.write_refusal
        } else if reads {
            &None
        } else {
            &options.delete_refusal
        };
        if let Some((status, code)) = refusal {
            return error(*status, code);
        }
        let missing = match protocol {
            Protocol::Blob => "ContainerNotFound",
            Protocol::Dfs => "FilesystemNotFound",
        };
        let Some(files) = options.containers.get_mut(container) else {
            return error(404, missing);
        };
        let at = files.iter().position(|known| known == file);
        match (request.method.as_str(), at) {
            ("GET", _) if file.is_empty() => list(protocol, files, request),
            ("PUT", Some(_)) if request.header("if-none-match") == Some("*") => match protocol {
                Protocol::Blob => error(409, "BlobAlreadyExists"),
                Protocol::Dfs => error(409, "PathAlreadyExists"),
            },
            ("PUT", _)
                if protocol == Protocol::Blob && request.header("x-ms-blob-type").is_none() =>
            {
                error(400, "MissingRequiredHeader")
            }
            ("PUT", at) => {
                if at.is_none() {
                    files.push(file.to_owned());
                }
                named(Reply::status(201)).with_header("etag", "\"0x8DC0FFEE\"")
            }
            ("DELETE", Some(at)) => {
                files.remove(at);
                named(Reply::status(if protocol == Protocol::Blob {
                    202
                } else {
                    200
                }))
            }
            ("DELETE", None) => match protocol {
                Protocol::Blob => error(404, "BlobNotFound"),
                Protocol::Dfs => error(404, "PathNotFound"),
            },
            _ => error(405, "UnsupportedHttpVerb"),
        }
    }
}

impl Handler for Core {
    fn answer(&self, request: &Received) -> Reply {
        let account = self.options().account.clone();
        let host = request.header("host").unwrap_or_default().to_owned();
        let decoded = percent_encoding::percent_decode_str(request.path.trim_start_matches('/'))
            .decode_utf8_lossy()
            .into_owned();
        let by_name = host.starts_with(&format!("{account}."));
        let path = if by_name {
            decoded.as_str()
        } else if let Some(rest) = decoded.strip_prefix(&format!("{account}/")) {
            rest
        } else {
            return error(Protocol::Blob, 404, "ResourceNotFound");
        };
        let protocol = if host.contains(".dfs.") || request.parameter("resource").is_some() {
            Protocol::Dfs
        } else {
            Protocol::Blob
        };
        self.respond(protocol, path, request)
    }
}

const SIGNATURE: &str = "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly \
    including the signature.";
const CHALLENGE: &str = "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";

/// Every answer of the service has an id.
fn named(reply: Reply) -> Reply {
    reply
        .with_header("x-ms-request-id", &guid())
        .with_header("x-ms-version", "2021-12-02")
        .with_header("server", "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0")
}

fn challenge(options: &StorageOptions, code: &str, detail: Option<&str>) -> Reply {
    let uri = format!(
        "Bearer authorization_uri=https://login.microsoftonline.com/{}/oauth2/authorize resource_id=https://storage.azure.com",
        options.tenant
    );
    xml_error(401, code, CHALLENGE, detail).with_header("www-authenticate", &uri)
}

fn error(protocol: Protocol, status: u16, code: &str) -> Reply {
    let message = match code {
        "AuthorizationPermissionMismatch" => {
            "This request is not authorized to perform this operation using this permission."
        }
        "AuthorizationFailure" => "This request is not authorized to perform this operation.",
        "ContainerNotFound" => "The specified container does not exist.",
        "FilesystemNotFound" => "The specified filesystem does not exist.",
        "PathNotFound" => "The specified path does not exist.",
        _ => "The request is refused.",
    };
    match protocol {
        Protocol::Blob => xml_error(status, code, message, None),
        Protocol::Dfs => {
            let id = guid();
            let body = json!({"error": {
                "code": code,
                "message": format!("{message}\nRequestId:{id}\nTime:2026-01-01T00:00:00.0000000Z"),
            }});
            named(Reply::json(status, &body))
                .with_header("x-ms-request-id", &id)
                .with_header("x-ms-error-code", code)
        }
    }
}

fn xml_error(status: u16, code: &str, message: &str, detail: Option<&str>) -> Reply {
    let id = guid();
    let detail = detail.map_or_else(String::new, |detail| {
        format!("<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>")
    });
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}\nRequestId:{id}\n\
         Time:2026-01-01T00:00:00.0000000Z</Message>{detail}</Error>"
    );
    named(Reply::status(status))
        .with_header("x-ms-request-id", &id)
        .with_header("x-ms-error-code", code)
        .with_header("content-type", "application/xml")
        .with_body(body)
}

fn list(protocol: Protocol, files: &[String], request: &Received) -> Reply {
    match protocol {
        Protocol::Blob => {
            let prefix = request.parameter("prefix").unwrap_or_default();
            let mut found = files.iter().filter(|file| file.starts_with(prefix));
            let first = found.next().map_or_else(String::new, |name| {
                format!("<Blob><Name>{name}</Name></Blob>")
            });
            let more = if found.next().is_some() { "more" } else { "" };
            named(Reply::status(200))
                .with_header("content-type", "application/xml")
                .with_body(format!(
                    "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{first}</Blobs>\
                     <NextMarker>{more}</NextMarker></EnumerationResults>"
                ))
        }
        Protocol::Dfs => {
            let folder = request.parameter("directory").unwrap_or_default();
            let below = if folder.is_empty() {
                String::new()
            } else {
                format!("{folder}/")
            };
            let mut found = files.iter().filter(|file| file.starts_with(&below));
            let first = found.next();
            if first.is_none() && !folder.is_empty() {
                return error(Protocol::Dfs, 404, "PathNotFound");
            }
            let paths: Vec<_> = first
                .map(|name| json!({"name": name}))
                .into_iter()
                .collect();
            named(Reply::json(200, &json!({"paths": paths})))
        }
    }
}
