//! A URL of storage as people have it.

#![no_main]

use jobcred::storage::{Hints, Location, Service};
use jobcred_fuzz::SECRET;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let hints = [
        Hints {
            account: None,
            service: None,
        },
        Hints {
            account: Some("acct"),
            service: None,
        },
        Hints {
            account: Some("acct"),
            service: Some(Service::Dfs),
        },
    ];
    for hints in hints {
        match Location::parse(text, &hints) {
            Ok(location) => {
                let url = location.to_string();
                assert!(
                    url.starts_with("https://") || hints.service.is_some(),
                    "{url}"
                );
                assert!(
                    !url.contains(['?', '#']) && !url.contains(char::is_control),
                    "{url}"
                );
                let host = url.split('/').nth(2).unwrap();
                assert!(!host.contains('@') && !host.is_empty(), "{url}");
                assert_eq!(
                    Location::parse(&url, &hints).as_ref(),
                    Ok(&location),
                    "{text:?}"
                );
            }
            Err(error) => {
                let shown = format!("{} {}", error.message, error.hint);
                assert!(
                    !shown.contains(char::is_control) && !error.hint.is_empty(),
                    "{shown:?}"
                );
                // What is no secret's place may be quoted.
                let is_secrets = ["?sig=", "&sig=", "://me:", "AccountKey="]
                    .iter()
                    .any(|before| text.contains(&format!("{before}{SECRET}")));
                assert!(!is_secrets || !shown.contains(SECRET), "{shown}");
            }
        }
    }
});
