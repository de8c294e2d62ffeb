//! The transport against real sockets.

mod proxy;

use std::time::Duration;

use http::HeaderName;
use jobcred_wire::Secret;
use url::Url;

use super::testing::{Reply, Server, TestAuthority, answer, config, transport};
use super::{
    FailureKind, InvalidSecret, Limits, Request, RetryPolicy, Route, Transport, TransportConfig,
    TransportError,
};

const SMALL: Limits = Limits {
    max_body: 1024,
    ..Limits::REMOTE
};

fn get(url: Url) -> Request {
    Request::get(url, Route::Direct)
}

/// Asks a server with this script, within a short time where it is the time that is meant to run out.
async fn failure(reply: Reply, kind: FailureKind) -> TransportError {
    let limits = match kind {
        FailureKind::Timeout => Limits {
            total: Duration::from_millis(300),
            ..SMALL
        },
        _ => SMALL,
    };
    let server = Server::start([reply]).await;
    let request = get(server.url("/token?secret=hidden")).with_limits(limits);
    let error = transport().send(&request).await.unwrap_err();
    assert!(
        error.to_string().contains(server.url("/token").as_str()),
        "{error}"
    );
    assert!(
        !format!("{error} {error:?}").contains("hidden"),
        "{error:?}"
    );
    error
}

#[tokio::test]
async fn an_answer_and_what_was_sent_for_it() {
    let server = Server::start([answer(418, "retry-after: 7\r\n", "body")]).await;
    let secret = Secret::from("word");
    let request = get(server.url("/a/b?x=1&y=%20"))
        .with_secret_header(HeaderName::from_static("secret"), &secret)
        .unwrap();
    let response = transport().send(&request).await.unwrap();
    assert_eq!(response.status(), 418);
    assert_eq!(&response.body()[..], b"body");
    assert_eq!(response.retry_after(), Some(Duration::from_secs(7)));
    let sent = server.seen().remove(0);
    assert!(
        sent.starts_with("GET /a/b?x=1&y=%20 HTTP/1.1\r\n"),
        "{sent}"
    );
    assert!(
        sent.contains(&format!("host: {}\r\n", server.address())),
        "{sent}"
    );
    assert!(sent.contains("secret: word\r\n"), "{sent}");
    assert!(!format!("{request:?}").contains("word"));
}

#[tokio::test]
async fn a_form_is_posted() {
    let server = Server::start([answer(200, "", "")]).await;
    let request = Request::post_form(server.url("/f"), Route::Proxied, "a=1&b=2");
    transport().send(&request).await.unwrap();
    let sent = server.seen().remove(0);
    assert!(
        sent.contains("content-type: application/x-www-form-urlencoded\r\n"),
        "{sent}"
    );
    assert!(sent.ends_with("\r\n\r\na=1&b=2"), "{sent}");
}

#[tokio::test]
async fn what_keeps_an_answer_from_coming() {
    for (reply, kind) in [
        (Reply::Hang, FailureKind::Timeout),
        (Reply::Drip("HTTP/1.1 200 OK\r\nx-"), FailureKind::Timeout),
        (
            Reply::Drip("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
            FailureKind::Timeout,
        ),
        (
            Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()),
            FailureKind::Broken,
        ),
        (Reply::Bytes(b"".to_vec()), FailureKind::Broken),
        (Reply::Bytes(b"SSH-2.0-x\r\n".to_vec()), FailureKind::Broken),
        (
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nbro".to_vec()),
            FailureKind::Broken,
        ),
        (
            Reply::Flood("HTTP/1.1 200 OK\r\n\r\n"),
            FailureKind::TooLarge,
        ),
        (Reply::Flood("HTTP/1.1 200 OK\r\nx: "), FailureKind::Broken),
        (answer(200, "", &"x".repeat(1025)), FailureKind::TooLarge),
        (
            answer(302, "location: http://127.0.0.1:1/?hidden\r\n", ""),
            FailureKind::Redirect,
        ),
        (
            answer(307, "location: /elsewhere\r\n", ""),
            FailureKind::Redirect,
        ),
        (answer(304, "", ""), FailureKind::Redirect),
    ] {
        let error = failure(reply.clone(), kind).await;
        assert_eq!(error.kind(), kind, "{reply:?}: {error}");
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read() {
    let server = Server::start([answer(200, "", &"x".repeat(1024))]).await;
    let request = get(server.url("/")).with_limits(SMALL);
    let response = transport().send(&request).await.unwrap();
    assert_eq!(response.body().len(), 1024);
}

#[tokio::test]
async fn nobody_listens() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = Url::parse(&format!("http://127.0.0.1:{port}/token")).unwrap();
    let error = transport().send(&get(url)).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Connect);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn localhost_is_found_on_either_family() {
    let server = Server::start([answer(200, "", "")]).await;
    let url = format!("http://localhost:{}/OBO/token", server.address().port());
    let request = get(Url::parse(&url).unwrap());
    transport().send(&request).await.unwrap();
    let sent = server.seen().remove(0);
    let host = format!("host: localhost:{}\r\n", server.address().port());
    assert!(sent.contains(&host), "{sent}");
}

#[tokio::test]
async fn addresses_that_cannot_be_asked() {
    for text in ["ftp://127.0.0.1/", "unix:/run/x", "data:,x"] {
        let request = get(Url::parse(text).unwrap());
        let error = transport().send(&request).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::BadUrl, "{text}");
    }
}

#[test]
fn a_secret_that_is_no_header_is_refused() {
    let request = get(Url::parse("http://127.0.0.1/").unwrap());
    let result = request.with_secret_header(
        HeaderName::from_static("secret"),
        &Secret::from("two\nlines"),
    );
    assert_eq!(result.err(), Some(InvalidSecret));
}

#[tokio::test]
async fn retries_are_counted_and_the_last_answer_counts() {
    let busy = || answer(503, "", "");
    let quick = RetryPolicy::LOOPBACK.quick();
    for (script, tries, status) in [
        (vec![answer(200, "", "")], 1, 200),
        (vec![busy(), busy(), answer(200, "", "")], 3, 200),
        (vec![busy(), answer(400, "", "")], 2, 400),
        (vec![busy()], 5, 503),
        (vec![answer(404, "", "")], 1, 404),
        // Longer than the budget: there is no point in waiting.
        (vec![answer(429, "retry-after: 600\r\n", "")], 1, 429),
    ] {
        let server = Server::start(script).await;
        let response = transport()
            .send_with_retries(&get(server.url("/")), &quick)
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(server.seen().len(), tries);
    }
}

#[tokio::test]
async fn broken_answers_and_the_updates_of_imds_are_tried_again() {
    let server = Server::start([
        Reply::Bytes(Vec::new()),
        answer(410, "", ""),
        answer(404, "", ""),
        answer(410, "", ""),
        answer(410, "", ""),
        answer(410, "", ""),
        answer(410, "", ""),
        answer(200, "", ""),
    ])
    .await;
    let response = transport()
        .send_with_retries(&get(server.url("/")), &RetryPolicy::IMDS.quick())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.seen().len(), 8);
}

#[tokio::test]
async fn tls_trusts_a_configured_root_and_no_unknown_one() {
    let authority = TestAuthority::new();
    let server = Server::start_tls([answer(200, "", "ok")], &authority).await;
    let request = Request::get(server.url("/token"), Route::Proxied);
    let trusting = Transport::new(TransportConfig {
        roots: authority.roots(),
        ..config()
    });
    let response = trusting.send(&request).await.unwrap();
    assert_eq!(&response.body()[..], b"ok");

    let other = TestAuthority::new();
    let doubting = Transport::new(TransportConfig {
        roots: other.roots(),
        ..config()
    });
    let error = doubting.send(&request).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Tls);
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(error.hint().contains("ca_file"));
}

#[tokio::test]
async fn a_dropped_request_closes_its_connection() {
    let server = Server::start([Reply::Hang]).await;
    let transport = transport();
    let request = get(server.url("/"));
    let sending = transport.send(&request);
    let waiting = async {
        while server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = sending => panic!("it hangs"),
        () = waiting => {}
    }
    // The gate is free again: five more can run at once.
    let more = (0..5).map(|_| transport.send(&request));
    let more = futures::future::join_all(more);
    let all_seen = async {
        while server.seen().len() < 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = more => panic!("they hang"),
        () = all_seen => {}
    }
}
