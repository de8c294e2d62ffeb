//! Requests, to and from the path and query they travel as.

use std::borrow::Cow;
use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{MAX_CLAIMS_BYTES, MAX_TARGET_BYTES, REGISTRY_PATH, TOKEN_PATH};

/// Everything but RFC 3986's unreserved characters is encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a token is wanted for: a v1 resource or a v2 scope, exactly as the caller spelt it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A resource URI, for example `https://storage.azure.com/`.
    Resource(String),
    /// One scope, for example `https://storage.azure.com/.default`.
    Scope(String),
}

/// An identity a request names instead of taking the job's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamedIdentity {
    /// By application (client) id.
    ClientId(String),
    /// By the object id of its service principal.
    ObjectId(String),
    /// By its Azure resource id.
    ResourceId(String),
}

/// A token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// What for.
    pub target: Target,
    /// As whom, when not as the job's own identity.
    pub identity: Option<NamedIdentity>,
    /// The shortest life left that the caller can use, in seconds.
    pub min_validity: Option<u64>,
    /// A claims challenge from a resource, as JSON text.
    pub claims: Option<String>,
    /// The tenant that should issue the token.
    pub tenant_id: Option<String>,
}

/// A registry credential request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRequest {
    /// The login server, as the caller spelt it.
    pub server: String,
}

/// Why a query is not a request. Its text is meant for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError(String);

impl TokenRequest {
    /// A request for `target` as the job's own identity, without conditions.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            identity: None,
            min_validity: None,
            claims: None,
            tenant_id: None,
        }
    }

    /// The request as path and query.
    #[must_use]
    pub fn to_path_and_query(&self) -> String {
        let mut out = String::from(TOKEN_PATH);
        match &self.target {
            Target::Resource(resource) => push(&mut out, "resource", resource),
            Target::Scope(scope) => push(&mut out, "scope", scope),
        }
        match &self.identity {
            None => {}
            Some(NamedIdentity::ClientId(id)) => push(&mut out, "client_id", id),
            Some(NamedIdentity::ObjectId(id)) => push(&mut out, "object_id", id),
            Some(NamedIdentity::ResourceId(id)) => push(&mut out, "resource_id", id),
        }
        if let Some(seconds) = self.min_validity {
            push(&mut out, "min_validity", &seconds.to_string());
        }
        if let Some(claims) = &self.claims {
            push(&mut out, "claims", claims);
        }
        if let Some(tenant) = &self.tenant_id {
            push(&mut out, "tenant_id", tenant);
        }
        out
    }

    /// Reads the query part of a token request.
    ///
    /// Unknown parameters are ignored, except other spellings of those that say whose token it shall be; a repeated one, two targets, two identities, an empty or over-long value and
    /// control characters are errors.
    pub fn from_query(query: &str) -> Result<Self, RequestError> {
        let mut fields = Fields::parse(query)?;
        let resource = fields.take("resource", MAX_TARGET_BYTES)?;
        let scope = fields.take("scope", MAX_TARGET_BYTES)?;
        let target = match (resource, scope) {
            (Some(resource), None) => Target::Resource(resource),
            (None, Some(scope)) => Target::Scope(scope),
            (None, None) => {
                return Err(RequestError::new(
                    "say what the token is for: resource=... or scope=...",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(RequestError::new("give resource or scope, not both"));
            }
        };
        let (Target::Resource(text) | Target::Scope(text)) = &target;
        if text.contains(char::is_whitespace) {
            return Err(RequestError::new(
                "ask for one scope at a time: a token has exactly one resource",
            ));
        }
        if text == "/.default" {
            return Err(RequestError::new(
                "the scope names no resource before its /.default",
            ));
        }
        let mut named = [
            fields.take("client_id", 200)?.map(NamedIdentity::ClientId),
            fields.take("object_id", 200)?.map(NamedIdentity::ObjectId),
            fields
                .take("resource_id", 1024)?
                .map(NamedIdentity::ResourceId),
        ]
        .into_iter()
        .flatten();
        let identity = named.next();
        if named.next().is_some() {
            return Err(RequestError::new(
                "name one identity: client_id, object_id or resource_id",
            ));
        }
        let min_validity = match fields.take("min_validity", 20)? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                RequestError::new("min_validity must be a whole number of seconds")
            })?),
        };
        let claims = fields.take("claims", MAX_CLAIMS_BYTES)?;
        let tenant_id = fields.take("tenant_id", 200)?;
        fields.want_no_other_spelling()?;
        Ok(Self {
            target,
            identity,
            min_validity,
            claims,
            tenant_id,
        })
    }
}

impl RegistryRequest {
    /// The request as path and query.
    #[must_use]
    pub fn to_path_and_query(&self) -> String {
        let mut out = String::from(REGISTRY_PATH);
        push(&mut out, "server", &self.server);
        out
    }

    /// Reads the query part of a registry request.
    pub fn from_query(query: &str) -> Result<Self, RequestError> {
        let mut fields = Fields::parse(query)?;
        match fields.take("server", 1024)? {
            Some(server) => Ok(Self { server }),
            None => Err(RequestError::new("say which registry: server=HOST")),
        }
    }
}

impl RequestError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RequestError {}

/// Decoded query parameters; names are ours, so a mistake can be told by name.
/// Names by which others call what says whose token it shall be, and what this API calls it. Passed over, they would be answered with the
/// job's own identity in the place of the one that is meant.
const OTHER_SPELLINGS: [(&str, &str); 10] = [
    ("client_id", "client_id"),
    ("clientid", "client_id"),
    ("object_id", "object_id"),
    ("objectid", "object_id"),
    ("principal_id", "object_id"),
    ("resource_id", "resource_id"),
    ("mi_res_id", "resource_id"),
    ("msi_res_id", "resource_id"),
    ("tenant_id", "tenant_id"),
    ("tenantid", "tenant_id"),
];

struct Fields<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Fields<'q> {
    fn parse(query: &'q str) -> Result<Self, RequestError> {
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name)?, decode(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Fails where something is left that another API would take for an identity or a tenant.
    fn want_no_other_spelling(&self) -> Result<(), RequestError> {
        for (name, _) in &self.0 {
            let mut known = OTHER_SPELLINGS.iter();
            if let Some((_, ours)) = known.find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                return Err(RequestError::new(format!(
                    "it is spelt {ours} here; another spelling would be passed over"
                )));
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &str, limit: usize) -> Result<Option<String>, RequestError> {
        let Some(at) = self.0.iter().position(|(key, _)| key == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.swap_remove(at);
        if self.0.iter().any(|(key, _)| key == name) {
            return Err(RequestError::new(format!("{name} is given twice")));
        }
        if value.is_empty() {
            return Err(RequestError::new(format!("{name} is empty")));
        }
        if value.len() > limit {
            return Err(RequestError::new(format!(
                "{name} is longer than {limit} bytes"
            )));
        }
        if value.contains(char::is_control) {
            return Err(RequestError::new(format!(
                "{name} has a control character in it"
            )));
        }
        Ok(Some(value.into_owned()))
    }
}

/// Borrows where nothing is encoded, as in every name and most values.
/// One name or value of a query. In one pass of our own, for it is on every request's way; and a decoder that leaves a broken escape as
/// it is would have the issuer asked for something nobody meant.
fn decode(text: &str) -> Result<Cow<'_, str>, RequestError> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => escaped(bytes.next(), bytes.next()).ok_or_else(|| {
                RequestError::new(
                    "a percent sign in the query is not followed by two hexadecimal digits",
                )
            })?,
            // `+` means a space in a form, but a plus in a URI; Azure resources have neither, so the form reading is safe.
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out)
        .map(Cow::Owned)
        .map_err(|_| RequestError::new("the query is not UTF-8"))
}

/// The byte that two hexadecimal digits stand for.
fn escaped(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn push(out: &mut String, name: &str, value: &str) {
    let separator = if out.contains('?') { '&' } else { '?' };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{separator}{name}={}",
        utf8_percent_encode(value, ENCODED)
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{NamedIdentity, RegistryRequest, Target, TokenRequest};

    fn query(text: &str) -> &str {
        text.split_once('?').map_or("", |(_, query)| query)
    }

    #[test]
    fn bad_queries_are_told_apart() {
        let long = format!("resource={}", "x".repeat(10_000));
        for (text, part) in [
            ("", "resource=... or scope=..."),
            ("resource=", "resource is empty"),
            ("resource=a&resource=b", "twice"),
            ("resource=a&scope=b", "not both"),
            ("scope=/.default", "names no resource"),
            ("scope=a+b", "one scope at a time"),
            ("scope=a%20b", "one scope at a time"),
            ("resource=a%00b", "control character"),
            ("resource=a%0Ab", "control character"),
            (long.as_str(), "longer than"),
            ("resource=%ff", "not UTF-8"),
            ("resource=%zz", "two hexadecimal digits"),
            ("resource=a%2", "two hexadecimal digits"),
            ("resource=%", "two hexadecimal digits"),
            ("resource=a&client_id=b&object_id=c", "name one identity"),
            ("resource=a&min_validity=-1", "whole number"),
            ("resource=a&min_validity=soon", "whole number"),
            ("resource=a&Client_Id=b", "spelt client_id"),
            ("resource=a&clientId=b", "spelt client_id"),
            ("resource=a&mi_res_id=b", "spelt resource_id"),
            ("resource=a&principal_id=b", "spelt object_id"),
            ("resource=a&client_id=b&tenantId=c", "spelt tenant_id"),
        ] {
            let error = TokenRequest::from_query(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:.40}: {error}");
        }
    }

    #[test]
    fn raw_and_encoded_resources_are_the_same() {
        let raw = TokenRequest::from_query("resource=https://storage.azure.com/").unwrap();
        let encoded =
            TokenRequest::from_query("resource=https%3A%2F%2Fstorage.azure.com%2F").unwrap();
        assert_eq!(raw, encoded);
    }

    proptest! {
        #[test]
        fn a_request_survives_the_wire(
            target in "[!-~]{1,60}",
            client in proptest::option::of("[!-~]{1,40}"),
            seconds in proptest::option::of(any::<u64>()),
            claims in proptest::option::of("[ -~]{1,60}"),
        ) {
            let mut request = TokenRequest::new(Target::Scope(target));
            request.identity = client.map(NamedIdentity::ClientId);
            request.min_validity = seconds;
            request.claims = claims;
            let text = request.to_path_and_query();
            prop_assert_eq!(TokenRequest::from_query(query(&text)), Ok(request));
        }

        /// What is read and written again is read as the same; what is refused is refused without its values.
        #[test]
        fn what_is_nearly_a_request_survives_the_wire_or_is_not_repeated(
            pairs in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        "resource", "scope", "client_id", "object_id", "resource_id", "min_validity", "claims", "tenant_id", "server",
                        "res%6furce", "x", "", "%",
                    ]),
                    proptest::sample::select(vec![
                        "=Zq://a.b/.default", "=Zq", "=", "", "=7", "=%5AqZq", "=Zq%00", "=Zq%", "=Zq%ff", "=Zq+Zq", "=Zq=Zq", "=%e2%82%ac",
                        "=18446744073709551616", "=Zq%26client_id%3dx", "=Zq;client_id=x",
                    ]),
                ),
                0..5,
            ),
            long in proptest::option::of(190..2100_usize),
        ) {
            let mut text = pairs.iter().map(|(name, value)| format!("{name}{value}")).collect::<Vec<_>>().join("&");
            if let Some(long) = long {
                text.push_str(&"Zq".repeat(long));
            }
            let errors = [
                TokenRequest::from_query(&text).map(|request| {
                    assert_eq!(TokenRequest::from_query(query(&request.to_path_and_query())), Ok(request));
                }),
                RegistryRequest::from_query(&text).map(|request| {
                    assert_eq!(RegistryRequest::from_query(query(&request.to_path_and_query())), Ok(request));
                }),
            ];
            for error in errors.into_iter().filter_map(Result::err) {
                let error = error.to_string();
                prop_assert!(!error.contains("Zq") && error.len() < 120, "{}", error);
            }
        }

        #[test]
        fn no_query_panics(text in any::<String>()) {
            let _ = TokenRequest::from_query(&text);
            let _ = RegistryRequest::from_query(&text);
        }
    }
}
