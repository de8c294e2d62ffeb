//! Through proxies.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

use crate::platform::{Clock, Environment};
use crate::transport::testing::{ProxyServer, Server, TestAuthority, answer, config};
use crate::transport::{
    FailureKind, ProxyVariable, Request, Route, TlsProblem, Transport, TransportConfig,
};

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

    // Without the proxy the kernel refuses the connection: TCP has no multicast. So nothing leaves this machine.
    let remote = Url::parse("https://224.0.0.1/t").unwrap();
    for (transport, route) in [
        (with("224.0.0.1"), Route::Proxied),
        (with(""), Route::Direct),
    ] {
        let error = transport
            .send(&Request::get(remote.clone(), route))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), FailureKind::Connect, "{error}");
        assert!(error.to_string().contains("unreachable"), "{error}");
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

/// A server that gives `answer` to whatever comes first, once.
async fn answers(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read_buf(&mut Vec::new()).await;
        stream.write_all(answer).await.unwrap();
        // Closed by the client.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    address
}

#[tokio::test]
async fn c1_a_proxy_that_requires_another_password_is_a_wrong_setting() {
    let address = answers(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let transport = Transport::new(TransportConfig {
        https_proxy: Some(ProxyVariable {
            name: "HTTPS_PROXY",
            value: format!("http://user:s3cret@{address}"),
        }),
        ..config()
    });
    let request = Request::get(
        Url::parse("https://login.example/t").unwrap(),
        Route::Proxied,
    );
    let Err(error) = transport.reach(&request).await else {
        panic!("the proxy has refused")
    };
    // Nothing changes the variable while the job runs.
    assert_eq!(error.kind(), FailureKind::ProxySetting, "{error}");
    let said = error.to_string();
    assert!(
        said.contains(&format!("http://{address}")) && said.contains("407"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
    assert!(error.hint().contains("password"), "{}", error.hint());
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
    let plain = answers(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let wrong = ProxyVariable {
        name: "HTTPS_PROXY",
        value: format!("https://user:word@{plain}"),
    };
    for (variable, kind, advice) in [
        (proxy.variable(), FailureKind::Tls, "ca_file"),
        // By TLS to a proxy that does not speak it.
        (wrong, FailureKind::Tls, "http://"),
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
        let hint = error.hint();
        for other in ["ca_file", "http://"] {
            assert_eq!(hint.contains(other), other == advice, "{said}: {hint}");
        }
    }
}

#[tokio::test]
async fn a_host_that_speaks_no_tls_is_not_a_matter_of_roots() {
    let address = answers(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let url = Url::parse(&format!("https://{address}/")).unwrap();
    let transport = Transport::new(TransportConfig {
        roots: TestAuthority::new().roots(),
        ..config()
    });
    let request = Request::get(url, Route::Proxied);
    let error = transport.send(&request).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Tls, "{error}");
    assert!(!error.hint().contains("ca_file"), "{}", error.hint());
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
