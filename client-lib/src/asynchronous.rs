//! The client for tasks, on tokio's Unix socket. Cache and rules are those of the blocking one.

use std::future::Future;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jobcred_wire::{
    EXPLAIN_PATH, Explanation, RegistryRequest, RegistryResponse, STATUS_PATH, Status,
    TokenRequest, TokenResponse,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time;

use crate::answer;
use crate::cache::{Cache, Outcome, Slot, Step};
use crate::error::Attempt;
use crate::http::{Answer, AnswerReader, Method, encode_request};
use crate::owner::listener_uid;
use crate::platform;
use crate::settings::{Builder, REFRESH_TIMEOUT, Settings};
use crate::socket::{Broken, Idle, READ_BYTES, sort};
use crate::{Error, ErrorKind};

/// A client of the agent for tasks. Cheap to clone; clones share the cache and the connections.
///
/// Its calls want a tokio runtime with I/O and time enabled, and may be dropped at any point: a token request goes on
/// in a task of its own for whoever else waits for it, and a connection is only kept after a whole answer.
#[derive(Clone, Debug)]
pub struct AsyncClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    idle: Mutex<Idle<UnixStream>>,
    cache: Cache<Landed>,
}

/// The number of requests of a slot that have ended.
type Landed = watch::Sender<u64>;

/// Whatever becomes of the task that asks, even when its runtime is shut down, the ones that wait for it are woken.
struct Flight {
    shared: Arc<Shared>,
    slot: Arc<Slot<Landed>>,
    outcome: Option<Outcome>,
}

impl AsyncClient {
    /// A client that finds its agent by the environment of this process. [`Builder::build_async`] makes others.
    #[must_use]
    pub fn new() -> Self {
        Builder::new().build_async()
    }

    /// A token, from memory when there is a good one.
    ///
    /// Tasks that want the same token at the same time make one request between them. A request with claims always goes
    /// to the agent.
    pub async fn token(&self, request: &TokenRequest) -> Result<Arc<TokenResponse>, Error> {
        let shared = &self.shared;
        if request.claims.is_some() {
            let token = shared.fetch_token(request, shared.settings.timeout).await?;
            let now = shared.settings.now();
            shared.cache.slot(request, now).keep(&token);
            return Ok(token);
        }
        match shared.cache.hit(request, shared.settings.now()) {
            Some(token) => Ok(token),
            // Boxed, so that the futures of the many callers that hit stay small.
            None => Box::pin(miss(shared, request)).await,
        }
    }

    /// The user name and password for a registry, fresh from the agent.
    pub async fn registry(&self, server: &str) -> Result<RegistryResponse, Error> {
        let path = registry_path(server);
        answer::parse(&self.shared.call(Method::Get, &path).await?)
    }

    /// Makes the agent drop the credential it holds for a registry.
    pub async fn erase_registry(&self, server: &str) -> Result<(), Error> {
        let path = registry_path(server);
        self.shared.call(Method::Delete, &path).await.map(drop)
    }

    /// What the agent holds and how it fares.
    pub async fn status(&self) -> Result<Status, Error> {
        answer::parse(&self.shared.call(Method::Get, STATUS_PATH).await?)
    }

    /// Which way to tokens the agent chose, and why.
    pub async fn explain(&self) -> Result<Explanation, Error> {
        answer::parse(&self.shared.call(Method::Get, EXPLAIN_PATH).await?)
    }

    /// The text of any other page, for example `/healthz`, `/readyz` or `/metrics`.
    pub async fn get(&self, path: &str) -> Result<String, Error> {
        answer::text(&self.shared.call(Method::Get, path).await?)
    }
}

impl Default for AsyncClient {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The client for tasks, instead of the blocking one.
    #[must_use]
    pub fn build_async(self) -> AsyncClient {
        AsyncClient {
            shared: Arc::new(Shared {
                settings: self.settle(),
                // Not closed in a forked child: that would take the parent's connection out of the event queue, which
                // the two processes share.
                idle: Mutex::new(Idle::new(mem::forget)),
                cache: Cache::default(),
            }),
        }
    }
}

async fn miss(shared: &Arc<Shared>, request: &TokenRequest) -> Outcome {
    let timeout = shared.settings.timeout;
    let work = async {
        let slot = shared.cache.slot(request, shared.settings.now());
        loop {
            let pid = platform::own_pid();
            let now = shared.settings.now();
            match slot.enter(request.min_validity, now, pid) {
                Step::Use(token) => return Ok(token),
                Step::Lead(fallback) => return lead(shared, &slot, request, fallback).await,
                // The one who asked may have needed less life than this caller does, and had less patience.
                Step::Wait(landed) => match wait(&slot, landed).await {
                    Ok(token) => {
                        if answer::lasts(&token, request.min_validity, shared.settings.now()) {
                            return Ok(token);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Timeout => {}
                    Err(error) => return Err(error),
                },
            }
        }
    };
    within(timeout, work).await
}

async fn lead(
    shared: &Arc<Shared>,
    slot: &Arc<Slot<Landed>>,
    request: &TokenRequest,
    fallback: Option<Arc<TokenResponse>>,
) -> Outcome {
    let landed = slot.lock().landed;
    let timeout = match fallback {
        Some(_) => shared.settings.timeout.min(REFRESH_TIMEOUT),
        None => shared.settings.timeout,
    };
    let flight = Flight {
        shared: Arc::clone(shared),
        slot: Arc::clone(slot),
        outcome: None,
    };
    let request = request.clone();
    tokio::spawn(async move {
        let outcome = flight.shared.fetch_token(&request, timeout).await;
        flight.end(outcome);
    });
    match (wait(slot, landed).await, fallback) {
        (Err(_), Some(token)) if token.expires_on > shared.settings.now() => Ok(token),
        (outcome, _) => outcome,
    }
}

/// Waits for the request under way. The number is a value that stays, so a wake-up cannot be missed.
async fn wait(slot: &Slot<Landed>, landed: u64) -> Outcome {
    let mut changes = slot.signal.subscribe();
    loop {
        if let Some(outcome) = slot.lock().outcome_after(landed) {
            return outcome;
        }
        changes.changed().await.map_err(|_| Error::abandoned())?;
    }
}

impl Flight {
    fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let outcome = self
            .outcome
            .take()
            .unwrap_or_else(|| Err(Error::abandoned()));
        self.slot.land(outcome, self.shared.settings.now());
        self.slot
            .signal
            .send_modify(|landed| *landed = landed.wrapping_add(1));
    }
}

impl Shared {
    async fn fetch_token(&self, request: &TokenRequest, timeout: Duration) -> Outcome {
        let path = request.to_path_and_query();
        let answer = self.call_within(Method::Get, &path, timeout).await?;
        answer::token(&answer, self.settings.now())
    }

    async fn call(&self, method: Method, path: &str) -> Result<Answer, Error> {
        self.call_within(method, path, self.settings.timeout).await
    }

    async fn call_within(
        &self,
        method: Method,
        path: &str,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let request = encode_request(method, path)?;
        answer::check(within(timeout, self.exchange(&request)).await?)
    }

    /// Sends a request and reads its answer, on a kept connection or a new one.
    async fn exchange(&self, request: &[u8]) -> Result<Answer, Error> {
        let pid = platform::own_pid();
        let kept = self.with(|idle| idle.take(pid));
        if let Some(mut stream) = kept {
            match converse(&mut stream, request).await {
                Ok(answer) => return Ok(self.keep(pid, stream, answer)),
                Err(Broken::Failed(error)) => return Err(error),
                Err(Broken::Gone(_)) => self.with(Idle::clear),
            }
        }
        let mut stream = open(&self.settings).await?;
        match converse(&mut stream, request).await {
            Ok(answer) => Ok(self.keep(pid, stream, answer)),
            Err(Broken::Failed(error)) => Err(error),
            Err(Broken::Gone(error)) => Err(Error::connection(error)),
        }
    }

    fn keep(&self, pid: u32, stream: UnixStream, answer: Answer) -> Answer {
        if answer.keep {
            self.with(|idle| idle.put(pid, stream));
        }
        answer
    }

    fn with<T>(&self, act: impl FnOnce(&mut Idle<UnixStream>) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A new connection to the first agent that answers and may be trusted.
async fn open(settings: &Settings) -> Result<UnixStream, Error> {
    settings.check()?;
    let mut attempts = Vec::new();
    let mut foreign = None;
    for path in &settings.paths {
        let found = match time::timeout(settings.connect_timeout, connect(path)).await {
            Ok(Ok(stream)) => match listener_uid(&stream) {
                Ok(uid) if settings.owner.accepts(uid) => return Ok(stream),
                Ok(uid) => {
                    foreign = foreign.or(Some(uid));
                    Attempt::foreign(path, uid)
                }
                Err(error) => Attempt::failed(path, &error),
            },
            Ok(Err(error)) => Attempt::failed(path, &error),
            Err(_) => Attempt::failed(path, &io::ErrorKind::TimedOut.into()),
        };
        attempts.push(found);
    }
    Err(Error::no_agent(&attempts, foreign, settings.is_given))
}

/// Connects, and tries again while the backlog is full: the kernel tells a non-blocking connect so at once, and has
/// no event for the moment when there is room.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                time::sleep(BACKLOG_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// One request and its answer on one connection.
async fn converse(stream: &mut UnixStream, request: &[u8]) -> Result<Answer, Broken> {
    stream.write_all(request).await.map_err(broken)?;
    let mut reader = AnswerReader::default();
    let mut buffer = zeroize::Zeroizing::new(vec![0u8; READ_BYTES]);
    loop {
        match stream.read(buffer.as_mut_slice()).await {
            Ok(0) if !reader.has_begun() => {
                return Err(Broken::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(0) => return reader.end().map_err(Broken::Failed),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if let Some(answer) = reader.feed(bytes).map_err(Broken::Failed)? {
                    return Ok(answer);
                }
            }
            Err(error) if reader.has_begun() => {
                return Err(Broken::Failed(Error::connection(error)));
            }
            Err(error) => return Err(broken(error)),
        }
    }
}

/// Also counts as gone: a connection whose runtime has been shut down, for which tokio has only the kind `Other`.
fn broken(error: io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::Other => Broken::Gone(error),
        _ => sort(error),
    }
}

async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| Err(Error::timeout()))
}

fn registry_path(server: &str) -> String {
    RegistryRequest {
        server: server.to_owned(),
    }
    .to_path_and_query()
}

/// A full backlog empties as fast as the agent accepts.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);
