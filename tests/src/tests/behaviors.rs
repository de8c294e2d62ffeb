//! Each way of answering badly, as it looks from the other side.

use std::io::ErrorKind;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::client::{Answer, PATIENCE, get, parse, send};
use crate::{AzureMl, AzureMlOptions, Behavior, OnConnect, Outcome, WithoutClientId, WrongForm};

fn double() -> AzureMl {
    AzureMl::start(AzureMlOptions {
        without_client_id: WithoutClientId::FirstIdentity,
        ..AzureMlOptions::default()
    })
    .unwrap()
}

fn url(double: &AzureMl) -> String {
    format!(
        "{}?api-version=2017-09-01&resource=https://storage.azure.com/",
        double.msi_endpoint()
    )
}

fn ask(double: &AzureMl, behavior: Behavior) -> Answer {
    double.script().push(behavior);
    get(&url(double), &[("secret", double.secret())])
}

fn ask_raw(double: &AzureMl, behavior: Behavior) -> std::io::Result<Vec<u8>> {
    double.script().push(behavior);
    send(
        &url(double),
        None,
        "GET",
        &[("secret", double.secret())],
        "",
    )
}

#[test]
fn a_throttle_says_when_to_come_back() {
    let double = double();
    let answer = ask(&double, Behavior::throttle(7));
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!(double.requests()[0].outcome, Outcome::Answered(429));
    assert!(double.tokens().is_empty());
    assert_eq!(ask(&double, Behavior::Ok).status, 200);
}

#[test]
fn text_and_json_errors_have_their_types() {
    let double = double();
    let answer = ask(&double, Behavior::text(502, "no token"));
    assert_eq!((answer.status, answer.text().as_str()), (502, "no token"));
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let answer = ask(&double, Behavior::json(400, &json!({"error": "x"})));
    assert_eq!(answer.json()["error"], "x");
    assert!(ask(&double, Behavior::status(500)).body.is_empty());
}

#[test]
fn a_cut_answer_promises_more_than_it_gives() {
    let double = double();
    let answer = ask(&double, Behavior::Truncate { bytes: 10 });
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 10));
    assert!(length > 1000);
    assert_eq!(double.requests()[0].outcome, Outcome::Broken);
}

#[test]
fn connections_are_reset_closed_or_answered_with_noise() {
    let double = double();
    let reset = ask_raw(&double, Behavior::Reset).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    assert_eq!(ask_raw(&double, Behavior::Close).unwrap(), b"");
    let noise = Behavior::Raw {
        text: "SSH-2.0-hello\r\n".to_owned(),
    };
    assert_eq!(ask_raw(&double, noise).unwrap(), b"SSH-2.0-hello\r\n");
}

#[test]
fn a_connection_can_be_refused_before_it_speaks() {
    let double = double();
    double.script().set_on_connect(OnConnect::Reset);
    assert!(ask_raw(&double, Behavior::Ok).is_err());
    double.script().clear();
    assert_eq!(ask(&double, Behavior::Ok).status, 200);
    assert_eq!(double.msi().recorder().connections(), 2);
}

#[test]
fn a_dripped_answer_arrives_whole() {
    let double = double();
    let drip = Behavior::Drip {
        bytes: 400,
        every: Duration::from_millis(1),
    };
    let answer = ask(&double, drip);
    assert_eq!(
        answer.body.len().to_string(),
        answer.header("content-length").unwrap()
    );
    assert_eq!(answer.json()["access_token"], double.tokens()[0].token);
}

#[test]
fn wrong_types_are_wrong_in_their_own_way() {
    let double = double();
    let wrong = |form| ask(&double, Behavior::wrong(form));
    assert!(wrong(WrongForm::JsonArray).json()[0]["access_token"].is_string());
    assert!(wrong(WrongForm::JsonString).json().is_string());
    assert!(wrong(WrongForm::JsonNull).json().is_null());
    assert!(wrong(WrongForm::NumbersAsStrings).json()["expires_on"].is_string());
    let floats = wrong(WrongForm::Floats);
    assert!(floats.json()["expires_on"].is_f64(), "{}", floats.text());
    let html = wrong(WrongForm::Html);
    assert_eq!(
        (html.status, html.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let text = wrong(WrongForm::PlainText);
    assert!(
        text.header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(text.json()["access_token"].is_string());
    assert!(serde_json::from_slice::<serde_json::Value>(&wrong(WrongForm::Words).body).is_err());
    assert!(wrong(WrongForm::Empty).body.is_empty());
    assert!(std::str::from_utf8(&wrong(WrongForm::Bytes).body).is_err());
    assert_eq!(wrong(WrongForm::DeepNesting).body.len(), 100_000);
}

#[test]
fn fields_can_be_put_and_taken_away() {
    let double = double();
    let set = json!({"expires_on": "tomorrow", "token_type": null});
    let edit = Behavior::Edit {
        set: set.as_object().unwrap().clone(),
        remove: vec!["access_token".to_owned()],
    };
    let body = ask(&double, edit).json();
    assert_eq!(body["expires_on"], "tomorrow");
    assert!(body.get("access_token").is_none() && body["token_type"].is_null());
}

#[test]
fn a_huge_answer_is_huge() {
    let double = double();
    let declared = ask(
        &double,
        Behavior::Huge {
            bytes: 3_000_000,
            declared: true,
        },
    );
    assert_eq!(
        declared.json()["access_token"].as_str().unwrap().len(),
        3_000_000
    );
    let chunked = ask(
        &double,
        Behavior::Huge {
            bytes: 3_000_000,
            declared: false,
        },
    );
    assert_eq!(chunked.header("content-length"), None);
    assert!(chunked.body.len() > 3_000_000);
    let head = ask(&double, Behavior::HugeHead { bytes: 300_000 });
    assert!(head.head.len() > 300_000);
}

#[test]
fn a_redirect_says_where_to() {
    let double = double();
    let location = "http://192.0.2.1/".to_owned();
    let answer = ask(
        &double,
        Behavior::Redirect {
            status: 307,
            location: location.clone(),
        },
    );
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some(location.as_str()))
    );
}

#[test]
fn a_date_can_be_wrong_by_itself() {
    let double = double();
    double.msi().clock().set_skew(-crate::Clock::new().now());
    let answer = ask(&double, Behavior::SkewedDate { seconds: 86_400 });
    assert!(
        answer
            .header("date")
            .unwrap()
            .starts_with("Fri, 02 Jan 1970"),
        "{answer:?}"
    );
}

#[test]
fn a_client_that_gives_up_on_a_hanging_answer_is_noticed() {
    let double = double();
    double.script().push(Behavior::Hang);
    let mut stream = TcpStream::connect(double.msi().address()).unwrap();
    stream
        .write_all(b"GET /MSI/auth HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert!(double.msi().recorder().wait_for(1, PATIENCE));
    assert_eq!(double.requests()[0].outcome, Outcome::Pending);
    drop(stream);
    let noticed = double
        .msi()
        .recorder()
        .wait_until(PATIENCE, |requests| requests[0].outcome != Outcome::Pending);
    assert!(noticed);
    assert_eq!(double.requests()[0].outcome, Outcome::Abandoned);
}

#[test]
fn a_connection_is_kept_between_requests() {
    let double = double();
    let mut stream = TcpStream::connect(double.msi().address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..3 {
        double.script().push(Behavior::status(404));
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        assert_eq!(parse(&bytes).status, 404);
    }
    assert_eq!(
        (
            double.requests().len(),
            double.msi().recorder().connections()
        ),
        (3, 1)
    );
}

#[test]
fn a_dropped_double_closes_its_connections() {
    let double = double();
    double.script().push(Behavior::Hang);
    let mut stream = TcpStream::connect(double.msi().address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert!(double.msi().recorder().wait_for(1, PATIENCE));
    drop(double);
    let mut rest = Vec::new();
    // Closed in order or reset, but not left hanging.
    match stream.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn an_async_test_can_wait_for_a_request() {
    let double = double();
    let asked = url(&double);
    let asking = tokio::task::spawn_blocking(move || get(&asked, &[]).status);
    tokio::time::timeout(PATIENCE, double.msi().recorder().reached(1))
        .await
        .unwrap();
    assert_eq!(asking.await.unwrap(), 400);
    double.msi().recorder().clear();
    assert!(double.requests().is_empty());
}
