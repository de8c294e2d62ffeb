//! A request of the native API: for a token or a registry's credential.

#![no_main]

use jobcred::resource::{Cloud, Resource};
use jobcred_fuzz::assert_fit_to_show;
use jobcred_wire::{NamedIdentity, RegistryRequest, Target, TokenRequest};
use libfuzzer_sys::fuzz_target;
use url::form_urlencoded;

fn query(path_and_query: &str) -> &str {
    path_and_query.split_once('?').unwrap().1
}

fuzz_target!(|text: &str| {
    let given = |wanted: &str| -> Vec<String> {
        form_urlencoded::parse(text.as_bytes())
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
            .collect()
    };
    // Who is named in any case of letters is never passed over.
    let named = |wanted: &str| -> Vec<String> {
        form_urlencoded::parse(text.as_bytes())
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.into_owned())
            .collect()
    };
    match TokenRequest::from_query(text) {
        Ok(request) => {
            let written = request.to_path_and_query();
            assert!(written.bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(
                TokenRequest::from_query(query(&written)).as_ref(),
                Ok(&request)
            );

            // Another reader of queries finds the same in it.
            let (name, target) = match &request.target {
                Target::Resource(text) => ("resource", text),
                Target::Scope(text) => ("scope", text),
            };
            assert_eq!(given(name), [target.as_str()]);
            assert!(!target.contains(|c: char| c.is_control() || c.is_whitespace()));
            let identities =
                ["client_id", "object_id", "resource_id"].map(|name| (name, named(name)));
            match &request.identity {
                None => assert!(identities.iter().all(|(_, ids)| ids.is_empty()), "{text:?}"),
                Some(identity) => {
                    let (name, id) = match identity {
                        NamedIdentity::ClientId(id) => ("client_id", id),
                        NamedIdentity::ObjectId(id) => ("object_id", id),
                        NamedIdentity::ResourceId(id) => ("resource_id", id),
                    };
                    for (other, ids) in identities {
                        let expected: &[&str] = if other == name { &[id] } else { &[] };
                        assert_eq!(ids, expected, "{text:?}");
                    }
                }
            }
            assert_eq!(
                named("tenant_id"),
                Vec::from_iter(request.tenant_id.clone())
            );
            assert_eq!(given("claims"), Vec::from_iter(request.claims.clone()));

            for cloud in [Cloud::Public, Cloud::Government, Cloud::China] {
                let resource = Resource::from_target(&request.target, cloud);
                // What is sent upstream and comes back as a resource is the same one.
                let again = Resource::from_target(&Target::Scope(resource.to_scope()), cloud);
                assert_eq!(again, resource, "{text:?}");
            }
        }
        Err(error) => assert_fit_to_show(&error),
    }
    match RegistryRequest::from_query(text) {
        Ok(request) => {
            let written = request.to_path_and_query();
            assert_eq!(
                RegistryRequest::from_query(query(&written)).as_ref(),
                Ok(&request)
            );
            assert_eq!(given("server"), [request.server]);
        }
        Err(error) => assert_fit_to_show(&error),
    }
});
