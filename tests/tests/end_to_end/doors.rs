//! The two doors of an agent, its socket and its identity endpoint: what a request has to show before it is read, and who may ask.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use nix::sys::signal::Signal;

use crate::endpoints::sourced;
use crate::support::{Answer, Held, SdkRequest, World, ask_as, cluster};

const TOKEN: &str = "/v1/token?resource=https://storage.azure.com";
const QUERY: &str = "api-version=2019-08-01&resource=https://storage.azure.com";
/// Every route of the socket, and a path that is not a route.
const ROUTES: [(&str, &str); 15] = [
    ("GET", TOKEN),
    ("GET", "/v1/registry?server=registry.example"),
    ("DELETE", "/v1/registry?server=registry.example"),
    ("GET", "/v1/explain"),
    ("GET", "/v1/status"),
    ("GET", "/v1/lease"),
    ("POST", "/v1/lease"),
    ("GET", "/v1/endpoint"),
    ("POST", "/v1/endpoint"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("PUT", "/healthz"),
    ("GET", "/nowhere"),
    ("OPTIONS", "*"),
];

fn send(world: &World, method: &str, target: &str, headers: &[&str]) -> Answer {
    let mut connection = world.connect();
    let lines: String = headers.iter().flat_map(|line| [line, "\r\n"]).collect();
    let request = format!("{method} {target} HTTP/1.1\r\n{lines}\r\n");
    connection.send(request.as_bytes()).unwrap();
    connection.answer().unwrap()
}

#[test]
fn s1_every_route_needs_the_header_and_refuses_what_came_another_way() {
    let (aml, world) = cluster();
    let agent = world.agent();
    let ask = |method: &str, target: &str, headers: &[&str]| send(&world, method, target, headers);
    for (method, target) in ROUTES {
        let what = format!("{method} {target}");
        for headers in [
            &["host: jobcred"][..],
            // What got 11 sends after a redirect to `http://unix:PATH:/v1/token`.
            &["host: unix", "connection: keep-alive"],
            // What comes first is said first.
            &["host: attacker.example", "origin: http://attacker.example"],
        ] {
            let answer = ask(method, target, headers);
            assert_eq!(answer.status, 403, "{what}: {answer:?}");
            assert_eq!(answer.code(), "invalid_request", "{what}");
            assert_eq!(
                answer.error("message"),
                "send the header jobcred: 1 (curl -H 'jobcred: 1')",
                "{what}"
            );
        }
        for headers in [
            &["host: jobcred", "jobcred: 1"][..],
            &["Host: LOCALHOST", "JobCred:"],
            &["host: localhost", "jobcred: yes", "sec-fetch-mode: cors"],
        ] {
            let answer = ask(method, target, headers);
            assert_ne!(answer.status, 403, "{what} {headers:?}: {answer:?}");
        }
        for foreign in [
            &["host: jobcred", "origin: http://localhost"][..],
            &["host: jobcred", "sec-fetch-site: same-origin"],
            &["host: jobcred", "Sec-Fetch-Dest: empty"],
            &["host: jobcred", "X-Forwarded-For: 10.0.0.1"],
            &["host: jobcred", "x-forwarded-proto: http"],
            &["host: jobcred", "forwarded: for=10.0.0.1"],
            &["host: jobcred", "via: 1.1 proxy"],
            &["host: jobcred", "host: jobcred"],
            &["host: unix"],
            &["host: 127.0.0.1"],
            &["host: jobcred.attacker.example"],
            &[],
        ] {
            let answer = ask(method, target, &[&["jobcred: 1"], foreign].concat());
            assert_eq!(answer.status, 403, "{what} {foreign:?}: {answer:?}");
            assert_eq!(answer.code(), "denied", "{what} {foreign:?}");
        }
        let absolute = format!("http://localhost{target}");
        if target != "*" {
            let answer = ask(method, &absolute, &["host: localhost", "jobcred: 1"]);
            assert_eq!(answer.status, 403, "{what}: {answer:?}");
            assert_eq!(answer.code(), "denied", "{what}");
        }
    }
    assert_eq!(aml.tokens().len(), 1);
    assert!(world.ask("GET", "/v1/status").json()["denials"].as_u64() > Some(100));
    agent.is_unharmed();
    let log = agent.end().succeeded().stderr;
    let warnings = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("is turned away"));
    assert_eq!(warnings.count(), 1, "{log}");
}

/// Ports of loopback that the kernel gives to no other program: one for each test that binds its own again.
const PORTS: [u16; 3] = [21_601, 21_602, 21_603];

fn with_port(world: World, port: u16) -> World {
    world.with_environment([("JOBCRED_ENDPOINT_PORT", port.to_string())])
}

#[test]
fn s2_a_list_of_uids_is_the_last_word_over_tcp_and_roots_exception_is_a_runs() {
    const GROUP: &str = "61600";
    const ALLOWED: &str = "61501";
    const OTHER: &str = "61502";
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs real root: it becomes other users"
    );
    let shared = [("JOBCRED_SOCKET_GROUP", GROUP)];
    let listed = [shared[0], ("JOBCRED_ALLOW_UIDS", ALLOWED)];
    for (settings, sidecar, run) in [
        // What the allowed uid, another one and root get of a sidecar, and of a run's endpoint.
        (&listed[..], [200, 403, 200], [200, 403, 200]),
        (&shared[..], [200, 200, 200], [200, 200, 200]),
        (&[], [403, 403, 200], [200, 200, 200]),
    ] {
        let (_aml, world) = cluster();
        let world = with_port(world, PORTS[0]).with_environment(settings.iter().copied());
        let ask = |given: &[(String, String)]| {
            [ALLOWED, OTHER, "0"].map(|uid| {
                let said = ask_as(&world, uid, given);
                let is_refused = said.contains(&format!("uid {uid} may not ask this agent"));
                let status: u16 = said[..3].parse().unwrap();
                assert_eq!(is_refused, status == 403, "{said}");
                status
            })
        };
        let agent = world.agent();
        agent.wait_for_log("identity endpoint at 127.0.0.1:");
        assert_eq!(ask(&sourced(&world)), sidecar, "sidecar, {settings:?}");
        agent.end().succeeded();
        let job = Held::start(&world, "run", &[], &[]);
        let given = ["IDENTITY_ENDPOINT", "IDENTITY_HEADER"]
            .map(|name| (name.to_owned(), job.variable(name)));
        assert_eq!(ask(&given), run, "run, {settings:?}");
        job.end();
    }
}

/// A request with what the sidecar's file says.
fn request(given: &[(String, String)]) -> SdkRequest {
    let value = |name: &str| {
        let found = given.iter().find(|(known, _)| known == name);
        found.unwrap().1.clone()
    };
    SdkRequest::get(&value("IDENTITY_ENDPOINT"))
        .header("x-identity-header", &value("IDENTITY_HEADER"))
        .query(QUERY)
}

fn secret(given: &[(String, String)]) -> String {
    let request = request(given);
    let found = request
        .headers
        .iter()
        .find(|(name, _)| name == "x-identity-header");
    found.unwrap().1.clone()
}

#[test]
fn s3_a_port_that_was_taken_is_bound_later_with_a_new_secret() {
    let port = PORTS[1];
    let (_aml, world) = cluster();
    let world = with_port(world, port);
    let file = world.socket().with_file_name("endpoint.env");
    let take = || TcpListener::bind(("127.0.0.1", port)).unwrap();
    let opened = format!("identity endpoint at 127.0.0.1:{port};");
    let agent = world.agent();
    agent.wait_for_log(&opened);
    let first = sourced(&world);
    assert_eq!(request(&first).send().status, 200);
    agent.end().succeeded();

    // Another program has the port when the sidecar comes back, and until it ends again.
    let squatter = take();
    let agent = world.agent();
    agent.wait_for_log("there is no identity endpoint");
    assert!(!file.exists(), "it leads to another program");
    agent.end().succeeded();
    drop(squatter);
    let agent = world.agent();
    agent.wait_for_log(&opened);
    let second = sourced(&world);
    assert_ne!(secret(&second), secret(&first));
    agent.end().succeeded();

    // And this time only until the sidecar has it.
    let squatter = take();
    let agent = world.agent();
    agent.wait_for_log("there is no identity endpoint");
    let not_ready = world.ask("GET", "/readyz");
    assert_eq!(not_ready.status, 503, "{}", not_ready.body);
    assert_eq!(not_ready.code(), "transient");
    let message = not_ready.error("message");
    assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    let status = world.ask("GET", "/v1/status").json();
    assert_eq!(status["ready"], false, "{status}");
    let health = world.jobcred(&["health", "--ready"]).run();
    assert_eq!(health.code, Some(124), "{}", health.stderr);
    let shown = world.jobcred(&["status"]).run().succeeded().stdout;
    assert!(
        shown.contains("no: there is no identity endpoint"),
        "{shown}"
    );
    // The socket is served.
    assert_eq!(world.storage().status, 200);
    world.jobcred(&["health"]).run().succeeded();
    std::thread::scope(|scope| {
        let ready = scope.spawn(|| world.ask("GET", "/readyz?wait=60"));
        drop(squatter);
        assert_eq!(ready.join().unwrap().status, 200);
    });
    let third = sourced(&world);
    assert!(![secret(&first), secret(&second)].contains(&secret(&third)));
    assert_eq!(request(&second).send().status, 401);
    assert_eq!(request(&third).send().status, 200);
    world.jobcred(&["health", "--ready"]).run().succeeded();
    let log = agent.end().succeeded().stderr;
    assert_eq!(log.matches("there is no identity endpoint").count(), 1);
    assert!(log.contains("source it again"), "{log}");
}

#[test]
fn s3_after_a_gap_a_caller_whose_uid_the_kernel_does_not_tell_gets_nothing() {
    let port = PORTS[2];
    let (aml, world) = cluster();
    let world = with_port(world, port);
    let opened = format!("identity endpoint at 127.0.0.1:{port};");
    let agent = world.agent();
    agent.wait_for_log(&opened);
    let given = sourced(&world);
    agent.end().succeeded();
    // Another program had the port while no sidecar was there, and may have read what was sent to it.
    drop(TcpListener::bind(("127.0.0.1", port)).unwrap());
    let agent = world.agent();
    agent.wait_for_log(&opened);
    assert_eq!(sourced(&world), given);
    // A caller that has shut down its side is no longer in the kernel's table, so no uid is known.
    agent.process().signal(Signal::SIGSTOP);
    let mut caller = TcpStream::connect(("127.0.0.1", port)).unwrap();
    caller.write_all(request(&given).text().as_bytes()).unwrap();
    caller.shutdown(Shutdown::Write).unwrap();
    agent.process().signal(Signal::SIGCONT);
    let mut said = Vec::new();
    let _ = caller.read_to_end(&mut said);
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 403 "),
        "{said}"
    );
    agent.wait_for_log("the kernel does not tell who asks");
    assert_eq!(aml.tokens().len(), 0);
    assert_eq!(request(&given).send().status, 200);
    agent.end().succeeded();
}
