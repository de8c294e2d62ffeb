//! The blocking client against a listener on a real Unix socket.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod double;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use jobcred_client::{
    Client, ErrorCode, ErrorKind, NamedIdentity, SocketSearch, Target, TokenRequest,
};
use tempfile::TempDir;

use crate::double::{Act, AgentDouble, error, json, json_bytes, token, token_json};

const STORAGE: &str = "https://storage.azure.com/";

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    (dir, path)
}

fn storage() -> TokenRequest {
    TokenRequest::new(Target::Resource(STORAGE.to_owned()))
}

/// A client whose clock stands where the test puts it.
fn client_at(path: &Path, clock: &Arc<AtomicI64>) -> Client {
    let clock = Arc::clone(clock);
    Client::builder()
        .socket(path)
        .clock(move || clock.load(Ordering::SeqCst))
        .build()
}

fn client(path: &Path) -> Client {
    client_at(path, &Arc::new(AtomicI64::new(0)))
}

#[test]
fn a_held_token_needs_no_request() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, number| token(&format!("t{number}"), 1000, 2000));
    let client = client(&path);
    let first = client.token(&storage()).unwrap();
    let second = client.clone().token(&storage()).unwrap();
    assert_eq!(first.access_token.expose(), "t0");
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(
        agent.requests(),
        ["GET /v1/token?resource=https%3A%2F%2Fstorage.azure.com%2F"]
    );
}

#[test]
fn identities_are_held_apart() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, number| token(&format!("t{number}"), 1000, 2000));
    let client = client(&path);
    let named = TokenRequest {
        identity: Some(NamedIdentity::ClientId("c".to_owned())),
        ..storage()
    };
    assert_eq!(
        client.token(&storage()).unwrap().access_token.expose(),
        "t0"
    );
    assert_eq!(client.token(&named).unwrap().access_token.expose(), "t1");
    assert_eq!(
        client.token(&storage()).unwrap().access_token.expose(),
        "t0"
    );
    assert_eq!(agent.requests().len(), 2);
    assert_eq!(agent.connections(), 1, "the connection is kept");
}

#[test]
fn a_token_is_asked_for_again_from_refresh_on_and_kept_while_that_fails() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, number| match number {
        0 => token("old", 1000, 2000),
        3 => token("new", 3000, 4000),
        _ => error(503, "transient"),
    });
    let clock = Arc::new(AtomicI64::new(0));
    let client = client_at(&path, &clock);
    for (now, expected, requests) in [
        (0, "old", 1),
        (999, "old", 1),
        (1000, "old", 2),
        (1001, "old", 2),
        (1004, "old", 2),
        (1005, "old", 3),
        (1010, "new", 4),
        (2500, "new", 4),
    ] {
        clock.store(now, Ordering::SeqCst);
        let token = client.token(&storage()).unwrap();
        assert_eq!(token.access_token.expose(), expected, "at {now}");
        assert_eq!(agent.requests().len(), requests, "at {now}");
    }
    clock.store(4000, Ordering::SeqCst);
    let error = client.token(&storage()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Transient);
    assert_eq!(error.retry_after(), Some(3));
    assert_eq!(error.request_id(), Some("r1"));
    assert_eq!(
        error.to_string(),
        "it is transient; look there (request r1)"
    );
}

#[test]
fn a_valid_token_outlives_its_agent() {
    let (_dir, path) = place();
    let clock = Arc::new(AtomicI64::new(0));
    let client = client_at(&path, &clock);
    let agent = AgentDouble::start(&path, |_, _| token("t", 1000, 2000));
    client.token(&storage()).unwrap();
    drop(agent);
    clock.store(1999, Ordering::SeqCst);
    assert_eq!(client.token(&storage()).unwrap().access_token.expose(), "t");
    clock.store(2000, Ordering::SeqCst);
    assert_eq!(
        client.token(&storage()).unwrap_err().kind(),
        ErrorKind::AgentGone
    );
}

#[test]
fn an_ended_or_empty_token_is_not_handed_out() {
    for body in [
        token_json("t", 10, 50),
        token_json("t", 10, 100),
        token_json("", 1000, 2000),
        "{}".to_owned(),
        r#"{"access_token":"s3cret","expires_on":"soon"}"#.to_owned(),
    ] {
        let (_dir, path) = place();
        let _agent = AgentDouble::start(&path, move |_, _| json(200, &body));
        let client = client_at(&path, &Arc::new(AtomicI64::new(100)));
        let error = client.token(&storage()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}

#[test]
fn min_validity_asks_the_agent_when_the_held_token_is_too_short() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, number| match number {
        0 => token("short", 1000, 2000),
        1 => token("long", 8000, 9000),
        _ => error(503, "transient"),
    });
    let client = client(&path);
    let need = |seconds| TokenRequest {
        min_validity: Some(seconds),
        ..storage()
    };
    assert_eq!(
        client.token(&need(2000)).unwrap().access_token.expose(),
        "short"
    );
    assert_eq!(
        client.token(&need(2001)).unwrap().access_token.expose(),
        "long"
    );
    assert_eq!(
        client.token(&storage()).unwrap().access_token.expose(),
        "long"
    );
    assert!(client.token(&need(9001)).is_err());
    assert_eq!(agent.requests().len(), 3);
}

#[test]
fn claims_pass_the_cache_by_and_leave_the_new_token_in_it() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, number| {
        token(
            &format!("t{number}"),
            1000,
            2000 - i64::try_from(number).unwrap(),
        )
    });
    let client = client(&path);
    let challenged = TokenRequest {
        claims: Some("{}".to_owned()),
        ..storage()
    };
    assert_eq!(
        client.token(&storage()).unwrap().access_token.expose(),
        "t0"
    );
    assert_eq!(
        client.token(&challenged).unwrap().access_token.expose(),
        "t1"
    );
    assert_eq!(
        client.token(&challenged).unwrap().access_token.expose(),
        "t2"
    );
    assert_eq!(
        client.token(&storage()).unwrap().access_token.expose(),
        "t2"
    );
    assert!(agent.requests()[1].ends_with("&claims=%7B%7D"));
}

#[test]
fn threads_that_want_the_same_token_make_one_request() {
    const THREADS: usize = 64;
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, _| token("t", 1000, 2000));
    let client = client(&path);
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                assert_eq!(client.token(&storage()).unwrap().access_token.expose(), "t");
            });
        }
    });
    assert_eq!(agent.requests().len(), 1);
}

#[test]
fn an_agent_that_was_restarted_is_found_again() {
    let (_dir, path) = place();
    let client = client(&path);
    for round in 0..3 {
        let agent = AgentDouble::start(&path, |_, _| json(200, r#"{"status":"ok"}"#));
        assert_eq!(
            client.get("/healthz").unwrap(),
            r#"{"status":"ok"}"#,
            "{round}"
        );
        assert_eq!(agent.requests().len(), 1);
    }
}

#[test]
fn a_kept_connection_that_died_is_replaced_once() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, _| Act::SendAndClose(json_bytes(200, "{}")));
    let client = client(&path);
    for _ in 0..3 {
        client.get("/healthz").unwrap();
    }
    assert_eq!((agent.requests().len(), agent.connections()), (3, 3));
}

#[test]
fn a_new_connection_that_dies_is_not_tried_again() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, _| Act::SendAndClose(Vec::new()));
    let error = client(&path).get("/healthz").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert_eq!((agent.requests().len(), agent.connections()), (1, 1));
}

#[test]
fn garbage_is_an_error_and_poisons_nothing() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    let huge = "HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n".to_owned();
    for garbage in [
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        "\0\0\0\0",
        "HTTP/1.1 502 Bad\r\ncontent-length: 6\r\n\r\n<html>",
        &long,
        &huge,
    ] {
        let (_dir, path) = place();
        let bytes = garbage.as_bytes().to_vec();
        let _agent = AgentDouble::start(&path, move |_, number| match number {
            0 => Act::SendAndClose(bytes.clone()),
            _ => token("t", 1000, 2000),
        });
        let client = client(&path);
        assert!(client.token(&storage()).is_err(), "{garbage:.80?}");
        assert_eq!(client.token(&storage()).unwrap().access_token.expose(), "t");
    }
}

#[test]
fn an_agent_that_hangs_runs_into_the_timeout() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, _| Act::Hang);
    let client = Client::builder()
        .socket(&path)
        .timeout(Duration::from_millis(50))
        .build();
    let error = client.token(&storage()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(agent.requests().len(), 1, "a timeout is not tried again");
}

#[test]
fn an_endless_answer_is_cut_off() {
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\n", "x: y\r\n"),
        ("HTTP/1.1 200 OK\r\nx: ", "y"),
        ("HTTP/1.1 200 OK\r\n\r\n", "body"),
    ] {
        let (_dir, path) = place();
        let _agent = AgentDouble::start(&path, move |_, _| {
            Act::Endless(head.as_bytes().to_vec(), piece.as_bytes().to_vec())
        });
        let error = client(&path).status().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{head:?}");
        assert!(error.to_string().contains("too long"), "{error}");
    }
}

#[test]
fn a_full_backlog_does_not_hang_the_caller() {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
    };
    let (_dir, path) = place();
    let listener = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    // The kernel lets one more in than the backlog says.
    let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let client = Client::builder()
        .socket(&path)
        .connect_timeout(Duration::from_millis(50))
        .build();
    let error = client.status().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentGone);
    assert!(error.to_string().contains("too busy"), "{error}");

    // Where no place was named either, a busy agent is one: no chain of credentials may go on without it.
    let runtime_dir = path.parent().unwrap();
    std::fs::create_dir(runtime_dir.join("jobcred")).unwrap();
    std::fs::rename(&path, runtime_dir.join("jobcred/agent.sock")).unwrap();
    let search = SocketSearch {
        explicit: None,
        runtime_dir: Some(runtime_dir.to_str().unwrap().to_owned()),
        // Nobody's, so that the last place is one where nobody listens.
        uid: u32::MAX - 1,
    };
    let client = Client::builder()
        .search(search)
        .connect_timeout(Duration::from_millis(50))
        .build();
    let error = client.status().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Transient, "{error}");
    let text = error.to_string();
    assert!(text.contains("agent.sock (too busy"), "{text}");
    // The time that one place took is not the next one's.
    assert!(text.contains("/agent.sock (nothing there)"), "{text}");
    assert_eq!(text.matches("too busy").count(), 1, "{text}");
}

#[test]
fn who_needs_a_token_outwaits_who_only_wants_a_newer_one() {
    let (_dir, path) = place();
    let arrived = Arc::new(Barrier::new(2));
    let agent = AgentDouble::start(&path, {
        let arrived = Arc::clone(&arrived);
        move |_, number| match number {
            0 => token("first", 1000, 2000),
            1 => {
                arrived.wait();
                Act::Hang
            }
            _ => token("second", 8000, 9000),
        }
    });
    let clock = Arc::new(AtomicI64::new(0));
    let client = client_at(&path, &clock);
    client.token(&storage()).unwrap();
    clock.store(1500, Ordering::SeqCst);
    thread::scope(|scope| {
        let content = scope.spawn(|| client.token(&storage()).unwrap());
        arrived.wait();
        let demanding = TokenRequest {
            min_validity: Some(600),
            ..storage()
        };
        let token = client.token(&demanding).unwrap();
        assert_eq!(token.access_token.expose(), "second");
        let kept = content.join().unwrap();
        assert_eq!(kept.access_token.expose(), "first");
    });
    assert_eq!(agent.requests().len(), 3);
}

#[test]
fn a_missing_agent_is_told_with_its_place_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sock");
    let error = Client::builder()
        .socket(&missing)
        .build()
        .token(&storage())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentGone);
    assert_eq!(error.code(), ErrorCode::Transient);
    let text = error.to_string();
    assert!(text.contains(missing.to_str().unwrap()), "{text}");
    // The variable has nothing to do with it.
    assert!(text.contains("the path that was asked for"), "{text}");
    assert!(!text.contains("JOBCRED_SOCKET"), "{text}");
}

#[test]
fn the_other_requests() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |line, _| {
        if line.starts_with("DELETE") {
            return Act::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
        }
        match line {
            "GET /v1/registry?server=m.azurecr.io" => json(
                200,
                r#"{"server":"m.azurecr.io","username":"u","secret":"s","expires_on":2,"refresh_on":1}"#,
            ),
            "GET /v1/status" => json(
                200,
                r#"{"version":"9","pid":1,"strategy":"s","fingerprint":"f","started_on":1,"ready":true,"tokens":[],"callers":[]}"#,
            ),
            "GET /v1/explain" => json(
                200,
                r#"{"version":"9","strategy":"s","reason":"r","message":"m","candidates":[],"notices":[]}"#,
            ),
            "GET /readyz" => error(503, "unavailable"),
            "GET /metrics" => json(200, "up 1\n"),
            _ => Act::Send(b"HTTP/1.1 431 Too Large\r\ncontent-length: 0\r\n\r\n".to_vec()),
        }
    });
    let client = client(&path);
    assert_eq!(
        client.registry("m.azurecr.io").unwrap().secret.expose(),
        "s"
    );
    client.erase_registry("m.azurecr.io").unwrap();
    assert_eq!(client.status().unwrap().version, "9");
    assert_eq!(client.explain().unwrap().strategy, "s");
    assert_eq!(client.get("/metrics").unwrap(), "up 1\n");
    assert_eq!(
        client.get("/readyz").unwrap_err().code(),
        ErrorCode::Unavailable
    );
    assert_eq!(
        client.get("/other").unwrap_err().code(),
        ErrorCode::InvalidRequest
    );
    let count = agent.requests().len();
    assert_eq!(
        client.get("/x HTTP/1.1\r\n\r\nGET /").unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(agent.requests().len(), count, "nothing was sent");
}
