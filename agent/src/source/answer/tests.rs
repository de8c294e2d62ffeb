//! The table of answers, good and bad.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use jobcred_wire::{ErrorCode, Secret};
use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use super::{Issuer, Question};
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::source::tests::jwt;
use crate::token::AccessToken;
use crate::transport::{Endpoint, Response};

/// 2023-10-20 16:23:00 UTC; an hour before the recorded answer of Azure ML ends.
const NOW: UnixTime = UnixTime::from_secs(1_697_815_380);
const END: i64 = 1_697_818_980;

pub(super) fn read_with(
    issuer: Issuer,
    status: u16,
    headers: HeaderMap,
    body: &[u8],
) -> Result<AccessToken, TokenError> {
    let endpoint = Endpoint::of(&Url::parse("http://u:p@127.0.0.1:46808/MSI/auth?q=1").unwrap());
    let question = Question {
        issuer,
        endpoint: &endpoint,
        resource: "https://storage.azure.com/",
        secrets: &[Secret::from("s3cr3t")],
    };
    let status = StatusCode::from_u16(status).unwrap();
    let response = Response::new(status, headers, Bytes::copy_from_slice(body), NOW);
    question.read(&response, NOW)
}

fn read(status: u16, body: &str) -> Result<AccessToken, TokenError> {
    read_with(Issuer::AzureMl, status, HeaderMap::new(), body.as_bytes())
}

fn expiry(body: &Value) -> i64 {
    read(200, &body.to_string()).unwrap().expires_on.as_secs()
}

#[test]
fn the_answers_of_every_endpoint() {
    for (who, body) in [
        (
            "Azure ML, recorded",
            json!({"access_token": "t", "expires_in": 85702, "expires_on": END, "ext_expires_in": 86399, "not_before": 1, "resource": "r", "token_type": "Bearer"}),
        ),
        (
            "IMDS",
            json!({"access_token": "t", "client_id": "c", "expires_in": "86386", "expires_on": "1697818980", "ext_expires_in": "86399", "not_before": "1", "resource": "r", "token_type": "Bearer"}),
        ),
        (
            "App Service 2019",
            json!({"access_token": "t", "expires_on": "1697818980", "resource": "r", "token_type": "Bearer", "client_id": "c"}),
        ),
        (
            "App Service 2017 on Linux",
            json!({"access_token": "t", "expires_on": "10/20/2023 16:23:00 +00:00", "resource": "r", "token_type": "Bearer"}),
        ),
        (
            "App Service 2017 on Windows",
            json!({"access_token": "t", "expires_on": "10/20/2023 4:23:00 PM +00:00", "resource": "r", "token_type": "Bearer"}),
        ),
        (
            "Spark's on-behalf-of",
            json!({"token": "t", "expiresOn": "2023-10-20T16:23:00.000Z"}),
        ),
        (
            "Entra",
            json!({"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": "t"}),
        ),
        (
            "the proxy of workload identity",
            json!({"access_token": "t", "expires_in": 3590, "expires_on": "1697818980", "token_type": "Bearer"}),
        ),
        (
            "an endpoint without a type",
            json!({"access_token": "t", "expires_in": "3600", "expires_on": ""}),
        ),
        (
            "one with an expiry that is nonsense",
            json!({"access_token": "t", "expires_in": 3600, "expires_on": "NaN"}),
        ),
        (
            "one with wrong types",
            json!({"access_token": "t", "expires_in": 3600, "expires_on": [], "client_id": 5, "token_type": null, "refresh_in": {}}),
        ),
    ] {
        let token = read(200, &body.to_string()).unwrap_or_else(|error| panic!("{who}: {error}"));
        assert_eq!(token.expires_on.as_secs(), END, "{who}");
        assert_eq!(token.secret, Secret::from("t"), "{who}");
        assert_eq!(token.resource, "https://storage.azure.com/");
        assert_eq!(token.refresh_on, None, "{who}");
        let told = body.get("client_id").and_then(Value::as_str);
        assert_eq!(token.client_id.as_deref(), told, "{who}");
    }
}

#[test]
fn which_expiry_counts() {
    let token = |exp: i64| jwt(&json!({"exp": exp}));
    for (body, expected) in [
        // `expires_on` before `expires_in`.
        (
            json!({"access_token": "t", "expires_on": END, "expires_in": 5}),
            END,
        ),
        // The token's own end, when it comes first or is all there is.
        (
            json!({"access_token": token(END), "expires_on": END + 900}),
            END,
        ),
        (
            json!({"access_token": token(END + 900), "expires_on": END}),
            END,
        ),
        (json!({"access_token": token(END)}), END),
        (
            json!({"access_token": token(END), "expires_in": "x", "expires_on": ""}),
            END,
        ),
        // A token whose end cannot be read is as good as opaque.
        (json!({"access_token": "a.b.c", "expires_on": END}), END),
        (
            json!({"access_token": jwt(&json!({"exp": "never"})), "expires_on": END}),
            END,
        ),
        (
            json!({"access_token": jwt(&json!({"exp": -1})), "expires_on": END}),
            END,
        ),
        (
            json!({"access_token": jwt(&json!([])), "expires_on": END}),
            END,
        ),
        // No more than two days are believed.
        (
            json!({"access_token": "t", "expires_on": i64::MAX}),
            END - 3600 + 172_800,
        ),
        (
            json!({"access_token": "t", "expires_in": i64::MAX}),
            END - 3600 + 172_800,
        ),
        (
            json!({"access_token": "t", "expires_in": 1e300}),
            END - 3600 + 172_800,
        ),
    ] {
        assert_eq!(expiry(&body), expected, "{body}");
    }
}

#[test]
fn the_issuers_wish_to_renew() {
    for (refresh_in, expected) in [
        (json!(1800), Some(1800)),
        (json!("1800"), Some(1800)),
        (json!(3600), None),
        (json!(9999), None),
        (json!(0), None),
        (json!(-1), None),
        (json!("soon"), None),
    ] {
        let body = json!({"access_token": "t", "expires_on": END, "refresh_in": refresh_in});
        let token = read(200, &body.to_string()).unwrap();
        let expected = expected.map(|seconds| NOW + Duration::from_secs(seconds));
        assert_eq!(token.refresh_on, expected, "{refresh_in}");
    }
}

#[test]
fn successes_that_are_none() {
    for (body, part) in [
        ("", "something else than a JSON object"),
        ("opaque-token", "something else than a JSON object"),
        ("<html></html>", "something else than a JSON object"),
        ("[]", "something else than a JSON object"),
        ("null", "something else than a JSON object"),
        (
            r#"{"access_token":"t","expires_in":NaN}"#,
            "something else than a JSON object",
        ),
        (
            r#"{"access_token":"t""#,
            "something else than a JSON object",
        ),
        ("{}", "without a token"),
        (r#"{"access_token":""}"#, "without a token"),
        (r#"{"access_token":5}"#, "without a token"),
        (
            r#"{"access_token":"two words","expires_in":5}"#,
            "without a token",
        ),
        (
            r#"{"access_token":"two\nlines","expires_in":5}"#,
            "without a token",
        ),
        (r#"{"access_token":"t"}"#, "no readable expiry"),
        (
            r#"{"access_token":"t","expires_on":"whenever"}"#,
            "no readable expiry",
        ),
        (
            r#"{"access_token":"t","expires_on":-5}"#,
            "no readable expiry",
        ),
        (
            r#"{"access_token":"t","expires_on":{}}"#,
            "no readable expiry",
        ),
        (
            r#"{"access_token":"t","expires_in":5,"token_type":"pop"}"#,
            "no bearer token",
        ),
        (
            r#"{"access_token":"t","expires_on":1697815380}"#,
            "already expired",
        ),
        (r#"{"access_token":"t","expires_on":5}"#, "already expired"),
        (r#"{"access_token":"t","expires_in":0}"#, "already expired"),
        (
            r#"{"access_token":"t","expires_in":"-60"}"#,
            "already expired",
        ),
    ] {
        let error = read(200, body).unwrap_err();
        assert_eq!(error.kind(), ErrorCode::Transient, "{body}");
        let message = error.message();
        assert!(message.contains(part), "{body}: {message}");
        assert!(
            message.contains("http://127.0.0.1:46808/MSI/auth "),
            "{message}"
        );
        assert!(
            !message.contains("opaque-token") && !message.contains("words"),
            "{message}"
        );
    }
}

#[test]
fn an_expired_token_and_a_wrong_clock() {
    let headers = HeaderMap::from_iter([(
        http::header::DATE,
        HeaderValue::from_static("Fri, 20 Oct 2023 12:23:00 GMT"),
    )]);
    let body = br#"{"access_token":"t","expires_on":1697805000}"#;
    let error = read_with(Issuer::Imds, 200, headers, body).unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.contains("differ by 10800 s"), "{hint}");
}

#[test]
fn a_clock_that_is_behind_makes_no_life_longer() {
    // The clock says 2023; the endpoint, and the token, are of 2026.
    let headers = || {
        HeaderMap::from_iter([(
            http::header::DATE,
            HeaderValue::from_static("Wed, 01 Jul 2026 00:00:00 GMT"),
        )])
    };
    let issued = 1_782_864_000;
    let end = issued + 3_600;
    let own = jwt(&json!({"iat": issued, "exp": end}));
    for (what, headers, body, life) in [
        (
            "expires_in",
            HeaderMap::new(),
            json!({"access_token": "t", "expires_on": end, "expires_in": 3_600}),
            3_600,
        ),
        (
            "as text",
            HeaderMap::new(),
            json!({"access_token": "t", "expires_on": end.to_string(), "expires_in": "3600"}),
            3_600,
        ),
        (
            "Date",
            headers(),
            json!({"access_token": "t", "expires_on": end}),
            3_600,
        ),
        (
            "the shorter one",
            headers(),
            json!({"access_token": "t", "expires_on": end, "expires_in": 7_200}),
            3_600,
        ),
        (
            "iat and exp",
            HeaderMap::new(),
            json!({"access_token": own, "expires_on": end}),
            3_600,
        ),
        (
            "nothing to go by",
            HeaderMap::new(),
            json!({"access_token": "t", "expires_on": end, "expires_in": 0}),
            48 * 3_600,
        ),
    ] {
        let token = read_with(Issuer::Imds, 200, headers, body.to_string().as_bytes()).unwrap();
        assert_eq!(token.expires_on, NOW + Duration::from_secs(life), "{what}");
    }
}

#[test]
fn a_byte_order_mark_is_no_obstacle() {
    let body = "\u{feff}{\"access_token\":\"t\",\"expires_in\":\"60\"}";
    assert!(read(200, body).is_ok());
}

#[test]
fn a_wait_is_passed_on_where_waiting_helps() {
    let headers =
        || HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static("9"))]);
    let busy = read_with(Issuer::Imds, 429, headers(), b"").unwrap_err();
    assert_eq!(busy.retry_after(), Some(Duration::from_secs(9)));
    let refused = read_with(Issuer::Imds, 400, headers(), b"").unwrap_err();
    assert_eq!(refused.retry_after(), None);
}

/// Values that endpoints send, could send, and must not send.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from)],
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (END - 4000..END + 4000).prop_map(Value::from),
        (-10..90_000_i64).prop_map(|seconds| Value::from(seconds.to_string())),
        proptest::sample::select(vec![
            json!("Bearer"),
            json!("pop"),
            json!("t"),
            json!("two words"),
            json!("s3cr3t"),
            json!("eyJhbGciOiJub25lIn0.e30.c2ln"),
            json!("10/20/2023 4:23:00 PM +00:00"),
            json!("9999-12-31T23:59:59Z"),
            json!("0001-01-01T00:00:00Z"),
            json!("a user@contoso.com, s3cr3t"),
            json!("line\r\nline \u{1b}[2J"),
            json!("AADSTS70021: no match"),
            json!(""),
            json!([]),
            json!({"code": "s3cr3t", "message": "s3cr3t is wrong"}),
            json!([{"code": "x", "message": "y".repeat(9000)}]),
            json!([70021]),
        ]),
    ]
}

/// A body made of members that mean something, by chance right.
fn answer() -> impl Strategy<Value = Value> {
    let names = proptest::sample::select(vec![
        "access_token",
        "accessToken",
        "token",
        "expires_on",
        "expiresOn",
        "expires_in",
        "expiresIn",
        "refresh_in",
        "token_type",
        "tokenType",
        "client_id",
        "error",
        "error_description",
        "error_codes",
        "code",
        "message",
        "Message",
        "detail",
        "errors",
    ]);
    let members = proptest::collection::vec((names, value()), 0..8);
    (members, any::<bool>()).prop_map(|(members, is_token)| {
        let mut fields: serde_json::Map<_, _> = members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        if is_token {
            fields.insert(
                "access_token".to_owned(),
                jwt(&json!({"exp": END, "iat": END - 3600})).into(),
            );
        }
        Value::Object(fields)
    })
}

proptest! {
    #[test]
    fn whatever_is_put_together_is_a_token_that_lives_or_an_error_fit_to_show(
        status in proptest::sample::select(vec![200, 201, 204, 400, 401, 403, 404, 410, 429, 500, 503]),
        body in answer(),
        date in proptest::option::of(proptest::sample::select(vec![
            "Fri, 20 Oct 2023 15:23:00 GMT", "Fri, 20 Oct 2023 05:00:00 GMT", "Wed, 01 Jul 2026 00:00:00 GMT", "never",
        ])),
        retry_after in proptest::option::of("-?[0-9]{1,20}|soon"),
    ) {
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert(http::header::DATE, HeaderValue::from_static(date));
        }
        if let Some(wait) = retry_after {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from_str(&wait).unwrap());
        }
        for issuer in [Issuer::AzureMl, Issuer::SignedInUser, Issuer::UserGrant, Issuer::AppService, Issuer::Imds, Issuer::Entra] {
            match read_with(issuer, status, headers.clone(), body.to_string().as_bytes()) {
                Ok(token) => {
                    prop_assert!((200..300).contains(&status));
                    prop_assert!(token.expires_on > NOW && token.expires_on <= NOW + Duration::from_secs(172_800));
                    prop_assert!(token.refresh_on.is_none_or(|on| on > NOW && on < token.expires_on));
                    let secret = token.secret.expose();
                    prop_assert!(!secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic()));
                    prop_assert_eq!(token.resource, "https://storage.azure.com/");
                }
                Err(error) => {
                    let shown = format!("{error} {error:?}");
                    prop_assert!(!shown.contains("s3cr3t") && !shown.contains("eyJ") && !shown.contains("contoso.com"), "{}", shown);
                    prop_assert!(!error.to_string().contains(char::is_control) && shown.len() < 2000, "{}", shown);
                }
            }
        }
    }

    #[test]
    fn no_answer_panics_or_shows_a_secret(status in 200..600_u16, body in any::<Vec<u8>>()) {
        prop_assume!(!(300..400).contains(&status));
        for issuer in [Issuer::AzureMl, Issuer::UserGrant, Issuer::Imds, Issuer::Entra] {
            let _ = read_with(issuer, status, HeaderMap::new(), &body);
        }
    }

    #[test]
    fn a_secret_never_gets_through(
        status in 400..600_u16,
        before in "[ -~]{0,80}",
        after in "[ -~]{0,80}",
        shape in 0..4,
    ) {
        let text = format!("{before}s3cr3t{after}");
        let body = match shape {
            0 => text,
            1 => json!({"error": "x", "error_description": text}).to_string(),
            2 => json!({"error": {"code": text, "message": text}}).to_string(),
            _ => json!({"error": text}).to_string(),
        };
        let error = read(status, &body).unwrap_err();
        prop_assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
    }

    #[test]
    fn whatever_is_read_lives_and_not_too_long(
        expires_on in any::<i64>(),
        expires_in in any::<i64>(),
        as_text in any::<bool>(),
        refresh_in in any::<i64>(),
    ) {
        let body = if as_text {
            json!({"access_token": "t", "expires_on": expires_on.to_string(), "expires_in": expires_in.to_string(), "refresh_in": refresh_in.to_string()})
        } else {
            json!({"access_token": "t", "expires_on": expires_on, "expires_in": expires_in, "refresh_in": refresh_in})
        };
        if let Ok(token) = read(200, &body.to_string()) {
            prop_assert!(token.expires_on > NOW);
            prop_assert!(token.expires_on <= NOW + Duration::from_secs(172_800));
            prop_assert!(token.refresh_on.is_none_or(|on| on > NOW && on < token.expires_on));
        }
    }
}
