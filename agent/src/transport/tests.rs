//! The transport against real sockets.

use std::time::Duration;

use http::HeaderName;
use jobcred_wire::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;

use super::testing::{ProxyServer, Reply, Server, TestAuthority, answer, config, transport};
use super::{
    FailureKind, InvalidSecret, Limits, ProxyVariable, Request, RetryPolicy, Route, TlsProblem,
    Transport, TransportConfig, TransportError,
};
use crate::platform::{Clock, Environment};

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
async fn a_proxy_is_used_for_https_to_remote_hosts_and_nothing_else() {
    let authority = TestAuthority::new();
    let server = Server::start_tls([answer(200, "", "ok")], &authority).await;
    let local = Server::start([answer(200, "", "ok")]).await;
    let proxy = ProxyServer::start(Some(server.address())).await;
    let with = |no_proxy: &str| {
        Transport::new(TransportConfig {
            roots: authority.roots(),
            https_proxy: Some(proxy.variable()),
            no_proxy: Some(no_proxy.to_owned()),
            ..config()
        })
    };
    // Only the proxy can resolve this name.
    let remote = Url::parse("https://login.example/t").unwrap();

    let transport = with("");
    for url in [local.url("/"), server.url("/")] {
        for route in [Route::Direct, Route::Proxied] {
            transport
                .send(&Request::get(url.clone(), route))
                .await
                .unwrap();
        }
    }
    assert_eq!(proxy.seen(), Vec::<String>::new());

    let request = Request::get(remote.clone(), Route::Proxied);
    transport.send(&request).await.unwrap();
    let connect = proxy.seen().remove(0);
    assert!(
        connect.starts_with("CONNECT login.example:443 HTTP/1.1\r\n"),
        "{connect}"
    );
    assert!(
        connect.contains("Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n"),
        "{connect}"
    );
    let sent = server.seen().pop().unwrap();
    assert!(sent.contains("host: login.example\r\n"), "{sent}");

    // Without the proxy the name cannot be resolved.
    for (transport, route) in [
        (with("login.example"), Route::Proxied),
        (with(""), Route::Direct),
    ] {
        let error = transport
            .send(&Request::get(remote.clone(), route))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), FailureKind::Connect, "{error}");
        assert!(error.to_string().contains("lookup"), "{error}");
    }
    assert_eq!(proxy.seen().len(), 1);
}

#[tokio::test]
async fn the_way_is_gone_step_by_step_as_requests_go_it() {
    let authority = TestAuthority::new();
    let server = Server::start_tls([answer(200, "", "ok")], &authority).await;
    let proxy = ProxyServer::start(Some(server.address())).await;
    let with = |https_proxy: Option<ProxyVariable>| {
        Transport::new(TransportConfig {
            roots: authority.roots(),
            https_proxy,
            ..config()
        })
    };
    let remote = Url::parse("https://login.example/t").unwrap();
    let request = Request::get(remote, Route::Proxied);
    let transport = with(Some(proxy.variable()));
    let named = transport.proxy_for(&request).unwrap().unwrap();
    assert!(!named.contains("word"), "{named}");
    let reached = transport.reach(&request).await.unwrap();
    transport.greet(&request, reached).await.unwrap();
    assert!(proxy.seen()[0].starts_with("CONNECT login.example:443 "));
    assert_eq!(server.seen(), Vec::<String>::new(), "nothing is asked yet");

    let direct = Request::get(server.url("/"), Route::Proxied);
    let transport = with(None);
    assert_eq!(transport.proxy_for(&direct).unwrap(), None);
    let reached = transport.reach(&direct).await.unwrap();
    transport.greet(&direct, reached).await.unwrap();
    // Whom a certificate is not for is told apart from whom it is not by.
    let reached = transport.reach(&direct).await.unwrap();
    let other = Url::parse("https://other.example/").unwrap();
    let other = Request::get(other, Route::Proxied);
    let (_, problem) = transport.greet(&other, reached).await.unwrap_err();
    assert_eq!(problem, TlsProblem::WrongName);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let proxy = ProxyServer::start(None).await;
    let authority = TestAuthority::new();
    let transport = Transport::new(TransportConfig {
        roots: authority.roots(),
        https_proxy: Some(proxy.variable()),
        ..config()
    });
    let request = Request::get(
        Url::parse("https://login.example/t").unwrap(),
        Route::Proxied,
    );
    let error = transport.send(&request).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Proxy, "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    assert!(!error.to_string().contains("word"), "{error}");
}

#[tokio::test]
async fn c1_a_proxy_is_spoken_to_by_tls() {
    let authority = TestAuthority::new();
    let server = Server::start_tls([answer(200, "", "ok")], &authority).await;
    let proxy = ProxyServer::start_tls(Some(server.address()), &authority).await;
    let transport = Transport::new(TransportConfig {
        roots: authority.roots(),
        https_proxy: Some(proxy.variable()),
        ..config()
    });
    let remote = Url::parse("https://login.example/t").unwrap();
    let request = Request::get(remote, Route::Proxied);
    let response = transport.send(&request).await.unwrap();
    assert_eq!(&response.body()[..], b"ok");
    let connect = proxy.seen().remove(0);
    assert!(
        connect.starts_with("CONNECT login.example:443 HTTP/1.1\r\n")
            && connect.contains("Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n"),
        "{connect}"
    );
    let sent = server.seen().pop().unwrap();
    assert!(sent.contains("host: login.example\r\n"), "{sent}");
    assert!(!sent.to_lowercase().contains("authorization"), "{sent}");
    // Step by step, as `check` goes.
    let named = transport.proxy_for(&request).unwrap().unwrap();
    assert!(named.starts_with("https://127.0.0.1:") && !named.contains("word"));
    let reached = transport.reach(&request).await.unwrap();
    transport.greet(&request, reached).await.unwrap();
}

#[tokio::test]
async fn c1_a_proxy_whose_certificate_is_not_trusted_is_named() {
    let authority = TestAuthority::new();
    let proxy = ProxyServer::start_tls(None, &TestAuthority::new()).await;
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wrong = ProxyVariable {
        name: "HTTPS_PROXY",
        value: format!("https://user:word@{}", plain.local_addr().unwrap()),
    };
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        // Closed by the client.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    for (variable, kind) in [
        (proxy.variable(), FailureKind::Tls),
        // By TLS to a proxy that does not speak it.
        (wrong, FailureKind::Tls),
    ] {
        let address = variable.value.split('@').next_back().unwrap().to_owned();
        let transport = Transport::new(TransportConfig {
            roots: authority.roots(),
            https_proxy: Some(variable),
            ..config()
        });
        let request = Request::get(
            Url::parse("https://login.example/t").unwrap(),
            Route::Proxied,
        );
        let error = transport.send(&request).await.unwrap_err();
        let said = error.to_string();
        assert_eq!(error.kind(), kind, "{said}");
        assert!(
            said.contains(&format!("the proxy https://{address}")),
            "{said}"
        );
        assert!(!said.contains("word"), "{said}");
    }
}

#[test]
fn exemptions_from_the_environment() {
    for (environment, exempt) in [
        (Environment::default(), None),
        (Environment::from([("NO_PROXY", "n")]), Some("n")),
        (
            Environment::from([("NO_PROXY", "n"), ("no_proxy", "m")]),
            Some("m"),
        ),
        (
            Environment::from([("NO_PROXY", "n"), ("no_proxy", "")]),
            Some("n"),
        ),
    ] {
        let clock = Clock::system();
        let config = TransportConfig::from_environment(&environment, None, clock);
        assert_eq!(config.no_proxy.as_deref(), exempt, "{environment:?}");
    }
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
