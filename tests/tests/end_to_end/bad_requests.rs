//! What bad callers get, and that nobody else notices them.

use std::io;
use std::os::unix::net::UnixStream;

use crate::support::cluster;

fn header_lines(count: usize) -> String {
    let lines: Vec<String> = (0..count)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    lines.concat()
}

/// Targets that make no sense.
fn nonsense() -> Vec<String> {
    let long = "x".repeat(10_000);
    let token = |query: &str| format!("/v1/token?{query}");
    let guid = "11111111-2222-3333-4444-555555555555";
    vec![
        "/v1/token".to_owned(),
        token(""),
        token("resource="),
        token("scope="),
        token("scope=/.default"),
        token("resource=%00"),
        token("resource=a%0Ab"),
        token("resource=a%0D%0Ax:y"),
        token("resource=%1b[2J"),
        token("resource=a%7f"),
        token("resource=a%20b"),
        token("resource=a+b"),
        token("resource=%C2%A0"),
        token("resource=%ff%fe"),
        token(&format!("resource={long}")),
        token(&format!("scope={long}/.default")),
        token("scope=https://a.example/.default&scope=https://b.example/.default"),
        token("scope=https://a.example/.default%20https://b.example/.default"),
        token("resource=a&resource=a"),
        token("resource=a&scope=a/.default"),
        token(&format!("resource=a&client_id={guid}&object_id={guid}")),
        token(&format!(
            "resource=a&client_id={guid}&resource_id=/subscriptions/x"
        )),
        token("resource=a&client_id="),
        token(&format!("resource=a&client_id={long}")),
        token("resource=a&min_validity=soon"),
        token("resource=a&min_validity=-1"),
        token("resource=a&min_validity=1.5"),
        token("resource=a&min_validity=99999999999999999999999"),
        token("resource=a&tenant_id=..%2F.."),
        token("resource=a&claims="),
        token(&format!("resource=a&claims={}", "y".repeat(5_000))),
        "/v1/registry".to_owned(),
        "/v1/registry?server=".to_owned(),
        format!("/v1/registry?server={long}"),
    ]
}

#[test]
fn a_nonsense_request_is_told_what_is_wrong_with_it() {
    let targets = nonsense();
    let (aml, world) = cluster();
    let agent = world.agent();
    let mut kept = world.connect();
    let mut asked = targets
        .iter()
        .map(|target| ("GET", target.as_str(), 400))
        .collect::<Vec<_>>();
    asked.extend([
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/token/", 404),
        ("GET", "/v2/token?resource=a", 404),
        ("GET", "//v1/token?resource=a", 404),
        ("GET", "/v1/%74oken?resource=a", 404),
        ("GET", "/v1/../v1/token?resource=a", 404),
        ("OPTIONS", "*", 404),
        ("POST", "/v1/token?resource=a", 405),
        ("HEAD", "/v1/registry?server=a.azurecr.io", 405),
        ("DELETE", "/v1/token?resource=a", 405),
        ("BREW", "/v1/token?resource=a", 405),
        ("PUT", "/healthz", 405),
        ("POST", "/v1/registry?server=a.azurecr.io", 405),
    ]);
    for (method, target, status) in asked {
        let shown: String = format!("{method} {target}").chars().take(80).collect();
        if method == "HEAD" {
            // Its answer has no body, but says how long one would be: not for a kept connection of this test's.
            let mut head = world.connect();
            let headers = "host: jobcred\r\njobcred: 1\r\nconnection: close\r\n";
            head.send(format!("HEAD {target} HTTP/1.1\r\n{headers}\r\n").as_bytes())
                .unwrap();
            let bytes = head.rest().unwrap();
            assert!(bytes.starts_with(b"HTTP/1.1 405 "), "{shown}");
            continue;
        }
        let answer = kept.ask(method, target).unwrap();
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        assert_eq!(answer.code(), "invalid_request", "{shown}: {}", answer.body);
        assert_ne!(answer.error("message"), "", "{shown}");
        assert!(
            answer.body.len() < 1500,
            "{shown}: the answer repeats what was sent"
        );
        assert!(!answer.body.contains('\u{1b}'), "{shown}: {}", answer.body);
        let id = answer.error("request_id");
        assert_ne!(id, "", "{shown}");
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "{shown}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{shown}"
        );
    }
    assert_eq!(
        aml.msi().recorder().connections(),
        0,
        "nonsense goes no further"
    );
    agent.is_unharmed();
    let log = agent.end().succeeded().stderr;
    assert!(!log.contains('\u{1b}'), "a terminal reads this");
    assert!(
        !log.contains(&"x".repeat(3_000)),
        "the log repeats what was sent"
    );
}

/// What it is, its bytes, and the statuses it may be answered with; none: it is closed without a word.
type Garbage = (&'static str, Vec<u8>, &'static [u16]);

fn garbage() -> Vec<Garbage> {
    let good = "GET /healthz HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n";
    let headers = |count: usize| -> Vec<u8> {
        let lines = header_lines(count);
        format!("{good}{lines}\r\n").into_bytes()
    };
    // A fixed sequence that looks random.
    let noise: Vec<u8> = (0..20_000_u32)
        .scan(7_u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(state.to_be_bytes()[0])
        })
        .collect();
    vec![
        ("nothing", Vec::new(), &[]),
        ("a newline", b"\r\n".to_vec(), &[]),
        ("zeros", vec![0; 4096], &[400]),
        ("noise", noise, &[400, 414, 431]),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            &[400],
        ),
        (
            // Its preface is recognised and not answered.
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &[],
        ),
        ("half a method", b"GE".to_vec(), &[]),
        ("half a line", b"GET /v1/token?resource=a".to_vec(), &[]),
        ("half the headers", good.as_bytes().to_vec(), &[]),
        ("no version", b"GET /healthz\r\n\r\n".to_vec(), &[400]),
        (
            "version 9",
            b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(),
            &[400, 505],
        ),
        (
            "a blank in the target",
            b"GET /a b HTTP/1.1\r\n\r\n".to_vec(),
            &[400],
        ),
        ("200 headers", headers(200), &[431]),
        (
            "a header of 64 KiB",
            format!("{good}x: {}\r\n\r\n", "y".repeat(64 * 1024)).into_bytes(),
            &[431],
        ),
        (
            "a target of 64 KiB",
            format!(
                "GET /{} HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n",
                "y".repeat(64 * 1024)
            )
            .into_bytes(),
            &[414, 431],
        ),
        (
            "a header without a name",
            format!("{good}: y\r\n\r\n").into_bytes(),
            &[400],
        ),
        (
            "a zero in a header",
            format!("{good}x: \0\r\n\r\n").into_bytes(),
            &[400],
        ),
        (
            "a folded header",
            format!("{good}x: y\r\n z\r\n\r\n").into_bytes(),
            &[400, 200],
        ),
        (
            "two lengths",
            format!("{good}content-length: 1\r\ncontent-length: 2\r\n\r\nab").into_bytes(),
            &[400],
        ),
        (
            "a negative length",
            format!("{good}content-length: -1\r\n\r\n").into_bytes(),
            &[400],
        ),
        (
            "a body that never comes",
            format!("{good}content-length: 99999999999\r\n\r\n").into_bytes(),
            &[200],
        ),
        (
            "broken chunks",
            format!("{good}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
            &[200, 400],
        ),
    ]
}

#[test]
fn garbage_is_closed_and_the_agent_unharmed() {
    let (_aml, world) = cluster();
    let agent = world.agent();
    for (case, bytes, statuses) in garbage() {
        let mut connection = world.connect();
        // It may be closed before all is sent.
        let _ = connection.send(&bytes);
        if statuses.is_empty() {
            connection.half_close();
        } else {
            let answer = connection
                .answer()
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(statuses.contains(&answer.status), "{case}: {answer:?}");
            if answer.status == 200 {
                continue;
            }
        }
        assert_eq!(
            connection.rest().unwrap(),
            b"",
            "{case}: more than one answer"
        );
        agent.is_unharmed();
    }
    agent.end().succeeded();
}

#[test]
fn one_hundred_headers_are_no_garbage() {
    let (_aml, world) = cluster();
    let _agent = world.agent();
    let lines = header_lines(98);
    let mut connection = world.connect();
    connection
        .send(
            format!("GET /healthz HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n{lines}\r\n")
                .as_bytes(),
        )
        .unwrap();
    assert_eq!(connection.answer().unwrap().status, 200);
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let (_aml, world) = cluster();
    let _agent = world.agent();
    let mut connection = world.connect();
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n");
    let all = ["/healthz", "/nowhere", "/readyz"].map(one).concat();
    connection.send(all.as_bytes()).unwrap();
    let statuses: Vec<u16> = (0..3)
        .map(|_| connection.answer().unwrap().status)
        .collect();
    assert_eq!(statuses, [200, 404, 200]);
}

#[test]
fn idle_and_slow_connections_keep_nobody_from_being_served() {
    let (aml, world) = cluster();
    let agent = world.agent();
    let open = |bytes: &[u8]| -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(world.socket())?;
        io::Write::write_all(&mut stream, bytes)?;
        Ok(stream)
    };
    let kept: Vec<UnixStream> = (0..400)
        .map(|number| match number % 3 {
            0 => open(b""),
            1 => open(b"GET /v1/token?resource=a HTTP/1.1\r\nx-slow: "),
            _ => open(b"GET /healthz HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n"),
        })
        .collect::<io::Result<_>>()
        .unwrap();
    for _ in 0..20 {
        assert_eq!(world.storage().token(), aml.tokens()[0].token);
    }
    agent.is_unharmed();
    // Slow ones go on, a byte at a time, and are served in the end if they are quick enough.
    for (number, mut stream) in kept.into_iter().enumerate() {
        if number % 3 == 1 {
            io::Write::write_all(&mut stream, b"z").unwrap();
        }
    }
    agent.end().succeeded();
}
