//! The answer of every kind of token endpoint: status, headers and body.

#![no_main]

use std::time::Duration;

use jobcred::source::fuzz;
use jobcred::transport::Endpoint;
use jobcred_fuzz::{Message, NOW, SECRET, assert_fit_to_show};
use jobcred_wire::Secret;
use libfuzzer_sys::fuzz_target;
use url::Url;

const RESOURCE: &str = "https://storage.azure.com/";

fuzz_target!(|data: &[u8]| {
    let Some(response) = Message::read(data).and_then(Message::into_response) else {
        return;
    };
    let url = Url::parse("http://u:p@127.0.0.1:46808/MSI/auth?q=1").unwrap();
    let secrets = [Secret::from(SECRET), Secret::default()];
    for read in fuzz::read(&Endpoint::of(&url), RESOURCE, &secrets, &response, NOW) {
        match read {
            Ok(token) => {
                assert!(response.status().is_success());
                let latest = NOW + Duration::from_secs(48 * 3600);
                assert!(
                    NOW < token.expires_on && token.expires_on <= latest,
                    "{token:?}"
                );
                let is_in_time = |on| NOW < on && on < token.expires_on;
                assert!(token.refresh_on.is_none_or(is_in_time), "{token:?}");
                let secret = token.secret.expose();
                assert!(!secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic()));
                assert_eq!(token.resource, RESOURCE);
                // No log shows it.
                assert!(
                    secret.len() < 8
                        || !format!("{token:?}").contains(secret)
                        || RESOURCE.contains(secret)
                );
            }
            Err(error) => {
                assert_fit_to_show(&error);
                assert!(!format!("{error:?}").contains("eyJ"), "{error:?}");
                let longest = Duration::from_secs(24 * 3600);
                assert!(error.retry_after().is_none_or(|wait| wait <= longest));
            }
        }
    }
});
