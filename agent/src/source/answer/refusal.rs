//! What an endpoint says when it refuses, in whatever shape it says it.

use serde_json::Value;

/// No refusal needs more to be understood, in characters.
const READ: usize = 8 * 1024;

/// A refusal's parts that could be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The protocol's word, for example `invalid_request`.
    pub(super) code: Option<String>,
    /// Entra's own number, for example 70021 of `AADSTS70021`.
    pub(super) number: Option<u64>,
    /// The prose, raw: clean it before it is shown.
    pub(super) text: Option<String>,
}

impl Refusal {
    /// Reads a body that is `json`, where it is, and bytes in any case.
    pub(super) fn read(json: Option<&Value>, body: &[u8]) -> Self {
        let mut refusal = json.map(Self::from_json).unwrap_or_default();
        if refusal.text.is_none() && !json.is_some_and(Value::is_object) {
            // A page of HTML is some proxy's and says nothing in its first 200 characters.
            refusal.text =
                front(&String::from_utf8_lossy(body)).filter(|text| !text.starts_with('<'));
        }
        refusal.number = refusal
            .number
            .or_else(|| entra_number(refusal.text.as_deref()?));
        refusal
    }

    fn from_json(json: &Value) -> Self {
        let mut refusal = Self::default();
        // `{"error":"x","error_description":"y"}`, `{"error":{"code":"x","message":"y"}}`, `{"errors":[{...}]}`,
        // `{"statusCode":500,"message":"y"}`, `{"Message":"y"}`.
        let nested = json
            .get("error")
            .filter(|error| error.is_object())
            .or_else(|| json.get("errors")?.get(0));
        for part in [Some(json), nested].into_iter().flatten() {
            for name in ["error", "code", "errorCode", "ErrorCode"] {
                let code = part
                    .get(name)
                    .and_then(Value::as_str)
                    .filter(|code| is_code(code));
                refusal.code = refusal.code.or_else(|| code.map(str::to_owned));
            }
            for name in [
                "error_description",
                "errorDescription",
                "message",
                "Message",
                "detail",
            ] {
                let text = part.get(name).and_then(Value::as_str);
                refusal.text = refusal.text.or_else(|| front(text?));
            }
            refusal.number = refusal.number.or_else(|| {
                let first = part.get("error_codes")?.get(0)?;
                first
                    .as_u64()
                    .or_else(|| first.as_str()?.trim_start_matches("AADSTS").parse().ok())
            });
        }
        if refusal.text.is_none() {
            // `{"error":"Some sentence."}` or a bare JSON string.
            let sentence = json.get("error").unwrap_or(json).as_str();
            refusal.text = sentence.filter(|text| !is_code(text)).and_then(front);
        }
        refusal
    }

    /// Entra's number where there is one, else the protocol's word.
    pub(super) fn issuer_code(&self) -> Option<String> {
        self.number
            .map(|number| format!("AADSTS{number}"))
            .or_else(|| self.code.clone())
    }
}

/// What is read of a long text. It ends with a word: what the cut goes through may be a secret, and nobody would know its first half for
/// one.
fn front(text: &str) -> Option<String> {
    let text = text.trim();
    let front = match text.char_indices().nth(READ) {
        None => text,
        Some((cut, _)) => text.get(..cut)?.rsplit_once(char::is_whitespace)?.0,
    };
    (!front.is_empty()).then(|| front.to_owned())
}

/// Whether `text` is a code and no sentence; only such text is ever taken for one.
fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.contains("eyJ")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// The first `AADSTS` number in prose.
pub(in crate::source) fn entra_number(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("AADSTS")?;
    let end = rest
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Refusal;

    fn read(body: &str) -> Refusal {
        Refusal::read(serde_json::from_str(body).ok().as_ref(), body.as_bytes())
    }

    #[test]
    fn a_long_text_is_not_cut_through_a_secret() {
        let secret = "hunter2hunter2";
        let padding = " ".repeat(super::READ - 12);
        for text in [
            format!("refused{padding}{secret}"),
            format!("refused{padding}{secret} and more"),
        ] {
            let escaped = serde_json::to_string(&text).unwrap();
            for body in [
                text.clone(),
                format!(r#"{{"error":"x","error_description":{escaped}}}"#),
                format!(r#"{{"error":{escaped}}}"#),
                escaped,
            ] {
                let read = read(&body).text.unwrap();
                assert!(read.starts_with("refused"), "{body}");
                assert!(!read.contains("hunter") || read.contains(secret), "{body}");
            }
        }
        let endless = "x".repeat(super::READ + 1);
        assert_eq!(read(&format!("{endless} y")).text, None);
    }

    #[test]
    fn every_shape_of_a_refusal() {
        for (body, code, number, text) in [
            ("", None, None, None),
            ("<html><body>Bad Gateway</body></html>", None, None, None),
            (
                "Invalid secret token header: .",
                None,
                None,
                Some("Invalid secret token header: ."),
            ),
            (
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                Some("invalid_request"),
                None,
                Some("Identity not found"),
            ),
            (
                r#"{"error":"invalid_client","error_description":"AADSTS70021: No match.","error_codes":[70021]}"#,
                Some("invalid_client"),
                Some(70021),
                Some("AADSTS70021: No match."),
            ),
            (
                r#"{"error":"invalid_resource","error_description":"AADSTS50001: The application named x"}"#,
                Some("invalid_resource"),
                Some(50001),
                Some("AADSTS50001: The application named x"),
            ),
            (
                r#"{"statusCode":500,"message":"An unexpected error.","correlationId":"c"}"#,
                None,
                None,
                Some("An unexpected error."),
            ),
            (
                r#"{"error":{"code":"ManagedIdentityNotFound","message":"none here"}}"#,
                Some("ManagedIdentityNotFound"),
                None,
                Some("none here"),
            ),
            (
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#,
                Some("UNAUTHORIZED"),
                None,
                Some("authentication required"),
            ),
            (r#"{"Message":"No."}"#, None, None, Some("No.")),
            (
                r#"{"error":"No token for you."}"#,
                None,
                None,
                Some("No token for you."),
            ),
            (r#""just text""#, None, None, Some("just text")),
            (r#"{"error":42,"message":[]}"#, None, None, None),
            ("[]", None, None, Some("[]")),
            ("AADSTS", None, None, Some("AADSTS")),
            (
                "InternalError - :{ AADSTS50173: The grant",
                None,
                Some(50173),
                Some("InternalError - :{ AADSTS50173: The grant"),
            ),
        ] {
            let refusal = read(body);
            assert_eq!(refusal.code.as_deref(), code, "{body}");
            assert_eq!(refusal.number, number, "{body}");
            assert_eq!(refusal.text.as_deref(), text, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in any::<Vec<u8>>()) {
            let json = serde_json::from_slice(&body).ok();
            let _ = Refusal::read(json.as_ref(), &body);
        }
    }
}
