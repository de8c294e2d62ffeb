//! What no SDK sends: one table for each dialect, on top of what is wrong with a request in all of them.

use std::io::Write as _;
use std::net::TcpStream;

use super::{Job, STORAGE};
use crate::support::{Answer, SdkRequest, exchange, read_answer};

const GUID: &str = "11111111-2222-3333-4444-555555555555";

/// What comes back.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// A refusal of this status in the dialect's own shape.
    Refused(u16),
    /// The same in App Service's shape: what was asked for is of no dialect.
    OfNone(u16),
    /// A head alone: of a HEAD, or of HTTP that nobody can read on.
    Bare(u16),
    /// Nothing, and the connection is closed.
    Closed,
    /// A token. Odd, but nothing is wrong with it.
    Served,
}

use Expected::{Bare, Closed, OfNone, Refused, Served};

/// The members of a refusal, and the status in it, if it has one.
#[derive(Clone, Copy)]
enum Shape {
    AppService,
    AzureMl,
    Imds,
}

impl Shape {
    #[track_caller]
    fn check(self, what: &str, answer: &Answer) {
        let body = answer.json();
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        let message = match self {
            Self::AppService => {
                assert_eq!(
                    members,
                    ["correlationId", "message", "statusCode"],
                    "{what}"
                );
                assert_eq!(body["statusCode"], answer.status, "{what}");
                assert_eq!(
                    body["correlationId"],
                    answer.header("x-request-id").unwrap()
                );
                &body["message"]
            }
            Self::AzureMl => {
                assert_eq!(members, ["error"], "{what}");
                assert!(body["error"]["code"].is_string(), "{what}: {body}");
                &body["error"]["message"]
            }
            Self::Imds => {
                assert_eq!(members, ["error", "error_description"], "{what}");
                assert!(body["error"].is_string(), "{what}: {body}");
                &body["error_description"]
            }
        };
        let message = message.as_str().unwrap();
        assert!(message.starts_with("jobcred: "), "{what}: {message}");
    }
}

/// Something to send.
struct Case {
    what: String,
    bytes: Vec<u8>,
    /// Whether the caller says that nothing more will come.
    is_all: bool,
    expected: Expected,
}

/// What is sent to one endpoint, beginning with a good request.
struct Table {
    good: SdkRequest,
    shape: Shape,
    cases: Vec<Case>,
}

impl Table {
    /// With what is wrong, or odd, in every dialect.
    fn new(good: SdkRequest, shape: Shape) -> Self {
        let cases = Vec::new();
        let mut table = Self { good, shape, cases };
        table.add_headers();
        table.add_queries();
        table.add_paths();
        table.add_methods();
        table.add_garbage();
        table
    }

    fn add(&mut self, what: &str, bytes: impl Into<Vec<u8>>, expected: Expected) {
        self.cases.push(Case {
            what: what.to_owned(),
            bytes: bytes.into(),
            is_all: false,
            expected,
        });
    }

    fn request(&mut self, what: &str, request: &SdkRequest, expected: Expected) {
        self.add(what, request.text(), expected);
    }

    fn header(&mut self, name: &str, value: &str, expected: Expected) {
        let request = self.good.clone().header(name, value);
        self.request(&format!("{name}: {value:.60}"), &request, expected);
    }

    fn path(&mut self, path: &str, expected: Expected) {
        let request = self.good.clone().path(path);
        // As it is: `Url` would make it better.
        let text = request.text().replacen(request.url.path(), path, 1);
        self.add(path, text, expected);
    }

    fn query(&mut self, query: &str, expected: Expected) {
        let text = self.with_query(query.as_bytes());
        self.add(&format!("?{query:.80}"), text, expected);
    }

    /// The good request with another query, as it is.
    fn with_query(&self, query: &[u8]) -> Vec<u8> {
        let text = self.good.text();
        let (before, rest) = text.split_once('?').unwrap();
        let (_, after) = rest.split_once(' ').unwrap();
        [before.as_bytes(), b"?", query, b" ", after.as_bytes()].concat()
    }

    fn good_query(&self) -> String {
        self.good.url.query().unwrap().to_owned()
    }

    fn add_headers(&mut self) {
        let port = self.good.url.port().unwrap();
        let other_port = port.wrapping_add(1).max(1);
        for host in [
            "",
            "127.0.0.1",
            "localhost",
            "127.0.0.1:",
            "127.0.0.1:80",
            "169.254.169.254",
            &format!("127.0.0.1:{other_port}"),
            &format!("127.0.0.1:{port}0"),
            &format!("127.0.0.1:0{port}"),
            &format!("127.0.0.1:{port}, 127.0.0.1:{port}"),
            &format!("127.0.0.2:{port}"),
            &format!("attacker.example:{port}"),
            &format!("127.0.0.1.attacker.example:{port}"),
            &format!("user@127.0.0.1:{port}"),
            &format!("localhost.:{port}"),
        ] {
            self.header("host", host, Refused(403));
        }
        for host in ["localhost", "LOCALHOST", "[::1]"] {
            self.header("host", &format!("{host}:{port}"), Served);
        }
        let good = self.good.clone();
        self.request("no host", &good.clone().without("host"), Refused(403));
        let host = format!("host: 127.0.0.1:{port}\r\n");
        let twice = good.text().replacen(&host, &host.repeat(2), 1);
        self.add("host twice", twice, Refused(403));
        for (name, value) in [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=10.0.0.1"),
            ("via", "1.1 proxy"),
            ("origin", "http://localhost"),
            ("origin", "null"),
            ("sec-fetch-site", "same-origin"),
            ("Sec-Fetch-Dest", ""),
        ] {
            self.header(name, value, Refused(403));
        }
        // Node's `fetch` sends it, and no other header of browsers.
        self.header("sec-fetch-mode", "cors", Served);
        self.header("user-agent", "curl/8", Served);
        self.header("connection", "keep-alive", Served);
        self.header("x-many", &"y".repeat(3000), Served);
        self.header("x-much", &"y".repeat(40_000), Bare(431));
        let many = "x: y\r\n".repeat(150);
        let text = good.text().replacen(&host, &(host.clone() + &many), 1);
        self.add("150 headers", text, Bare(431));
        for (what, bytes) in [("NUL", b"\0".as_slice()), ("a bare return", b"a\rb")] {
            let header = [b"x: ".as_slice(), bytes, b"\r\n"].concat();
            let text = self.after_host(&header);
            self.add(&format!("{what} in a header"), text, Bare(400));
        }
        let text = self.after_host(b"x: \xff\xfe\r\n");
        self.add("a header that is no text", text, Served);
        let text = self.after_host(b"x : y\r\n");
        self.add("a blank after a name", text, Bare(400));
        let text = self.after_host(b"x: y\r\n folded\r\n");
        self.add("a folded header", text, Bare(400));
    }

    /// The good request with more bytes among its headers.
    fn after_host(&self, more: &[u8]) -> Vec<u8> {
        let text = self.good.text();
        let (line, rest) = text.split_once("\r\n").unwrap();
        [line.as_bytes(), b"\r\n", more, rest.as_bytes()].concat()
    }

    fn add_queries(&mut self) {
        let good = self.good_query();
        for (query, expected) in [
            ("", Refused(400)),
            ("&&&", Refused(400)),
            ("resource", Refused(400)),
            (&good.replace(STORAGE, ""), Refused(400)),
            (&good.replace("resource=", "scope="), Refused(400)),
            (&good.replace(STORAGE, "%"), Refused(400)),
            (&good.replace(STORAGE, "%2"), Refused(400)),
            (&good.replace(STORAGE, "%zz"), Refused(400)),
            (&good.replace(STORAGE, "%ff%fe"), Refused(400)),
            (&good.replace(STORAGE, "a%00b"), Refused(400)),
            (&good.replace(STORAGE, "a%0d%0ax:y"), Refused(400)),
            (&good.replace(STORAGE, "a%1b[2Jb"), Refused(400)),
            (&good.replace(STORAGE, "a+b"), Refused(400)),
            (&good.replace(STORAGE, "a%20b"), Refused(400)),
            (&good.replace(STORAGE, &"x".repeat(3000)), Refused(400)),
            (&format!("{good}&resource={STORAGE}"), Refused(400)),
            (&format!("{good}&RESOURCE={STORAGE}"), Refused(400)),
            (&format!("{good}&%72esource={STORAGE}"), Refused(400)),
            (&format!("{good}&client_id="), Refused(400)),
            (
                &format!("{good}&client_id={}", "a".repeat(500)),
                Refused(400),
            ),
            (
                &format!("{good}&client_id={GUID}&clientid={GUID}"),
                Refused(400),
            ),
            (
                &format!("{good}&client_id={GUID}&object_id={GUID}"),
                Refused(400),
            ),
            (
                &format!("{good}&object_id={GUID}&principal_id={GUID}"),
                Refused(400),
            ),
            (
                &format!("{good}&client_id={GUID}&mi_res_id=/a"),
                Refused(400),
            ),
            (&format!("{good}&mi_res_id=/a&msi_res_id=/a"), Refused(400)),
            // Nobody that may be named; never the job's own in its place.
            (&format!("{good}&client_id={GUID}"), Refused(403)),
            (&format!("{good}&%63lient%5Fid={GUID}"), Refused(403)),
            (&format!("client_id={GUID}&{good}"), Refused(403)),
            (&format!("{good}&"), Served),
            (&format!("{good}&unknown=%"), Served),
            (
                &format!("{good}&claims=%7B%7D&tenant_id=x&min_validity=y"),
                Served,
            ),
        ] {
            self.query(query, expected);
        }
        let long = format!("{good}&x={}", "y".repeat(40_000));
        self.query(&long, Bare(431));
        let longest = format!("{good}&x={}", "y".repeat(100_000));
        self.query(&longest, Bare(431));
        for (what, bytes) in [
            ("NUL", b"\0".as_slice()),
            ("a tab", b"\t"),
            ("a blank", b" "),
            ("bytes that are no text", b"\xff\xfe"),
        ] {
            let text = self.with_query(&[good.as_bytes(), bytes].concat());
            self.add(&format!("{what} in the query"), text, Bare(400));
        }
    }

    fn add_paths(&mut self) {
        let good = self.good_query();
        let port = self.good.url.port().unwrap();
        let path = self.good.url.path().to_owned();
        for target in [
            format!("http://127.0.0.1:{port}{path}?{good}"),
            format!("http://169.254.169.254{path}?{good}"),
        ] {
            let text = self
                .good
                .text()
                .replacen(&format!("{path}?{good}"), &target, 1);
            self.add(&format!("to {target:.30}"), text, Refused(403));
        }
        for other in [
            "/",
            "//",
            "/v1/token",
            "/v1/status",
            "/metrics",
            "/metadata/instance",
            "/metadata/identity/oauth2/token",
            "/OBO/token",
            "/MSI/token",
            "/msi/auth",
            "/msi/tokens",
            "/msi/token/../token",
            &format!("{path}/x"),
            &format!("/x{path}"),
            &format!("/{path}"),
            &format!("{path}//"),
            &format!("{path}%00"),
            &format!("{path};x"),
        ] {
            self.path(other, OfNone(400));
        }
    }

    fn add_methods(&mut self) {
        let good = self.good.clone();
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
            let request = SdkRequest {
                method,
                ..good.clone()
            };
            self.request(method, &request, Refused(405));
        }
        let head = SdkRequest {
            method: "HEAD",
            ..good.clone()
        };
        self.request("HEAD", &head, Bare(405));
        let put = SdkRequest {
            method: "PUT",
            ..good.clone()
        };
        let put = put.header("content-length", "5").text() + "hello";
        self.add("PUT with a body", put, Refused(405));
        let query = good.url.query().unwrap();
        let posted = SdkRequest {
            method: "POST",
            ..good.clone().query("")
        };
        let posted = posted.header("content-length", &query.len().to_string());
        self.add("a form", posted.text() + query, Refused(405));
        let port = good.url.port().unwrap();
        let star = format!("OPTIONS * HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n");
        self.add("OPTIONS *", star, OfNone(400));
        let connect = "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n";
        self.add("CONNECT", connect, OfNone(403));
        // What comes after a GET is nobody's.
        let bodied = good.clone().header("content-length", "5").text();
        self.add("GET with a body", bodied.clone() + "hello", Served);
        self.add("GET without the body it tells of", bodied, Served);
        let huge = good.clone().header("content-length", "1000000").text();
        self.add(
            "GET with a large body",
            huge + &"z".repeat(1_000_000),
            Served,
        );
        let chunked = good.clone().header("transfer-encoding", "chunked").text();
        self.add("GET with broken chunks", chunked + "zz\r\n", Served);
        let endless = good.clone().header("content-length", "-1").text();
        self.add("a negative length", endless, Bare(400));
        let twice = "content-length: 1\r\ncontent-length: 2\r\n";
        let twice = self.after_host(twice.as_bytes());
        self.add("two lengths", twice, Bare(400));
        self.add("two requests at once", good.text().repeat(2), Served);
        let smuggled = good.clone().header("content-length", "0").text() + "GET / HTTP/1.1\r\n\r\n";
        self.add("a request behind an empty body", smuggled, Served);
    }

    fn add_garbage(&mut self) {
        let text = self.good.text();
        let version = |version: &str| text.replacen("HTTP/1.1", version, 1);
        self.add("HTTP/1.0", version("HTTP/1.0"), Served);
        self.add("HTTP/0.9", "GET /msi/token\r\n\r\n", Bare(400));
        self.add("HTTP/2 by its name", version("HTTP/2.0"), Bare(400));
        self.add("no version at all", version(""), Bare(400));
        self.add("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Closed);
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        self.add("TLS", hello, Bare(400));
        self.add("zeros", [0; 4096], Bare(400));
        self.add("SSH", "SSH-2.0-x\r\n\r\n", Bare(400));
        let path = self.good.url.path();
        let nonsense = [b"GET ", path.as_bytes(), b"?\xff\xfe HTTP/1.1\r\n\r\n"].concat();
        self.add("bytes that are no text", nonsense, Bare(400));
        let half = text.strip_suffix("\r\n").unwrap();
        for (what, part) in [
            ("nothing", ""),
            ("half a line", &half[..10]),
            ("half a request", half),
        ] {
            self.cases.push(Case {
                what: format!("{what} and the end"),
                bytes: part.as_bytes().to_vec(),
                is_all: true,
                expected: Closed,
            });
        }
    }

    /// Sends everything, and looks at what came back, at what was said of it, and at whether the agent took harm.
    fn run(self, job: Job, secrets: &[String]) {
        let Self { good, shape, cases } = self;
        assert_eq!(good.send().status, 200);
        let url = &good.url;
        // These say nothing for as long as all others take, which keeps nobody waiting.
        let silent: Vec<TcpStream> = ["", "GET /msi", "GET / HTTP/1.1\r\nhost: "]
            .into_iter()
            .map(|part| {
                let mut stream = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap()));
                stream.as_mut().unwrap().write_all(part.as_bytes()).unwrap();
                stream.unwrap()
            })
            .collect();
        let mut callers = Vec::new();
        for Case {
            what,
            bytes,
            is_all,
            expected,
        } in cases
        {
            let (caller, read) =
                exchange(url, &bytes, is_all).unwrap_or_else(|error| panic!("{what}: {error}"));
            for secret in secrets {
                assert!(!hints_at(&read, secret), "{what}: a secret shows");
            }
            let status = match expected {
                Closed => {
                    assert!(
                        read.is_empty(),
                        "{what}: {}",
                        String::from_utf8_lossy(&read)
                    );
                    continue;
                }
                Refused(status) | OfNone(status) | Bare(status) => status,
                Served => 200,
            };
            let answer = read_answer(read).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            // HTTP/1.0 closes without a word.
            let is_said = answer.header("connection") == Some("close");
            assert!(is_said || what == "HTTP/1.0", "{what}: {answer:?}");
            assert_eq!(answer.header("retry-after"), None, "{what}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{what}");
            if !matches!(expected, Bare(_)) {
                assert_eq!(
                    answer.header("content-type"),
                    Some("application/json"),
                    "{what}"
                );
            }
            match expected {
                Refused(_) => shape.check(&what, &answer),
                OfNone(_) => Shape::AppService.check(&what, &answer),
                Bare(_) => assert_eq!(answer.body, "", "{what}"),
                Served | Closed => {
                    answer.token();
                }
            }
            if !matches!(expected, Served) {
                assert!(answer.body.len() < 700, "{what}: it repeats what was sent");
                callers.push((what, caller));
            }
        }
        assert_eq!(good.send().status, 200);
        drop(silent);
        // All that was served was one token, and all that was asked besides is whether the named identity is there.
        assert_eq!(job.aml.tokens().len(), 1);
        assert!(job.aml.requests().len() <= 2);
        let own = nix::unistd::geteuid();
        let said = job.run.end().stderr;
        for (what, caller) in callers {
            let named = format!("uid {own} at {caller}");
            assert!(
                said.contains(&named),
                "{what}: the log does not name {caller}"
            );
        }
        for secret in secrets {
            assert!(!hints_at(said.as_bytes(), secret), "the log shows a secret");
        }
        assert!(!said.contains("panicked"), "{said}");
        assert!(!said.contains('\u{1b}'), "a terminal reads this");
        assert!(
            !said.contains(&"y".repeat(1000)),
            "the log repeats what was sent"
        );
    }
}

/// Whether `text` has any eight characters in a row of `secret`.
fn hints_at(text: &[u8], secret: &str) -> bool {
    let mut pieces = secret.as_bytes().windows(8);
    assert!(pieces.len() > 8, "this is no secret");
    pieces.any(|piece| text.windows(8).any(|part| part == piece))
}

/// What is wrong with the secret of a dialect that has a header for it.
fn add_secrets(table: &mut Table, name: &str, other: &str) {
    let good = table.good.clone();
    let (_, secret) = good
        .headers
        .iter()
        .find(|(known, _)| known == name)
        .unwrap();
    table.request("no secret", &good.clone().without(name), Refused(401));
    let elsewhere = good.clone().without(name).header(other, secret);
    table.request("the secret in another header", &elsewhere, Refused(401));
    let in_query = format!("{}&{name}={secret}", table.good_query());
    let in_query = good.clone().without(name).query(&in_query);
    table.request("the secret in the query", &in_query, Refused(401));
    for wrong in [
        "",
        "0",
        "x",
        &secret[1..],
        &secret[..secret.len() - 1],
        &format!("{secret}0"),
        &format!("{secret}, {secret}"),
        &format!("\"{secret}\""),
        &format!("Bearer {secret}"),
        &secret.to_uppercase(),
        &"0".repeat(secret.len()),
        &"f".repeat(3000),
    ] {
        table.header(name, wrong, Refused(401));
    }
    let text = good.text();
    let garbled = text.replacen(secret, "\u{e9}\u{ff}", 1);
    table.add("a secret that is no ASCII", garbled, Refused(401));
    table.add(
        "a name in upper case",
        text.replacen(name, &name.to_uppercase(), 1),
        Served,
    );
}

/// Wrong and missing versions, made from the one that is served.
fn add_versions(table: &mut Table, served: &str, wrong: &[&str]) {
    let good = table.good_query();
    let parameter = format!("api-version={served}");
    for version in wrong {
        let query = good.replace(&parameter, &format!("api-version={version}"));
        table.query(&query, Refused(400));
    }
    table.query(&good.replace(&format!("{parameter}&"), ""), Refused(400));
    table.query(&good.replace("api-version", "version"), Refused(400));
    table.query(&format!("{good}&{parameter}"), Refused(400));
    table.query(&good.replace("api-version", "API-Version"), Served);
    // The other way round.
    let resource = format!("resource={STORAGE}");
    table.query(&format!("{resource}&{parameter}"), Served);
    table.query(&parameter, Refused(400));
}

/// What is wrong with the path of a dialect that has its secret there.
fn add_prefixes(table: &mut Table) {
    let path = table.good.url.path().to_owned();
    let (prefix, rest) = path[1..].split_once('/').unwrap();
    for wrong in [
        "",
        "x",
        "*",
        "%00",
        "..",
        &prefix[1..],
        &prefix[..prefix.len() - 1],
        &format!("{prefix}0"),
        &prefix.to_uppercase().replace(char::is_numeric, "A"),
        &format!("%{:02x}{}", prefix.as_bytes()[0], &prefix[1..]),
        &"0".repeat(prefix.len()),
    ] {
        table.path(&format!("/{wrong}/{rest}"), OfNone(400));
    }
    for wrong in [
        "",
        "metadata",
        "metadata/instance",
        "msi/token",
        "MSI/auth",
        "v1/token",
    ] {
        table.path(&format!("/{prefix}/{wrong}"), OfNone(400));
    }
    table.path(&format!("/{prefix}"), OfNone(400));
}

/// The secrets that a command was given.
fn secrets(job: &Job) -> Vec<String> {
    let mut secrets = ["IDENTITY_HEADER", "MSI_SECRET"]
        .map(|name| job.run.variable(name))
        .to_vec();
    for name in ["OBO_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST"] {
        let url = job.run.variable(name);
        secrets.extend(url.split('/').nth(3).map(str::to_owned));
    }
    secrets.retain(|secret| secret.len() == 64);
    assert!(!secrets.is_empty());
    secrets
}

#[test]
fn app_service_refuses_what_no_sdk_sends() {
    let job = Job::on_cluster("app_service");
    let mut table = Table::new(job.app_service(), Shape::AppService);
    add_secrets(&mut table, "x-identity-header", "secret");
    let wrong = [
        "",
        "2017-09-01",
        "2019-08-02",
        "2019-08-01-preview",
        "latest",
        "%00",
    ];
    add_versions(&mut table, "2019-08-01", &wrong);
    let placeholder = format!("{}&client_id=clientid", table.good_query());
    table.query(&placeholder, Refused(400));
    let path = table.good.url.path().to_owned();
    table.path(&format!("{path}/"), OfNone(400));
    let secrets = secrets(&job);
    table.run(job, &secrets);
}

#[test]
fn azure_ml_refuses_what_no_sdk_sends() {
    let job = Job::on_cluster("azure_ml");
    let mut table = Table::new(job.azure_ml(), Shape::AzureMl);
    add_secrets(&mut table, "secret", "x-identity-header");
    let wrong = ["", "2019-08-01", "2017-09-1", "2017-09-01%20", "latest"];
    add_versions(&mut table, "2017-09-01", &wrong);
    let good = table.good_query();
    table.query(&format!("{good}&clientid="), Served);
    table.query(&format!("{good}&clientid=clientid"), Served);
    table.query(&format!("{good}&client_id=clientid"), Refused(400));
    table.query(
        &format!("{good}&clientid=clientid&client_id={GUID}"),
        Refused(403),
    );
    table.query(&format!("{good}&clientid=&clientid={GUID}"), Refused(403));
    let secrets = secrets(&job);
    table.run(job, &secrets);
}

#[test]
fn on_behalf_of_refuses_what_no_sdk_sends() {
    let job = Job::start("on_behalf_of", super::user_alone);
    let mut table = Table::new(job.on_behalf_of(), Shape::AzureMl);
    add_prefixes(&mut table);
    let good = table.good_query();
    table.query(&format!("{good}&api-version=2017-09-01"), Served);
    table.query(&format!("{good}&api-version=1&api-version=2"), Refused(400));
    table.query(&format!("{good}&clientid=clientid"), Refused(400));
    let path = table.good.url.path().to_owned();
    table.path(&format!("{path}/"), OfNone(400));
    table.path(&path.replace("OBO", "obo"), OfNone(400));
    let secrets = secrets(&job);
    table.run(job, &secrets);
}

#[test]
fn imds_refuses_what_no_sdk_sends() {
    let job = Job::on_cluster("imds");
    let mut table = Table::new(job.imds(), Shape::Imds);
    add_prefixes(&mut table);
    let wrong = [
        "",
        "2017-12-01",
        "2018-02-0",
        "2018-02-01-preview",
        "latest",
        "2018-0a-01",
    ];
    add_versions(&mut table, "2018-02-01", &wrong);
    let good = table.good.clone();
    table.request(
        "no Metadata",
        &good.clone().without("metadata"),
        Refused(400),
    );
    for value in ["", "false", "1", "truetrue", "true, true"] {
        table.header("metadata", value, Refused(400));
    }
    table.header("metadata", "TRUE", Served);
    let secrets = secrets(&job);
    table.run(job, &secrets);
}
