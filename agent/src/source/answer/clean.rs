//! What of an endpoint's own words may be shown.

use jobcred_wire::Secret;
use url::form_urlencoded::byte_serialize;

/// The longest text shown, in characters.
const SHOWN: usize = 200;
/// Unbroken runs of this length are keys, tokens or signatures, never words; a GUID is 36.
const TOO_LONG_FOR_A_WORD: usize = 40;

/// Upstream text fit for an error: one line, short, without the request's secrets, tokens and user names.
pub(in crate::source) fn clean(text: &str, secrets: &[Secret]) -> Option<String> {
    // Text direction marks and the like could make a terminal show something else than what is written. Before anything else: without
    // them a secret may be whole again.
    let mut text: String = text
        .chars()
        .filter(|character| {
            character.is_ascii()
                || character.is_alphanumeric()
                || character.is_whitespace()
                || character.is_control()
        })
        .collect();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.expose(), "[secret]");
        // As it looks in a form or a query.
        let encoded: String = byte_serialize(secret.expose().as_bytes()).collect();
        text = text.replace(&encoded, "[secret]");
    }
    let mut shown = String::new();
    for word in text.split(|character: char| character.is_whitespace() || character.is_control()) {
        let word = tame(word);
        if word.is_empty() {
            continue;
        }
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(word);
        if shown.chars().count() > SHOWN {
            shown = shown.chars().take(SHOWN).collect();
            shown.push('…');
            break;
        }
    }
    (!shown.is_empty()).then_some(shown)
}

fn tame(word: &str) -> &str {
    if word.contains('@') {
        return "[address]";
    }
    let token_like =
        |character: char| character.is_ascii_alphanumeric() || "-_.+/=%~".contains(character);
    let longest = word
        .split(|character| !token_like(character))
        // In an address only a whole segment can be a token.
        .flat_map(|run| run.split(if run.starts_with("//") { '/' } else { '\0' }))
        .map(str::len)
        .max()
        .unwrap_or(0);
    if longest > TOO_LONG_FOR_A_WORD || word.contains("eyJ") {
        return "[...]";
    }
    word
}

#[cfg(test)]
mod tests {
    use jobcred_wire::Secret;
    use proptest::prelude::*;

    use super::clean;

    #[test]
    fn what_is_shown() {
        let secrets = [Secret::from("s3cr3t"), Secret::default()];
        for (text, shown) in [
            ("Identity not found", Some("Identity not found")),
            ("", None),
            (" \r\n\t", None),
            ("two\r\nlines\u{1b}[31m", Some("two lines [31m")),
            (
                "Invalid secret token header: s3cr3t.",
                Some("Invalid secret token header: [secret]."),
            ),
            ("got \"s3cr3t\"", Some("got \"[secret]\"")),
            (
                "token eyJhbGciOiJIUzI1NiJ9.e30.x was bad",
                Some("token [...] was bad"),
            ),
            (
                "user ann@contoso.com has no grant",
                Some("user [address] has no grant"),
            ),
            ("a\u{202e}b", Some("ab")),
            ("got s3\u{fffd}cr3\u{200b}t", Some("got [secret]")),
            (
                "Trace ID: 0b8c8e1c-6e4e-4a7a-9c2f-6d1c0f3a1b00",
                Some("Trace ID: 0b8c8e1c-6e4e-4a7a-9c2f-6d1c0f3a1b00"),
            ),
            (
                "key AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDDEEEEEEEEEE==",
                Some("key [...]"),
            ),
        ] {
            assert_eq!(clean(text, &secrets).as_deref(), shown, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_short_and_plain(text in any::<String>(), secret in "[a-z0-9]{4,60}", before in "[ -~]{0,300}") {
            let secrets = [Secret::from(secret.as_str())];
            for text in [format!("{before}{secret} {text}"), format!("{text}{secret}")] {
                if let Some(shown) = clean(&text, &secrets) {
                    prop_assert!(shown.chars().count() <= 201);
                    prop_assert!(!shown.contains(char::is_control));
                    prop_assert!(!shown.contains(&secret) || "[secret]".contains(&secret) || "[address]".contains(&secret));
                }
            }
        }
    }
}
