//! What storage answers, read as far as a verdict needs it: XML from the blob endpoint, JSON from the other one.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::Service;
use crate::platform::UnixTime;
use crate::principal::is_guid;
use crate::transport::Response;

/// The longest text of the service that is kept, in characters.
const MAX_TEXT_CHARS: usize = 300;

/// An answer of storage, or of whatever answered in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The service's error code, such as `AuthorizationPermissionMismatch`.
    pub code: Option<String>,
    /// The service's sentence, without the ids that follow it.
    pub message: Option<String>,
    /// `AuthenticationErrorDetail`: what is wrong with the token.
    pub detail: Option<String>,
    /// `x-ms-request-id`, which Azure's support asks for. Only Azure Storage sends it.
    pub request_id: Option<String>,
    /// The tenant that the account trusts, from the challenge of a 401.
    pub tenant: Option<String>,
    /// The service's own time.
    pub date: Option<UnixTime>,
    /// `ETag` of what was made.
    pub etag: Option<String>,
    /// Whether a listing has something in it, or goes on.
    pub has_entries: bool,
}

impl Answer {
    /// Reads an answer. Nothing in it is trusted: every text is cut to length and freed of control characters.
    #[must_use]
    pub fn read(service: Service, response: &Response) -> Self {
        let body = String::from_utf8_lossy(response.body());
        let headers = response.headers();
        let mut answer = Self {
            status: response.status().as_u16(),
            request_id: header(headers, "x-ms-request-id"),
            tenant: header(headers, "www-authenticate").and_then(|text| challenged_tenant(&text)),
            date: response.date(),
            etag: header(headers, "etag"),
            ..Self::default()
        };
        if response.status().is_success() {
            answer.has_entries = match service {
                Service::Blob => {
                    body.contains("<Blob>")
                        || body.contains("<BlobPrefix>")
                        || element(&body, "NextMarker").is_some_and(|marker| !marker.is_empty())
                }
                Service::Dfs => {
                    serde_json::from_str::<Value>(&body).is_ok_and(|value| {
                        value["paths"].as_array().is_some_and(|it| !it.is_empty())
                    }) || headers.contains_key("x-ms-continuation")
                }
            };
            return answer;
        }
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        let field = |name: &str| json["error"][name].as_str().map(str::to_owned);
        answer.code = header(headers, "x-ms-error-code")
            .or_else(|| element(&body, "Code"))
            .or_else(|| field("code"))
            .map(|code| short(&code));
        answer.message = element(&body, "Message")
            .or_else(|| field("message"))
            .map(|text| short(first_line(&text)));
        answer.detail = element(&body, "AuthenticationErrorDetail")
            .or_else(|| {
                json["error"]["detail"]["AuthenticationErrorDetail"]
                    .as_str()
                    .map(str::to_owned)
            })
            .or_else(|| field("AuthenticationErrorDetail"))
            .map(|text| short(&text));
        answer
    }

    /// Whether the request was carried out.
    #[must_use]
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }

    /// Whether Azure Storage itself has answered, and nothing in between.
    #[must_use]
    pub fn is_from_storage(&self) -> bool {
        self.request_id.is_some() || self.code.is_some()
    }

    /// Takes out texts that quote a secret, whole or in part.
    pub fn redact(&mut self, secret: &str) {
        // The last part is the signature, without which the others are worth nothing; but none of them belongs on a screen.
        let parts: Vec<&str> = secret.split('.').filter(|part| part.len() >= 16).collect();
        for text in [
            &mut self.message,
            &mut self.detail,
            &mut self.code,
            &mut self.etag,
            &mut self.request_id,
        ] {
            if text
                .as_deref()
                .is_some_and(|text| parts.iter().any(|part| quotes(text, part)))
            {
                *text = Some("(left out: it quotes the token)".to_owned());
            }
        }
    }
}

/// Whether `text` has a piece of `secret` in it that is long enough to be no chance.
fn quotes(text: &str, secret: &str) -> bool {
    const PIECE: usize = 16;
    secret
        .as_bytes()
        .chunks_exact(PIECE)
        .filter_map(|piece| std::str::from_utf8(piece).ok())
        .any(|piece| text.contains(piece))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(short(text))
}

/// The text of the first element of that name, which in these answers has no attributes and no children.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn short(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// The tenant in `Bearer authorization_uri=https://login.microsoftonline.com/TENANT/oauth2/authorize resource_id=...`.
fn challenged_tenant(challenge: &str) -> Option<String> {
    let uri = challenge
        .split([' ', ','])
        .find_map(|part| part.strip_prefix("authorization_uri="))?
        .trim_matches('"');
    let url = url::Url::parse(uri).ok()?;
    let tenant = url.path_segments()?.next()?.to_ascii_lowercase();
    is_guid(&tenant).then_some(tenant)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    use proptest::prelude::*;

    use super::Answer;
    use crate::mutation::near;
    use crate::platform::UnixTime;
    use crate::storage::Service;
    use crate::transport::Response;

    const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL3N0b3JhZ2UuYXp1cmUuY29tIn0.c2lnbmF0dXJlLW9mLTMyLWJ5dGVzLWF0LWxlYXN0";

    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        near(vec![
            format!(
                "\u{feff}<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Signature {TOKEN} did not match.\nTime:2023</Message><AuthenticationErrorDetail>{TOKEN}</AuthenticationErrorDetail></Error>"
            ),
            format!(
                r#"{{"error":{{"code":"InvalidAuthenticationInfo","message":"no {TOKEN}","detail":{{"AuthenticationErrorDetail":"&lt;{TOKEN}"}}}}}}"#
            ),
            "<Blobs><Blob><Name>a</Name></Blob></Blobs><NextMarker>x</NextMarker>".to_owned(),
            r#"{"paths":[{"name":"a"}]}"#.to_owned(),
        ])
    }

    proptest! {
        #[test]
        fn whatever_answers_its_texts_are_short_plain_and_without_the_token(
            status in 200..600_u16,
            body in bodies(),
            challenge in near(vec![format!("Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize resource_id=x")]),
            code in near(vec![format!("AuthorizationFailure {TOKEN}")]),
        ) {
            for service in [Service::Blob, Service::Dfs] {
                let mut headers = HeaderMap::new();
                for (name, value) in [("www-authenticate", &challenge), ("x-ms-error-code", &code), ("etag", &code)] {
                    if let Ok(value) = HeaderValue::from_bytes(value) {
                        headers.insert(HeaderName::from_static(name), value);
                    }
                }
                let status = StatusCode::from_u16(status).unwrap();
                let response = Response::new(status, headers, Bytes::from(body.clone()), UnixTime::from_secs(0));
                let mut answer = Answer::read(service, &response);
                answer.redact(TOKEN);
                for text in [&answer.code, &answer.message, &answer.detail, &answer.etag].into_iter().flatten() {
                    prop_assert!(text.chars().count() <= 300 && !text.contains(char::is_control), "{:?}", text);
                    let mut parts = TOKEN.split('.');
                    let quotes = |part: &str| part.as_bytes().windows(31).any(|piece| text.contains(std::str::from_utf8(piece).unwrap()));
                    prop_assert!(!parts.any(quotes), "{:?}", text);
                }
                prop_assert!(answer.tenant.is_none_or(|tenant| crate::principal::is_guid(&tenant)));
            }
        }
    }

    const TENANT: &str = "6f1f3c9a-0d5e-4f0b-9d63-3f2b8f6f7a10";

    fn read(service: Service, status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect();
        let status = StatusCode::from_u16(status).unwrap();
        let response = Response::new(
            status,
            headers,
            Bytes::copy_from_slice(body.as_bytes()),
            UnixTime::from_secs(0),
        );
        Answer::read(service, &response)
    }

    #[test]
    fn the_blob_endpoints_xml_is_read() {
        let answer = read(
            Service::Blob,
            401,
            &[
                ("x-ms-request-id", "7f24e989-8003-0013-45a4-fdb72d000000"),
                ("x-ms-error-code", "InvalidAuthenticationInfo"),
                (
                    "www-authenticate",
                    &format!(
                        "Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize resource_id=https://storage.azure.com"
                    ),
                ),
            ],
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>InvalidAuthenticationInfo</Code><Message>Server failed to \
             authenticate the request. Please refer to the information in the www-authenticate header.\nRequestId:7f24e989\n\
             Time:2023-10-13T07:10:10.1868558Z</Message><AuthenticationErrorDetail>Audience validation failed. Audience did not match.\
             </AuthenticationErrorDetail></Error>",
        );
        assert_eq!(answer.code.as_deref(), Some("InvalidAuthenticationInfo"));
        assert_eq!(
            answer.detail.as_deref(),
            Some("Audience validation failed. Audience did not match.")
        );
        assert_eq!(answer.tenant.as_deref(), Some(TENANT));
        assert!(
            answer
                .message
                .unwrap()
                .ends_with("www-authenticate header.")
        );
    }

    #[test]
    fn the_other_endpoints_json_is_read() {
        let answer = read(
            Service::Dfs,
            403,
            &[("x-ms-request-id", "a")],
            r#"{"error":{"code":"AuthorizationPermissionMismatch","message":"This request is not authorized.\nRequestId:a\nTime:b"}}"#,
        );
        assert_eq!(
            answer.code.as_deref(),
            Some("AuthorizationPermissionMismatch")
        );
        assert_eq!(
            answer.message.as_deref(),
            Some("This request is not authorized.")
        );
    }

    #[test]
    fn an_empty_listing_is_told_from_one_with_entries() {
        let entries = |service, body| read(service, 200, &[], body).has_entries;
        assert!(entries(
            Service::Blob,
            "<Blobs><Blob><Name>a</Name></Blob></Blobs><NextMarker/>"
        ));
        assert!(!entries(Service::Blob, "<Blobs /><NextMarker />"));
        assert!(entries(
            Service::Blob,
            "<Blobs /><NextMarker>more</NextMarker>"
        ));
        assert!(entries(Service::Dfs, r#"{"paths":[{"name":"a"}]}"#));
        assert!(!entries(Service::Dfs, r#"{"paths":[]}"#));
    }

    #[test]
    fn what_is_no_answer_of_storage_is_known_by_it() {
        let answer = read(Service::Blob, 403, &[], "<html>Blocked by policy</html>");
        assert!(!answer.is_from_storage());
        let hostile = read(Service::Blob, 403, &[], "<Code>a\u{1b}[31m\nb</Code>");
        assert_eq!(hostile.code.as_deref(), Some("a [31m b"));
        let long = read(
            Service::Blob,
            403,
            &[],
            &format!("<Message>{}</Message>", "x".repeat(10_000)),
        );
        assert_eq!(long.message.unwrap().len(), 300);
    }

    #[test]
    fn a_text_that_quotes_the_token_is_left_out() {
        let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL3N0b3JhZ2UuYXp1cmUuY29tIn0.c2lnbmF0dXJlLW9mLTMyLWJ5dGVzLWF0LWxlYXN0";
        let mut answer = Answer {
            message: Some(format!("bad token {token}")),
            detail: Some(
                "header eyJ0eXAiOiJKV1Qi.. signature dXJlLW9mLTMyLWJ5dGVzLWF0LWxlYXN0".to_owned(),
            ),
            code: Some("InvalidAuthenticationInfo".to_owned()),
            request_id: Some(token.to_owned()),
            ..Answer::default()
        };
        answer.redact(token);
        assert!(
            !format!("{answer:?}").contains("c2lnbmF0dXJl"),
            "{answer:?}"
        );
        assert_eq!(
            answer.message.as_deref(),
            Some("(left out: it quotes the token)")
        );
        assert_eq!(answer.code.as_deref(), Some("InvalidAuthenticationInfo"));
        assert_eq!(
            answer.detail.as_deref(),
            Some("(left out: it quotes the token)")
        );
    }
}
