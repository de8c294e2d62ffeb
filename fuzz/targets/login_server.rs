//! The address of a registry, as clients write it: what is served, and so gets a token, is a registry. The first line is a host that
//! the configuration lists.

#![no_main]

use jobcred_fuzz::assert_fit_to_show;
use jobcred_wire::{ListedHost, LoginServer, REGISTRY_SUFFIXES, RegistryAddress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (entry, text) = text.split_once('\n').unwrap_or(("", text));
    match LoginServer::parse(text, &[]) {
        Ok(server) => {
            let host = server.host();
            assert!(
                REGISTRY_SUFFIXES
                    .iter()
                    .any(|suffix| host.ends_with(suffix)),
                "{host}"
            );
            assert!(!host.contains(".data.") && server.port() == 443);
            assert_plain(&server, &[]);
        }
        Err(error) => assert_fit_to_show(&error),
    }
    match entry.parse::<ListedHost>() {
        Ok(entry) => {
            let listed = [entry];
            match LoginServer::parse(text, &listed) {
                Ok(server) => assert_plain(&server, &listed),
                // What is served is served with a longer list, too.
                Err(error) => {
                    assert_fit_to_show(&error);
                    assert!(LoginServer::parse(text, &[]).is_err());
                }
            }
        }
        Err(error) => assert_fit_to_show(&error),
    }
    if let Ok(address) = RegistryAddress::parse(text) {
        assert_eq!(RegistryAddress::parse(&address.to_string()), Ok(address));
    }
});

/// A host and nothing else, which reads back as itself, and to which a URL leads that is made of it.
fn assert_plain(server: &LoginServer, listed: &[ListedHost]) {
    let host = server.host();
    assert!(
        host.bytes().all(|byte| byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || b"-._".contains(&byte)),
        "{host}"
    );
    let again = LoginServer::parse(&server.to_string(), listed);
    assert_eq!(again.as_ref(), Ok(server));
    let url = url::Url::parse(&format!("https://{server}/oauth2/exchange")).unwrap();
    assert_eq!(url.host_str(), Some(host));
    assert_eq!(url.port_or_known_default(), Some(server.port()));
    assert_eq!(url.path(), "/oauth2/exchange");
}
