//! Hosts, headers and targets, at both fronts.

use http::Request;
use proptest::prelude::*;

use super::{check_endpoint, check_socket};

/// Headers that show another way, in the case that their senders use.
const FOREIGN: [&str; 11] = [
    "X-Forwarded-For",
    "x-forwarded-host",
    "X-Forwarded-Proto",
    "x-forwarded-port",
    "Forwarded",
    "Via",
    "Origin",
    "Sec-Fetch-Dest",
    "sec-fetch-site",
    "Sec-Fetch-User",
    "sec-fetch-storage-access",
];

fn parts(uri: &str, headers: &[(&str, &str)]) -> http::request::Parts {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    parts
}

fn at_endpoint(uri: &str, headers: &[(&str, &str)], port: u16) -> Result<(), String> {
    check_endpoint(&parts(uri, headers), port).map_err(|error| error.to_string())
}

/// With the agent's header.
fn at_socket(uri: &str, headers: &[(&str, &str)]) -> Result<(), String> {
    let headers = [&[("jobcred", "1")], headers].concat();
    check_socket(&parts(uri, &headers)).map_err(|error| error.to_string())
}

#[test]
fn only_the_endpoints_own_names_with_its_port_are_hosts() {
    for (host, port, good) in [
        ("127.0.0.1:4567", 4567, true),
        ("localhost:4567", 4567, true),
        ("LocalHost:4567", 4567, true),
        ("[::1]:4567", 4567, true),
        ("127.0.0.1", 80, true),
        ("127.0.0.1:80", 80, true),
        ("127.0.0.1", 4567, false),
        ("127.0.0.1:456", 4567, false),
        ("127.0.0.1:45678", 4567, false),
        ("127.0.0.1:4567:4567", 4567, false),
        ("127.0.0.1.attacker.example:4567", 4567, false),
        ("attacker.example:4567", 4567, false),
        ("169.254.169.254", 80, false),
        ("127.0.0.2:4567", 4567, false),
        ("localhost.:4567", 4567, false),
        ("user@localhost:4567", 4567, false),
        ("jobcred", 80, false),
        ("", 80, false),
    ] {
        let verdict = at_endpoint("/", &[("host", host)], port);
        assert_eq!(verdict.is_ok(), good, "{host} {port}");
    }
    assert!(at_endpoint("/", &[], 80).is_err());
    let twice = [("host", "localhost:80"), ("host", "localhost:80")];
    assert!(at_endpoint("/", &twice, 80).is_err());
}

#[test]
fn s1_only_what_clients_of_a_socket_send_is_its_host() {
    for (host, good) in [
        ("jobcred", true),
        ("localhost", true),
        ("LocalHost", true),
        // What got 11 sends for `unix:PATH:/...`.
        ("unix", false),
        ("localhost:80", false),
        ("127.0.0.1", false),
        ("attacker.example", false),
        ("jobcred.attacker.example", false),
        ("jobcred@attacker.example", false),
        ("x", false),
        ("", false),
    ] {
        let verdict = at_socket("/", &[("host", host)]);
        assert_eq!(verdict.is_ok(), good, "{host}");
    }
    assert!(at_socket("/", &[]).is_err());
    assert!(at_socket("/", &[("host", "jobcred"), ("host", "jobcred")]).is_err());
}

#[test]
fn s1_a_request_without_the_agents_header_is_told_to_send_it() {
    let error = check_socket(&parts("/", &[("host", "jobcred")])).unwrap_err();
    assert_eq!(
        error.message(),
        "send the header jobcred: 1 (curl -H 'jobcred: 1')"
    );
    for value in ["1", "", "anything"] {
        let headers = [("host", "jobcred"), ("JobCred", value)];
        assert!(check_socket(&parts("/", &headers)).is_ok(), "{value}");
    }
    // It comes first.
    for name in FOREIGN {
        let error = check_socket(&parts("http://x/", &[(name, "x")])).unwrap_err();
        assert!(
            error.message().contains("send the header"),
            "{name}: {error}"
        );
    }
}

#[test]
fn what_came_by_a_proxy_or_from_a_browser_is_refused_at_both_fronts() {
    for name in FOREIGN {
        for verdict in [
            at_endpoint("/", &[("host", "localhost:80"), (name, "private")], 80),
            at_socket("/", &[("host", "localhost"), (name, "private")]),
        ] {
            let error = verdict.unwrap_err();
            assert!(error.contains(&name.to_ascii_lowercase()), "{error}");
            assert!(!error.contains("private"), "{error}");
        }
    }
    let proxied = at_endpoint("http://localhost:80/", &[("host", "localhost:80")], 80);
    assert!(proxied.unwrap_err().contains("proxy"));
    let proxied = at_socket("http://localhost/", &[("host", "localhost")]);
    assert!(proxied.unwrap_err().contains("proxy"));
}

#[test]
fn l2_what_nodes_fetch_sends_passes_and_a_browser_does_not() {
    let node = [
        ("accept", "*/*"),
        ("accept-language", "*"),
        ("sec-fetch-mode", "cors"),
        ("user-agent", "node"),
        ("accept-encoding", "gzip, deflate"),
    ];
    let at_both = |more: &[(&str, &str)]| {
        let headers = [&node[..], more].concat();
        [
            at_endpoint(
                "/msi/token",
                &[&[("host", "localhost:1")], &*headers].concat(),
                1,
            ),
            at_socket("/v1/token", &[&[("host", "localhost")], &*headers].concat()),
        ]
    };
    assert_eq!(at_both(&[]), [Ok(()), Ok(())]);
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-dest", "empty"),
        ("origin", "http://localhost"),
    ] {
        assert!(
            at_both(&[(name, value)]).iter().all(Result::is_err),
            "{name}"
        );
    }
}

#[test]
fn what_sdks_send_passes() {
    let headers = [
        ("host", "127.0.0.1:1"),
        ("user-agent", "azsdk-python-identity/1.27.0"),
        ("x-identity-header", "s"),
        ("metadata", "true"),
        ("x-client-sku", "MSAL.Python"),
        ("x-ms-client-request-id", "1"),
        ("accept-encoding", "gzip, deflate"),
        ("connection", "keep-alive"),
    ];
    assert_eq!(at_endpoint("/msi/token?resource=x", &headers, 1), Ok(()));
}

proptest! {
    #[test]
    fn no_host_but_the_own_one_passes(host in "[!-~]{0,40}") {
        let own = ["127.0.0.1:4567", "localhost:4567", "[::1]:4567"];
        let lower = host.to_ascii_lowercase();
        let verdict = at_endpoint("/", &[("host", &host)], 4567);
        prop_assert_eq!(verdict.is_ok(), own.contains(&lower.as_str()));
        let verdict = at_socket("/", &[("host", &host)]);
        prop_assert_eq!(verdict.is_ok(), ["jobcred", "localhost"].contains(&lower.as_str()));
    }
}
