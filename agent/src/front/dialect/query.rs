//! The query of a managed-identity request, in any dialect's spelling.

use jobcred_wire::{ErrorCode, TokenRequest};
use percent_encoding::percent_decode_str;

use crate::error::TokenError;

/// Names of parameters, in any case, and the native API's name for the same. All dialects read all of them: a name that was passed
/// over would be answered with the job's own identity in its place.
const NAMES: [(&str, &str); 8] = [
    ("resource", "resource"),
    ("client_id", "client_id"),
    ("clientid", "client_id"),
    ("object_id", "object_id"),
    ("principal_id", "object_id"),
    ("mi_res_id", "resource_id"),
    ("msi_res_id", "resource_id"),
    ("resource_id", "resource_id"),
];
/// What Azure ML has in `DEFAULT_IDENTITY_CLIENT_ID` where there is no identity.
const PLACEHOLDER: &str = "clientid";

/// What a query says.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// `api-version`, where it is given.
    pub api_version: Option<String>,
    /// `resource` and, if named, the identity.
    pub request: TokenRequest,
    /// The resource exactly as the caller spelt it: some SDKs look for their cached token by what the answer says here.
    pub resource: String,
}

/// Reads a query.
///
/// With `clientid_of_nobody`, an empty `clientid` and Azure ML's placeholder name nobody: SDKs send there what is in
/// `DEFAULT_IDENTITY_CLIENT_ID` when their caller names nobody.
///
/// # Errors
/// `invalid_request`: no resource, one that cannot be one, two identities, a parameter that is given twice.
pub fn read(query: &str, clientid_of_nobody: bool) -> Result<Query, TokenError> {
    let mut api_version = None;
    let mut native = String::with_capacity(query.len());
    let mut has_resource = false;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode_str(name).decode_utf8_lossy();
        if name.eq_ignore_ascii_case("api-version") {
            if api_version.is_some() {
                return Err(invalid("api-version is given twice"));
            }
            api_version = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
            continue;
        }
        if clientid_of_nobody
            && name.eq_ignore_ascii_case("clientid")
            && ["", PLACEHOLDER].contains(&value)
        {
            continue;
        }
        let mut names = NAMES.iter();
        if let Some((_, own)) = names.find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            has_resource |= *own == "resource";
            for part in ["&", own, "=", value] {
                native.push_str(part);
            }
        }
    }
    if !has_resource {
        return Err(invalid("say what the token is for: resource=..."));
    }
    let request = TokenRequest::from_query(&native).map_err(|error| invalid(&error.to_string()))?;
    let (jobcred_wire::Target::Resource(resource) | jobcred_wire::Target::Scope(resource)) =
        &request.target;
    Ok(Query {
        api_version,
        resource: resource.clone(),
        request,
    })
}

/// Holds a query to an api-version.
///
/// # Errors
/// `invalid_request`, with what is served.
pub fn want_version(
    query: &Query,
    served: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<(), TokenError> {
    match query.api_version.as_deref() {
        Some(version) if fits(version) => Ok(()),
        Some(_) => Err(invalid(&format!(
            "this api-version is not served; {served} is"
        ))),
        None => Err(invalid(&format!(
            "api-version is missing; {served} is served"
        ))),
    }
}

fn invalid(message: &str) -> TokenError {
    TokenError::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use jobcred_wire::NamedIdentity;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::read;
    use crate::mutation::near_text;

    const IDENTITIES: [&str; 7] = [
        "client_id",
        "clientid",
        "object_id",
        "principal_id",
        "mi_res_id",
        "msi_res_id",
        "resource_id",
    ];
    const OTHERS: [&str; 5] = ["api-version", "scope", "claims", "client-id", ""];

    /// A name in any case, with any of its bytes encoded.
    fn spelt(name: &'static str) -> impl Strategy<Value = String> {
        vec(any::<(bool, bool)>(), name.len()).prop_map(|how| {
            let bytes = name.bytes().zip(how);
            let spelt = bytes.map(|(byte, (is_upper, is_encoded))| {
                let byte = if is_upper {
                    byte.to_ascii_uppercase()
                } else {
                    byte
                };
                if is_encoded {
                    format!("%{byte:02x}")
                } else {
                    char::from(byte).to_string()
                }
            });
            spelt.collect()
        })
    }

    /// A parameter that is known or nearly so: the name it stands for, how it is written, its value.
    fn parameter() -> impl Strategy<Value = (&'static str, String, String)> {
        let names = prop_oneof![
            2 => Just("resource"),
            2 => select(&IDENTITIES[..]),
            1 => select(&OTHERS[..]),
        ];
        let spellings = names.prop_flat_map(|name| (Just(name), spelt(name)));
        let value = prop_oneof![4 => "[a-z0-9:/.=-]{1,8}", 1 => Just(String::new()), 1 => Just("clientid".to_owned())];
        (spellings, value).prop_map(|((name, spelt), value)| (name, spelt, value))
    }

    const ID: &str = "11111111-2222-3333-4444-555555555555";

    #[test]
    fn every_spelling_of_an_identity_is_read() {
        let client = NamedIdentity::ClientId(ID.to_owned());
        let object = NamedIdentity::ObjectId(ID.to_owned());
        let resource = NamedIdentity::ResourceId(ID.to_owned());
        for (name, identity) in [
            ("client_id", &client),
            ("clientid", &client),
            ("object_id", &object),
            ("principal_id", &object),
            ("mi_res_id", &resource),
            ("msi_res_id", &resource),
            ("resource_id", &resource),
            ("clientId", &client),
            ("Client_ID", &client),
            ("OBJECT_ID", &object),
            ("Mi_Res_Id", &resource),
        ] {
            for azure_ml in [false, true] {
                let query = read(&format!("{name}={ID}&resource=x&api-version=1"), azure_ml);
                assert_eq!(query.unwrap().request.identity.as_ref(), Some(identity));
            }
        }
    }

    #[test]
    fn resources_are_read_raw_and_encoded_and_kept_as_spelt() {
        for (text, resource) in [
            (
                "resource=https://storage.azure.com",
                "https://storage.azure.com",
            ),
            (
                "resource=https%3A%2F%2Fstorage.azure.com%2F",
                "https://storage.azure.com/",
            ),
            (
                "unknown=1&resource=https://datalake.azure.net//",
                "https://datalake.azure.net//",
            ),
        ] {
            let query = read(text, false).unwrap();
            assert_eq!(
                (query.resource.as_str(), query.api_version),
                (resource, None)
            );
        }
    }

    #[test]
    fn what_names_nobody_on_azure_ml() {
        for value in ["", "clientid"] {
            let text = format!("resource=x&clientid={value}");
            assert_eq!(read(&text, true).unwrap().request.identity, None);
        }
        assert!(read("resource=x&clientid=", false).is_err());
        // Policy says what is wrong with it.
        let placeholder = read("resource=x&clientid=clientid", false).unwrap();
        assert!(placeholder.request.identity.is_some());
    }

    #[test]
    fn bad_queries_are_told_apart() {
        for (text, part) in [
            ("", "resource="),
            ("api-version=1", "resource="),
            ("scope=x", "resource="),
            ("resource=", "empty"),
            ("resource=a&resource=b", "twice"),
            ("api-version=1&api-version=2&resource=a", "twice"),
            ("resource=a&client_id=b&clientid=b", "twice"),
            ("resource=a&Client_Id=b&client_id=c", "twice"),
            ("resource=a&client_id=b&mi_res_id=c", "one identity"),
            ("resource=a&object_id=b&principal_id=c", "twice"),
            ("resource=%ff", "UTF-8"),
            ("resource=a%0ab", "control"),
        ] {
            let error = read(text, false).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = format!("resource={}", "x".repeat(3000));
        assert!(read(&long, false).is_err());
    }

    #[test]
    fn the_native_apis_own_parameters_are_none_of_a_dialects() {
        let query = read(
            "resource=a&claims={}&tenant_id=t&min_validity=9&scope=s",
            false,
        )
        .unwrap();
        assert_eq!(query.request.claims, None);
        assert_eq!(query.request.tenant_id, None);
        assert_eq!(query.request.min_validity, None);
    }

    proptest! {
        #[test]
        fn no_query_panics(text in any::<String>(), azure_ml: bool) {
            let _ = read(&text, azure_ml);
        }

        #[test]
        fn whoever_is_named_is_never_passed_over(
            parameters in vec(parameter(), 0..6),
            azure_ml: bool,
            is_closed: bool,
        ) {
            let mut text = parameters.iter().map(|(_, name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
            if is_closed {
                text.push('&');
            }
            let is_nobody = |name: &str, value: &str| azure_ml && name == "clientid" && ["", "clientid"].contains(&value);
            let named: Vec<&String> = parameters.iter()
                .filter(|(name, _, value)| IDENTITIES.contains(name) && !is_nobody(name, value))
                .map(|(_, _, value)| value)
                .collect();
            let resources: Vec<&String> = parameters.iter().filter(|(name, ..)| *name == "resource").map(|(.., value)| value).collect();
            let is_right = named.len() <= 1 && !named.contains(&&String::new()) && resources.len() == 1 && !resources[0].is_empty()
                && parameters.iter().filter(|(name, ..)| *name == "api-version").count() <= 1;
            let read = read(&text, azure_ml);
            prop_assert_eq!(read.is_ok(), is_right, "{}: {:?}", text, read);
            if let Ok(query) = read {
                prop_assert_eq!(&query.resource, resources[0]);
                let identity = query.request.identity.as_ref().map(|identity| match identity {
                    NamedIdentity::ClientId(id) | NamedIdentity::ObjectId(id) | NamedIdentity::ResourceId(id) => id,
                });
                prop_assert_eq!(identity, named.first().copied());
            }
        }

        #[test]
        fn what_is_nearly_a_query_is_read_or_refused_in_few_words(
            text in near_text(vec![
                format!("api-version=2019-08-01&resource=https://storage.azure.com&client_id={ID}"),
                format!("resource=https%3A%2F%2Fvault.azure.net%2F&mi_res_id=%2Fsubscriptions%2F{ID}&api-version=2018-02-01"),
                "clientid=clientid&resource=x&API-Version=2017-09-01".to_owned(),
            ]),
            azure_ml: bool,
        ) {
            match read(&text, azure_ml) {
                Ok(query) => {
                    prop_assert!(!query.resource.is_empty());
                    prop_assert!(!query.resource.contains(|c: char| c.is_control() || c.is_whitespace()));
                }
                Err(error) => {
                    let error = error.to_string();
                    prop_assert!(error.len() < 200 && !error.contains(char::is_control), "{}", error);
                    prop_assert!(!error.contains(&ID[..8]), "{}", error);
                }
            }
        }
    }
}
