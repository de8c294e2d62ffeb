//! What the Azure CLI writes, taken for a token and for what it complains of.

#![no_main]

use std::time::Duration;

use jobcred::error::TokenError;
use jobcred::source::fuzz::azure_cli::{read, refused};
use jobcred_fuzz::{NOW, TOKEN, assert_fit_to_show};
use jobcred_wire::ErrorCode;
use libfuzzer_sys::fuzz_target;

const RESOURCE: &str = "https://storage.azure.com/";
/// Shorter pieces of a token may be left: they are no longer than words can be.
const PIECE: usize = 41;

fuzz_target!(|output: &[u8]| {
    match read(output, RESOURCE, NOW) {
        Ok(token) => {
            let latest = NOW + Duration::from_secs(48 * 3600);
            assert!(
                NOW < token.expires_on && token.expires_on <= latest,
                "{token:?}"
            );
            assert_eq!(
                (token.refresh_on, token.resource.as_str()),
                (None, RESOURCE)
            );
            let secret = token.secret.expose();
            assert!(!secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic()));
            let shown = format!("{token:?}");
            // No log shows it.
            assert!(secret.len() < 8 || !shown.contains(secret) || RESOURCE.contains(secret));

            let fields: serde_json::Value = serde_json::from_slice(output).unwrap();
            let is_its = |name: &&str| fields[*name].as_str() == Some(secret);
            assert!(["access_token", "accessToken", "token"].iter().any(is_its));
            // Never longer than it says.
            if let Some(stated) = fields["expires_on"].as_i64() {
                assert!(token.expires_on.as_secs() <= stated, "{token:?}");
            }
        }
        // Not a word of the output: a token may be in it under another name.
        Err(error) => {
            assert_fit_to_show(&error);
            let is_told = error.to_string().is_ascii() && error.hint().is_some();
            assert!(is_told && error.kind() != ErrorCode::GrantEnded, "{error}");
        }
    }
    let words = String::from_utf8_lossy(output);
    for code in [Some(1), None] {
        assert_shows_no_token(&refused(code, &words), &words);
    }
});

/// One line with a next step; no token, no address, and no number that Entra did not say.
fn assert_shows_no_token(error: &TokenError, words: &str) {
    let shown = format!("{error} {error:?}");
    assert!(
        !error.to_string().contains(char::is_control) && shown.len() < 4000,
        "{shown:?}"
    );
    assert!(error.hint().is_some(), "{shown}");
    assert!(!shown.contains("eyJ") && !shown.contains('@'), "{shown}");
    let mut pieces = TOKEN.as_bytes().windows(PIECE);
    assert!(
        !pieces.any(|piece| shown.contains(std::str::from_utf8(piece).unwrap())),
        "{shown}"
    );
    if let Some(code) = error.issuer_code() {
        // As a number: `AADSTS02`, which Entra has never said, is read as 2.
        let number = code.strip_prefix("AADSTS").unwrap();
        let is_said = |rest: &str| {
            let digits = rest.split(|character: char| !character.is_ascii_digit());
            digits.map(str::parse).next() == Some(number.parse::<u64>())
        };
        assert!(words.split("AADSTS").skip(1).any(is_said), "{code}");
    }
}
