//! What a double was asked: every request, kept for the test to look at, and a way to wait for one without sleeping.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::request::Parts;
use serde::Serialize;
use tokio::sync::watch;

use crate::clock::unix_milliseconds;

/// Of a request's body this much is kept.
const BODY_KEPT: usize = 64 * 1024;

/// One request as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct RecordedRequest {
    /// Counts from 1, per endpoint; not reset by [`Recorder::clear`].
    pub number: usize,
    /// The method, upper case.
    pub method: String,
    /// The path as sent, still percent-encoded.
    pub path: String,
    /// The query as sent, without `?`; empty when there is none.
    pub query: String,
    /// Names (lower case) and values, in order of arrival. A value that isn't text is replaced.
    pub headers: Vec<(String, String)>,
    /// The body as text, at most 64 KiB; empty for one that was passed on to a real server.
    pub body: String,
    /// When it arrived, unix milliseconds.
    pub received_ms: i64,
    /// Where it came from.
    pub peer: SocketAddr,
    /// How many requests, this one included, were being answered when it arrived.
    pub in_flight: usize,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is still being answered.
    Pending,
    /// A response with this status was begun.
    Answered(u16),
    /// The double broke the connection on purpose.
    Broken,
    /// The client went away (or the double was stopped) before there was an answer.
    Abandoned,
}

impl RecordedRequest {
    /// The first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first query parameter of that name, decoded.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        first(&self.query, name)
    }

    /// The first field of that name in a form body, decoded.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        first(&self.body, name)
    }
}

fn first(encoded: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(encoded.as_bytes())
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

/// The record of one endpoint. Clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<RecordedRequest>,
    cleared: usize,
    connections: usize,
    in_flight: usize,
    most_in_flight: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                version: watch::Sender::new(0),
            }),
        }
    }

    /// Every request since the start or the last [`Recorder::clear`], oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().requests.clone()
    }

    /// How many requests that is.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().requests.len()
    }

    /// The highest number of requests that were being answered at once.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.lock().most_in_flight
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Forgets the requests and the highest number at once.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.cleared += state.requests.len();
        state.requests.clear();
        state.most_in_flight = state.in_flight;
        drop(state);
        self.announce();
    }

    /// Waits until [`Recorder::count`] is at least `count`. Bound it with a timeout of your own.
    pub async fn reached(&self, count: usize) {
        self.until(|requests| requests.len() >= count).await;
    }

    /// The same for a test without a runtime: false when `timeout` passed first.
    #[must_use]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> bool {
        self.wait_until(timeout, |requests| requests.len() >= count)
    }

    /// Waits until the record is as wanted, say until some request has ended. Bound it with a timeout of your own.
    pub async fn until(&self, wanted: impl Fn(&[RecordedRequest]) -> bool) {
        let mut version = self.shared.version.subscribe();
        while !wanted(&self.lock().requests) {
            // The sender lives in `self`, so there is no end to this but a change.
            let _ = version.changed().await;
        }
    }

    /// The same for a test without a runtime: false when `timeout` passed first.
    #[must_use]
    pub fn wait_until(
        &self,
        timeout: Duration,
        wanted: impl Fn(&[RecordedRequest]) -> bool,
    ) -> bool {
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !wanted(&state.requests))
            .unwrap_or_else(PoisonError::into_inner);
        wanted(&state.requests)
    }

    fn announce(&self) {
        self.shared.version.send_modify(|version| *version += 1);
        self.shared.changed.notify_all();
    }

    pub(crate) fn connected(&self) {
        self.lock().connections += 1;
    }

    /// Notes a request's arrival. It counts as being answered until the returned guard is dropped.
    pub(crate) fn arrived(&self, parts: &Parts, peer: SocketAddr) -> InFlight {
        let mut state = self.lock();
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        let number = state.cleared + state.requests.len() + 1;
        let in_flight = state.in_flight;
        state.requests.push(RecordedRequest {
            number,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.as_str().to_owned(), value)
                })
                .collect(),
            body: String::new(),
            received_ms: unix_milliseconds(),
            peer,
            in_flight,
            outcome: Outcome::Pending,
        });
        drop(state);
        self.announce();
        InFlight {
            recorder: self.clone(),
            number,
            concurrent: in_flight,
        }
    }

    fn edit(&self, number: usize, change: impl FnOnce(&mut RecordedRequest)) {
        let mut state = self.lock();
        if let Some(request) = state
            .requests
            .iter_mut()
            .find(|known| known.number == number)
        {
            change(request);
        }
        drop(state);
        self.announce();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct InFlight {
    recorder: Recorder,
    number: usize,
    concurrent: usize,
}

impl InFlight {
    /// How many were being answered when it arrived, itself included.
    pub(crate) fn concurrent(&self) -> usize {
        self.concurrent
    }

    pub(crate) fn read_body(&self, body: &[u8]) {
        let kept = body.get(..BODY_KEPT).unwrap_or(body);
        let text = String::from_utf8_lossy(kept).into_owned();
        self.recorder
            .edit(self.number, |request| request.body = text);
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.recorder
            .edit(self.number, |request| request.outcome = outcome);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.recorder.edit(self.number, |request| {
            if request.outcome == Outcome::Pending {
                request.outcome = Outcome::Abandoned;
            }
        });
        self.recorder.lock().in_flight -= 1;
    }
}
