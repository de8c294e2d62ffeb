//! The async client, and the Azure credential on it, against a listener on a real Unix socket.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod double;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use azure_core::credentials::TokenCredential;
use jobcred_client::{
    AsyncClient, Client, ErrorCode, ErrorKind, JobCredential, NamedIdentity, Target, TokenRequest,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::double::{Act, AgentDouble, error, json, json_bytes, token};

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    (dir, path)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn storage() -> TokenRequest {
    TokenRequest::new(Target::Scope(
        "https://storage.azure.com/.default".to_owned(),
    ))
}

fn client_at(path: &std::path::Path, clock: &Arc<AtomicI64>) -> AsyncClient {
    let clock = Arc::clone(clock);
    Client::builder()
        .socket(path)
        .clock(move || clock.load(Ordering::SeqCst))
        .build_async()
}

fn client(path: &std::path::Path) -> AsyncClient {
    client_at(path, &Arc::new(AtomicI64::new(0)))
}

#[test]
fn who_needs_a_token_outwaits_who_only_wants_a_newer_one() {
    let (_dir, path) = place();
    let (arrived, arrival) = mpsc::channel();
    let agent = AgentDouble::start(&path, move |_, number| match number {
        0 => token("first", 1000, 2000),
        1 => {
            arrived.send(()).unwrap();
            Act::Hang
        }
        _ => token("second", 8000, 9000),
    });
    let clock = Arc::new(AtomicI64::new(0));
    let client = client_at(&path, &clock);
    runtime().block_on(async {
        client.token(&storage()).await.unwrap();
        clock.store(1500, Ordering::SeqCst);
        let content = tokio::spawn({
            let client = client.clone();
            async move { client.token(&storage()).await.unwrap() }
        });
        tokio::task::spawn_blocking(move || arrival.recv().unwrap())
            .await
            .unwrap();
        let demanding = TokenRequest {
            min_validity: Some(600),
            ..storage()
        };
        let token = client.token(&demanding).await.unwrap();
        assert_eq!(token.access_token.expose(), "second");
        let kept = content.await.unwrap();
        assert_eq!(kept.access_token.expose(), "first");
    });
    assert_eq!(agent.requests().len(), 3);
}

#[test]
fn the_rules_of_the_cache_are_those_of_the_blocking_client() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, number| match number {
        0 => token("old", 1000, 2000),
        2 => token("new", 3000, 4000),
        _ => error(503, "transient"),
    });
    let clock = Arc::new(AtomicI64::new(0));
    let client = client_at(&path, &clock);
    runtime().block_on(async {
        for (now, expected, requests) in [
            (0, "old", 1),
            (999, "old", 1),
            (1000, "old", 2),
            (1004, "old", 2),
            (1005, "new", 3),
        ] {
            clock.store(now, Ordering::SeqCst);
            let token = client.token(&storage()).await.unwrap();
            assert_eq!(token.access_token.expose(), expected, "at {now}");
            assert_eq!(agent.requests().len(), requests, "at {now}");
        }
        clock.store(4000, Ordering::SeqCst);
        let error = client.token(&storage()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Transient);
    });
    assert_eq!(agent.connections(), 1, "the connection is kept");
}

#[test]
fn tasks_that_want_the_same_token_make_one_request() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, _| token("t", 1000, 2000));
    let client = client(&path);
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.token(&storage()).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().access_token.expose(), "t");
        }
    });
    assert_eq!(agent.requests().len(), 1);
}

/// An answer that waits until the test lets it go, and tells when the request has come.
fn gated(
    bytes: Vec<u8>,
) -> (
    impl Fn() -> Act + Send + Sync,
    oneshot::Receiver<()>,
    mpsc::Sender<()>,
) {
    let (arrived, arrival) = oneshot::channel();
    let (open, gate) = mpsc::channel();
    let (arrived, gate) = (Mutex::new(Some(arrived)), Mutex::new(gate));
    let act = move || {
        if let Some(arrived) = arrived.lock().unwrap().take() {
            arrived.send(()).unwrap();
            let _ = gate.lock().unwrap().recv();
        }
        Act::Send(bytes.clone())
    };
    (act, arrival, open)
}

#[test]
fn a_caller_that_goes_away_cancels_nothing() {
    let (_dir, path) = place();
    let (act, arrival, open) = gated(json_bytes(200, &double::token_json("t", 1000, 2000)));
    let agent = AgentDouble::start(&path, move |_, _| act());
    let client = client(&path);
    runtime().block_on(async {
        let first = tokio::spawn({
            let client = client.clone();
            async move { client.token(&storage()).await }
        });
        arrival.await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = tokio::spawn({
            let client = client.clone();
            async move { client.token(&storage()).await }
        });
        open.send(()).unwrap();
        assert_eq!(second.await.unwrap().unwrap().access_token.expose(), "t");
    });
    assert_eq!(agent.requests().len(), 1);
}

#[test]
fn a_dropped_call_leaves_no_answer_for_the_next_one() {
    let (_dir, path) = place();
    let (act, arrival, open) = gated(json_bytes(200, "late"));
    let agent = AgentDouble::start(&path, move |line, _| match line {
        "GET /slow" => act(),
        line => json(200, line),
    });
    let client = client(&path);
    runtime().block_on(async {
        assert_eq!(client.get("/a").await.unwrap(), "GET /a");
        let slow = tokio::spawn({
            let client = client.clone();
            async move { client.get("/slow").await }
        });
        arrival.await.unwrap();
        slow.abort();
        assert!(slow.await.unwrap_err().is_cancelled());
        open.send(()).unwrap();
        assert_eq!(client.get("/b").await.unwrap(), "GET /b");
    });
    assert_eq!(agent.connections(), 2);
}

#[test]
fn a_client_outlives_a_runtime_and_an_agent() {
    let (_dir, path) = place();
    let client = client(&path);
    let agent = AgentDouble::start(&path, |line, _| json(200, line));
    for _ in 0..2 {
        assert_eq!(runtime().block_on(client.get("/a")).unwrap(), "GET /a");
    }
    drop(agent);
    let error = runtime().block_on(client.get("/a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentGone);
    let _agent = AgentDouble::start(&path, |_, _| Act::SendAndClose(json_bytes(200, "{}")));
    let runtime = runtime();
    for _ in 0..3 {
        assert_eq!(runtime.block_on(client.get("/a")).unwrap(), "{}");
    }
}

/// The flight of a runtime that is gone must not keep the callers of another one waiting.
#[test]
fn a_request_that_died_with_its_runtime_is_made_again() {
    let (_dir, path) = place();
    let (act, arrival, open) = gated(json_bytes(200, &double::token_json("t", 1000, 2000)));
    let agent = AgentDouble::start(&path, move |_, _| act());
    let client = client(&path);
    let first = runtime();
    first.block_on(async {
        tokio::spawn({
            let client = client.clone();
            async move { client.token(&storage()).await }
        });
        arrival.await.unwrap();
    });
    drop(first);
    open.send(()).unwrap();
    let token = runtime().block_on(client.token(&storage())).unwrap();
    assert_eq!(token.access_token.expose(), "t");
    assert_eq!(agent.requests().len(), 2);
}

#[test]
fn a_hanging_agent_runs_into_the_timeout() {
    let (_dir, path) = place();
    let _agent = AgentDouble::start(&path, |_, _| Act::Hang);
    let client = Client::builder()
        .socket(&path)
        .timeout(std::time::Duration::from_millis(50))
        .build_async();
    runtime().block_on(async {
        let error = client.token(&storage()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let error = client.status().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    });
}

#[test]
fn the_azure_credential_asks_for_exactly_one_scope() {
    let (_dir, path) = place();
    let agent = AgentDouble::start(&path, |_, _| token("t", 4_000_000_000, 4_100_000_000));
    let credential = JobCredential::from_client(client(&path));
    let named = credential
        .with_identity(NamedIdentity::ClientId("c".to_owned()))
        .with_tenant("d");
    let scope = "https://storage.azure.com/.default";
    runtime().block_on(async {
        for scopes in [&[][..], &[scope, scope]] {
            let error = credential.get_token(scopes, None).await.unwrap_err();
            assert!(error.to_string().contains("exactly one scope"), "{error}");
        }
        let token = credential.get_token(&[scope], None).await.unwrap();
        assert_eq!(token.token.secret(), "t");
        assert_eq!(token.expires_on.unix_timestamp(), 4_100_000_000);
        named.get_token(&[scope], None).await.unwrap();
    });
    let line = "GET /v1/token?scope=https%3A%2F%2Fstorage.azure.com%2F.default";
    assert_eq!(
        agent.requests(),
        [line.to_owned(), format!("{line}&client_id=c&tenant_id=d")]
    );
}

#[test]
fn the_azure_credential_says_why() {
    let (_dir, path) = place();
    let _agent = AgentDouble::start(&path, |_, _| error(502, "rejected"));
    let credential = JobCredential::from_client(client(&path));
    let error = runtime()
        .block_on(credential.get_token(&["s/.default"], None))
        .unwrap_err();
    assert!(matches!(
        error.kind(),
        azure_core::error::ErrorKind::Credential
    ));
    assert!(error.to_string().contains("it is rejected"), "{error}");
}
