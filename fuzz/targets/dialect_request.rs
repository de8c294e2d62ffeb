//! A request to an identity endpoint: path, query and headers, in all dialects.

#![no_main]

use http::Request;
use http::header::HOST;
use jobcred::config::Dialect;
use jobcred::front::dialect::{Keys, fuzz};
use jobcred_fuzz::{Message, SECRET, assert_fit_to_show};
use jobcred_wire::{NamedIdentity, Secret};
use libfuzzer_sys::fuzz_target;
use url::form_urlencoded;

const PORT: u16 = 4567;
const PREFIX: &str = "0123456789";
const FOREIGN: [&str; 3] = ["forwarded", "origin", "via"];
const FOREIGN_PREFIXES: [&str; 2] = ["x-forwarded-", "sec-fetch-"];
const IDENTITIES: [&str; 7] = [
    "client_id",
    "clientid",
    "object_id",
    "principal_id",
    "mi_res_id",
    "msi_res_id",
    "resource_id",
];

fuzz_target!(|data: &[u8]| {
    let Some(message) = Message::read(data) else {
        return;
    };
    // `METHOD TARGET`.
    let Some((method, target)) = message.line.split_once(' ') else {
        return;
    };
    let Ok(mut request) = Request::builder().method(method).uri(target).body(()) else {
        return;
    };
    *request.headers_mut() = message.headers;
    let (parts, ()) = request.into_parts();
    let keys = Keys {
        secret: Secret::from(SECRET),
        prefix: Some(Secret::from(PREFIX)),
    };
    let (dialect, query) = match fuzz::read(&parts, &keys, PORT) {
        Ok(read) => read,
        Err(error) => {
            assert_fit_to_show(&error);
            assert!(!format!("{error} {error:?}").contains(PREFIX), "{error:?}");
            return;
        }
    };

    // Only who was told the secret, or the path, is let in, by a name of this machine and no other way.
    assert_eq!(parts.method, "GET");
    let header = |name: &str| parts.headers.get(name).map(|value| value.as_bytes());
    let host = header(HOST.as_str()).unwrap().to_ascii_lowercase();
    assert!([&b"127.0.0.1:4567"[..], b"localhost:4567", b"[::1]:4567"].contains(&host.as_slice()));
    for name in parts.headers.keys().map(http::HeaderName::as_str) {
        let is_foreign = FOREIGN.contains(&name)
            || FOREIGN_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
        // Node's `fetch` sends this one.
        assert!(!is_foreign || name == "sec-fetch-mode", "{name}");
    }
    let path = parts.uri.path();
    match dialect {
        Dialect::AppService => {
            assert_eq!(path, "/msi/token");
            assert_eq!(header("x-identity-header"), Some(SECRET.as_bytes()));
        }
        Dialect::AzureMl => {
            assert_eq!(path.strip_suffix('/').unwrap_or(path), "/MSI/auth");
            assert_eq!(header("secret"), Some(SECRET.as_bytes()));
        }
        Dialect::OnBehalfOf => assert_eq!(path, format!("/{PREFIX}/OBO/token")),
        Dialect::Imds => {
            let lower = path.to_ascii_lowercase();
            let whole = format!("/{PREFIX}/metadata/identity/oauth2/token");
            assert_eq!(lower.strip_suffix('/').unwrap_or(&lower), whole);
            assert!(header("metadata").unwrap().eq_ignore_ascii_case(b"true"));
        }
    }

    // Whatever another reader of queries finds in it is what was read.
    let given = parts.uri.query().unwrap_or_default();
    let parameters: Vec<(String, String)> = form_urlencoded::parse(given.as_bytes())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned()))
        .collect();
    let all = |wanted: &[&str]| -> Vec<&(String, String)> {
        let is_wanted = |(name, _): &&(String, String)| wanted.contains(&name.as_str());
        parameters.iter().filter(is_wanted).collect()
    };
    let [(_, resource)] = all(&["resource"])[..] else {
        panic!("not one resource in {given:?}");
    };
    assert_eq!(&query.resource, resource);
    assert!(!resource.is_empty());
    assert!(!resource.contains(|c: char| c.is_control() || c.is_whitespace()));
    assert!(all(&["api-version"]).len() <= 1, "{given:?}");
    let identity = query
        .request
        .identity
        .as_ref()
        .map(|identity| match identity {
            NamedIdentity::ClientId(id) => (&["client_id", "clientid"][..], id),
            NamedIdentity::ObjectId(id) => (&["object_id", "principal_id"][..], id),
            NamedIdentity::ResourceId(id) => (&["mi_res_id", "msi_res_id", "resource_id"][..], id),
        });
    // Azure ML's clients name nobody in two ways, which may be written out or encoded.
    let may_be_nobody = |(name, value): &(String, String)| {
        dialect == Dialect::AzureMl
            && name == "clientid"
            && ["", "clientid"].contains(&value.as_str())
    };
    let named = all(&IDENTITIES);
    let surely: Vec<_> = named.iter().filter(|given| !may_be_nobody(given)).collect();
    assert!(surely.len() <= 1, "{given:?}");
    match (identity, surely.first()) {
        (Some((names, id)), Some((name, value))) => {
            assert!(names.contains(&name.as_str()) && id == value, "{given:?}");
        }
        (None, Some(_)) => panic!("whom {given:?} names is passed over"),
        (Some((_, id)), None) => assert!(named.iter().any(|(_, value)| value == id), "{given:?}"),
        (None, None) => {}
    }
});
