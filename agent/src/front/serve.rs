//! Connections: how many, how long, from whom; and how they end when the agent does.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jobcred_wire::MAX_HEADER_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::handed::{Handed, Receiving};
use super::reply::Reply;
use super::seldom::Seldom;
use crate::peer::Peer;

/// Connections at once. Beyond it, new ones wait in the kernel's queue until one ends. Each costs about 20 KiB.
pub const MAX_CONNECTIONS: usize = 2048;
/// Connections at once of one uid other than the agent's own, so that no neighbour can use up all of them. Further ones
/// are closed without an answer.
pub const MAX_CONNECTIONS_PER_FOREIGN_UID: usize = 512;
/// How long a client may take to send the headers of a request, and how long a kept connection may stay idle.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Header lines of one request.
pub const MAX_HEADERS: usize = 100;
/// How long connections may take to finish their request once the agent ends.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the kernel refuses a new connection (no file descriptors left): trying at once would spin. It doubles with
/// each refusal in a row.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause. Whoever waits meanwhile is in the kernel's queue; a connection that ends, and leaves a descriptor, ends it.
const LONGEST_ACCEPT_PAUSE: Duration = Duration::from_secs(2);

/// How many connections there may be, and how they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all; see [`MAX_CONNECTIONS`].
    pub total: usize,
    /// Of one uid other than the agent's own; see [`MAX_CONNECTIONS_PER_FOREIGN_UID`].
    pub per_foreign_uid: usize,
    /// How long they may take to finish their request once the agent ends; see [`DRAIN_TIMEOUT`].
    pub drain: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: MAX_CONNECTIONS,
            per_foreign_uid: MAX_CONNECTIONS_PER_FOREIGN_UID,
            drain: DRAIN_TIMEOUT,
        }
    }
}

/// Answers requests. One per way in.
pub trait Handle: Send + Sync + 'static {
    /// The answer to one request of `peer`. Never fails: an error is an answer too.
    fn handle(
        &self,
        peer: Peer,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = Reply> + Send;
}

/// Accepts connections and answers their requests until `stop` becomes true, then drains.
///
/// The listener stays open while draining, and the kernel queues who comes meanwhile: a successor can take it over.
pub async fn serve<H: Handle>(
    listener: &UnixListener,
    own_uid: u32,
    limits: ConnectionLimits,
    handler: Arc<H>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.total));
    let foreign = Arc::new(ForeignCount::default());
    let mut connections = JoinSet::new();
    let mut pause = ACCEPT_PAUSE;
    let (mut refusals, mut closings) = (Seldom::default(), Seldom::default());
    loop {
        // Reap what has ended, so that the set holds live connections only.
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept(listener, &slots) => accepted,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => {
                pause = ACCEPT_PAUSE;
                accepted
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                if let Some(times) = refusals.note() {
                    tracing::warn!(%error, times, "cannot accept connections; going on trying, and told once a minute");
                }
                tokio::select! {
                    () = stopped(&mut stop) => break,
                    () = tokio::time::sleep(pause) => {}
                    Some(_) = connections.join_next() => {}
                }
                pause = (2 * pause).min(LONGEST_ACCEPT_PAUSE);
                continue;
            }
        };
        let peer = match stream.peer_cred() {
            Ok(cred) => Peer {
                uid: cred.uid(),
                gid: cred.gid(),
                // Zero is the kernel's word for "not in your pid namespace".
                pid: cred
                    .pid()
                    .and_then(|pid| u32::try_from(pid).ok())
                    .filter(|&pid| pid != 0),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection without a known owner is closed");
                continue;
            }
        };
        let guard = if peer.uid == own_uid {
            None
        } else if let Some(guard) = foreign.enter(peer.uid, limits.per_foreign_uid) {
            Some(guard)
        } else {
            if let Some(times) = closings.note() {
                tracing::warn!(
                    peer.uid,
                    times,
                    "this uid has too many connections; one more is closed"
                );
            }
            continue;
        };
        let handler = Arc::clone(&handler);
        let stop = stop.clone();
        connections.spawn(async move {
            let handed = Handed::default();
            if peer.uid == own_uid {
                let stream = Receiving::new(stream, handed.clone());
                serve_connection(stream, peer, handed, handler, stop).await;
            } else {
                serve_connection(stream, peer, handed, handler, stop).await;
            }
            drop((slot, guard));
        });
    }
    let drained = tokio::time::timeout(limits.drain, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::debug!(left = connections.len(), "connections cut off at the end");
    }
}

/// Serves one connection over any byte stream until either side ends it. A `POST` has `handed` among its extensions.
pub async fn serve_connection<H: Handle>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    handed: Handed,
    handler: Arc<H>,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        // Only what changes something has need of a descriptor.
        if request.method() == http::Method::POST {
            request.extensions_mut().insert(handed.clone());
        }
        let handler = Arc::clone(&handler);
        async move { Ok::<_, std::convert::Infallible>(handler.handle(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Garbage, a client that went away, an idle connection's end: the client's affair, so no more than a debug line.
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// One accepted connection and its slot; the slot comes first, so that a full house leaves callers in the kernel's queue.
async fn accept(
    listener: &UnixListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(tokio::net::UnixStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// Resolves once `stop` is true, or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can ever say stop again; then the agent is ending.
    let _ = stop.wait_for(|&stop| stop).await;
}

/// Connections per foreign uid.
#[derive(Debug, Default)]
pub(super) struct ForeignCount(Mutex<HashMap<u32, usize>>);

/// One of them.
#[derive(Debug)]
pub(super) struct ForeignGuard {
    count: Arc<ForeignCount>,
    uid: u32,
}

impl ForeignCount {
    /// One more of `uid`, unless it has `limit` already.
    pub(super) fn enter(self: &Arc<Self>, uid: u32, limit: usize) -> Option<ForeignGuard> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(ForeignGuard {
            count: Arc::clone(self),
            uid,
        })
    }
}

impl Drop for ForeignGuard {
    fn drop(&mut self) {
        let mut counts = self.count.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
