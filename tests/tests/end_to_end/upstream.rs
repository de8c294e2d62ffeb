//! What callers notice of an upstream that is busy, slow, broken or lying.

use std::io;
use std::sync::Barrier;
use std::time::Duration;

use jobcred_tests::{AzureMl, Behavior, Clock, OnConnect, Recorder, WrongForm};
use serde_json::{Map, json};

use crate::support::{Answer, HUNG, cluster};

const STORAGE: &str = "https://storage.azure.com/";

/// Between two looks at something that changes with time alone.
fn pause() {
    assert!(!Recorder::new().wait_for(1, Duration::from_millis(100)));
}

/// Where the double listens, as an error has to name it.
fn address(aml: &AzureMl) -> String {
    let endpoint = aml.msi_endpoint();
    let (_, rest) = endpoint.split_once("//").unwrap();
    rest.split('/').next().unwrap().to_owned()
}

#[test]
fn sixty_four_callers_are_one_request_upstream() {
    let (aml, world) = cluster();
    let _agent = world.agent();
    aml.script().push(Behavior::hold("all have asked"));
    let all = Barrier::new(65);
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..64)
            .map(|number| {
                let (world, all) = (&world, &all);
                scope.spawn(move || {
                    let spelling = ["", "/", "/.default"][number % 3];
                    let name = if spelling == "/.default" { "scope" } else { "resource" };
                    let mut connection = world.connect();
                    let request = format!(
                        "GET /v1/token?{name}=https://storage.azure.com{spelling} HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n"
                    );
                    connection.send(request.as_bytes()).unwrap();
                    all.wait();
                    connection.answer().unwrap().token()
                })
            })
            .collect();
        all.wait();
        assert!(aml.msi().recorder().wait_for(1, HUNG));
        aml.script().release("all have asked");
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    assert!(tokens.iter().all(|token| *token == aml.tokens()[0].token));
    assert_eq!(aml.requests().len(), 1);
    let callers = world.ask("GET", "/v1/status").json();
    assert_eq!(callers["tokens"][0]["fetches"], 1, "{callers}");
}

#[test]
fn a_caller_that_goes_away_takes_nothing_from_the_others() {
    let (aml, world) = cluster();
    let agent = world.agent();
    aml.script().push(Behavior::hold("gone"));
    let request =
        format!("GET /v1/token?resource={STORAGE} HTTP/1.1\r\nhost: jobcred\r\njobcred: 1\r\n\r\n");
    let mut first = world.connect();
    first.send(request.as_bytes()).unwrap();
    assert!(aml.msi().recorder().wait_for(1, HUNG));
    let mut second = world.connect();
    second.send(request.as_bytes()).unwrap();
    drop(first);
    agent.is_unharmed();
    aml.script().release("gone");
    assert_eq!(second.answer().unwrap().token(), aml.tokens()[0].token);
    assert_eq!(aml.requests().len(), 1);
}

#[test]
fn an_outage_goes_unnoticed_until_the_token_ends_and_is_over_when_it_is_over() {
    let (aml, world) = cluster();
    let agent = world.agent();
    aml.mint().set_lifetime(8);
    let token = world.storage().token();
    let expires_on = aml.tokens()[0].expires_on;
    aml.script().set_default(Behavior::Reset);
    let clock = Clock::new();
    let failed = loop {
        let asked = clock.now();
        let answer = world.storage();
        if answer.status != 200 {
            break answer;
        }
        assert_eq!(answer.token(), token);
        assert!(asked < expires_on, "an expired token was handed out");
        pause();
    };
    assert!(clock.now() >= expires_on, "the token was still good");
    assert_eq!((failed.status, failed.code().as_str()), (503, "transient"));
    assert!(
        failed.error("message").contains(&address(&aml)),
        "{}",
        failed.body
    );
    assert!(failed.header("retry-after").is_some());
    assert!(aml.requests().len() > 1, "it was tried in the background");
    let status = world.ask("GET", "/v1/status").json();
    assert_eq!(
        status["last_upstream_error"]["code"], "transient",
        "{status}"
    );

    aml.script().clear();
    aml.mint().set_lifetime(3600);
    for _ in 0..600 {
        let answer = world.storage();
        if answer.status == 200 {
            assert_ne!(answer.token(), token);
            agent.end().succeeded();
            return;
        }
        assert_eq!(answer.code(), "transient");
        pause();
    }
    panic!("it never recovered");
}

#[test]
fn a_renewal_happens_before_anybody_waits_for_it() {
    let (aml, world) = cluster();
    let _agent = world.agent();
    aml.mint().set_lifetime(6);
    let first = world.storage().token();
    // Asked for once more, so that it is worth renewing.
    assert_eq!(world.storage().token(), first);
    aml.mint().set_lifetime(3600);
    aml.script().set_default(Behavior::hold("renewal"));
    assert!(
        aml.msi().recorder().wait_for(2, HUNG),
        "nobody asked, and it was renewed"
    );
    aml.script().release("renewal");
    let answered = |requests: &[jobcred_tests::RecordedRequest]| {
        requests
            .get(1)
            .is_some_and(|second| second.outcome != jobcred_tests::Outcome::Pending)
    };
    assert!(aml.msi().recorder().wait_until(HUNG, answered));
    for _ in 0..600 {
        if world.storage().token() != first {
            assert_eq!(aml.requests().len(), 2);
            return;
        }
        pause();
    }
    panic!("the new token never arrived");
}

#[test]
fn a_throttled_caller_is_told_how_long_to_wait_and_upstream_is_left_alone() {
    let (aml, world) = cluster();
    let agent = world.agent();
    aml.script().set_default(Behavior::throttle(120));
    let refused = world.storage();
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "transient")
    );
    let wait = refused.json()["error"]["retry_after"].as_u64().unwrap();
    assert!((100..=120).contains(&wait), "{wait}");
    assert_eq!(
        refused.header("retry-after"),
        Some(wait.to_string().as_str())
    );
    for part in ["429", address(&aml).as_str()] {
        assert!(refused.error("message").contains(part), "{}", refused.body);
    }
    assert_ne!(refused.error("hint"), "");
    let asked = aml.requests().len();
    for _ in 0..20 {
        assert_eq!(world.storage().code(), "transient");
    }
    assert_eq!(
        aml.requests().len(),
        asked,
        "twenty more callers, no more requests"
    );
    agent.end().succeeded();
}

#[test]
fn a_short_throttle_or_a_reset_is_ridden_out() {
    let (aml, world) = cluster();
    let _agent = world.agent();
    for (number, hiccup) in [
        Behavior::throttle(1),
        Behavior::Reset,
        Behavior::status(503),
    ]
    .into_iter()
    .enumerate()
    {
        aml.msi().recorder().clear();
        aml.script().push(hiccup);
        assert_eq!(
            world
                .get(&format!("resource=https://example.org/{number}"))
                .status,
            200
        );
        assert_eq!(aml.requests().len(), 2);
    }
}

/// Asks while upstream does not answer, and sees to it that the agent goes on serving.
fn ask_in_vain(behavior: Option<Behavior>, on_connect: OnConnect) -> Answer {
    let (aml, world) = cluster();
    let agent = world.agent();
    let held = world.get("resource=https://example.org/held").token();
    if let Some(behavior) = behavior {
        aml.script().set_default(behavior);
    }
    aml.script().set_on_connect(on_connect);
    let answer = std::thread::scope(|scope| {
        let asking = scope.spawn(|| world.storage());
        if on_connect == OnConnect::Serve {
            assert!(aml.msi().recorder().wait_for(2, HUNG));
        }
        agent.is_unharmed();
        assert_eq!(world.get("resource=https://example.org/held").token(), held);
        asking.join().unwrap()
    });
    assert_eq!((answer.status, answer.code().as_str()), (503, "transient"));
    assert!(
        answer.error("message").contains(&address(&aml)),
        "{}",
        answer.body
    );
    assert_ne!(answer.error("hint"), "");
    agent.end().succeeded();
    answer
}

#[test]
fn an_upstream_that_hangs_or_drips_is_given_up_in_bounded_time() {
    let drip = Behavior::Drip {
        bytes: 1,
        every: Duration::from_secs(1),
    };
    // Each takes the whole time there is, so they do it together.
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| ask_in_vain(Some(Behavior::Hang), OnConnect::Serve));
        scope.spawn(|| ask_in_vain(None, OnConnect::Hang));
        scope.spawn(|| ask_in_vain(Some(drip), OnConnect::Serve));
        let silent = silent.join().unwrap();
        assert!(
            silent.error("message").contains("did not answer"),
            "{}",
            silent.body
        );
    });
}

/// A lie, and what the error has to say besides the endpoint.
type Lie = (
    &'static str,
    Behavior,
    &'static [&'static str],
    &'static str,
);

/// Answers that are known at once to be of no use.
fn lies(aml: &AzureMl) -> Vec<Lie> {
    let edit = |remove: &str| Behavior::Edit {
        set: Map::new(),
        remove: vec![remove.to_owned()],
    };
    let set = |name: &str, value: serde_json::Value| Behavior::Edit {
        set: Map::from_iter([(name.to_owned(), value)]),
        remove: Vec::new(),
    };
    vec![
        (
            "redirect",
            Behavior::Redirect {
                status: 302,
                location: aml.obo_endpoint(),
            },
            &["302", "redirect"],
            "rejected",
        ),
        ("html", Behavior::wrong(WrongForm::Html), &["200"], ""),
        ("array", Behavior::wrong(WrongForm::JsonArray), &["200"], ""),
        (
            "string",
            Behavior::wrong(WrongForm::JsonString),
            &["200"],
            "",
        ),
        ("null", Behavior::wrong(WrongForm::JsonNull), &["200"], ""),
        ("words", Behavior::wrong(WrongForm::Words), &["200"], ""),
        ("empty", Behavior::wrong(WrongForm::Empty), &["200"], ""),
        ("bytes", Behavior::wrong(WrongForm::Bytes), &["200"], ""),
        (
            "nesting",
            Behavior::wrong(WrongForm::DeepNesting),
            &["200"],
            "",
        ),
        ("no token", edit("access_token"), &["200"], ""),
        (
            "token of numbers",
            set("access_token", json!(42)),
            &["200"],
            "",
        ),
        ("empty token", set("access_token", json!("")), &["200"], ""),
        (
            "two lines",
            set("access_token", json!("a\r\nx: y")),
            &["200"],
            "",
        ),
        (
            "huge",
            Behavior::Huge {
                bytes: 50_000_000,
                declared: true,
            },
            &[],
            "",
        ),
        (
            "huge in chunks",
            Behavior::Huge {
                bytes: 50_000_000,
                declared: false,
            },
            &[],
            "",
        ),
        (
            "not found",
            Behavior::text(404, "404 page not found"),
            &["404"],
            "",
        ),
        ("forbidden", Behavior::status(403), &["403"], "rejected"),
        (
            "the secret in an error",
            Behavior::text(400, &format!("bad secret {}, sent to us", aml.secret())),
            &["400"],
            "rejected",
        ),
        (
            "the secret in an error of JSON",
            Behavior::json(
                400,
                &json!({"error": aml.secret(), "error_description": aml.secret()}),
            ),
            &["400"],
            "rejected",
        ),
        (
            "a terminal's escapes",
            Behavior::text(400, "\u{1b}[2Jgone"),
            &["400"],
            "rejected",
        ),
    ]
}

#[track_caller]
fn is_helpful(case: &str, answer: &Answer, address: &str, parts: &[&str], code: &str) {
    assert!(
        [502, 503].contains(&answer.status),
        "{case}: {} {}",
        answer.status,
        answer.body
    );
    assert!(
        code.is_empty() || answer.code() == code,
        "{case}: {}",
        answer.body
    );
    let message = answer.error("message");
    for part in parts.iter().chain([&address]) {
        assert!(message.contains(part), "{case}: {part} is not in {message}");
    }
    assert_ne!(answer.error("hint"), "", "{case}: no next step");
    assert!(
        message.len() < 1000 && !message.contains(char::is_control),
        "{case}: {message}"
    );
}

#[test]
fn an_upstream_that_lies_is_named_and_not_believed() {
    let (aml, world) = cluster();
    let agent = world.agent();
    for (case, behavior, parts, code) in lies(&aml) {
        aml.script().set_default(behavior);
        let answer = world.get(&format!(
            "resource=https://example.org/{}",
            case.replace(' ', "-")
        ));
        is_helpful(case, &answer, &address(&aml), parts, code);
        agent.is_unharmed();
    }
    aml.script().clear();
    aml.mint().set_lifetime(-10);
    let expired = world.get("resource=https://example.org/expired");
    is_helpful("expired", &expired, &address(&aml), &[], "");
    assert_eq!(aml.obo().requests().len(), 0, "no redirect is followed");
    let log = agent.end().succeeded().stderr;
    assert!(!log.contains('\u{1b}'), "a terminal reads this");
}

#[test]
fn an_upstream_that_breaks_off_is_named_and_tried_again() {
    let broken = [
        ("truncated", Behavior::Truncate { bytes: 20 }),
        ("closed", Behavior::Close),
        (
            "no http",
            Behavior::Raw {
                text: "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
            },
        ),
        ("huge head", Behavior::HugeHead { bytes: 2_000_000 }),
        ("500", Behavior::text(500, "InternalError - :{ }")),
    ];
    std::thread::scope(|scope| {
        for (case, behavior) in broken {
            scope.spawn(move || {
                let (aml, world) = cluster();
                let agent = world.agent();
                aml.script().set_default(behavior);
                let answer = world.storage();
                is_helpful(case, &answer, &address(&aml), &[], "transient");
                assert!(aml.requests().len() > 1, "{case}");
                aml.script().clear();
                agent.is_unharmed();
            });
        }
    });
}

#[test]
fn an_endpoint_that_is_not_there_is_named() {
    let (aml, world) = cluster();
    let gone = address(&aml);
    let _agent = world.agent();
    drop(aml);
    let answer = world.storage();
    is_helpful("gone", &answer, &gone, &[], "transient");
    let kept: io::Result<Answer> = world.connect().ask("GET", "/healthz");
    assert_eq!(kept.unwrap().status, 200);
}
