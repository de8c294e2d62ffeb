//! Connections of an identity endpoint: one request each, so that nothing of a caller's stays open.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jobcred_wire::MAX_HEADER_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::{Caller, IdentityEndpoint, SocketTable};
use crate::front::reply::Reply;
use crate::front::seldom::Seldom;
use crate::front::serve::{ForeignCount, ForeignGuard, MAX_HEADERS};
use crate::peer::OVERFLOW_UID;

/// Connections that are read at once, at all endpoints of an agent. Beyond it, new ones wait until one ends: one at each endpoint,
/// and the others in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 512;
/// Connections at once of one uid that is not the agent's own. Further ones are closed without an answer.
const MAX_CONNECTIONS_PER_FOREIGN_UID: usize = 64;
/// How long a client may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the kernel refuses a new connection (no file descriptors left): trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all endpoints of an agent share.
#[derive(Clone, Debug)]
pub(super) struct Room {
    slots: Arc<Semaphore>,
    foreign: Arc<ForeignCount>,
    table: Arc<SocketTable>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            foreign: Arc::default(),
            table: Arc::default(),
        }
    }
}

/// Answers on `listener` until `end`, and then lets requests under way finish for as long as `drain`.
pub(super) async fn listen(
    listener: TcpListener,
    endpoint: Arc<IdentityEndpoint>,
    room: Room,
    end: impl Future<Output = ()>,
    drain: Duration,
) {
    // The same for all its connections, since it listens at one address.
    let own = match listener.local_addr() {
        Ok(own) => own,
        Err(error) => {
            tracing::error!(%error, "an identity endpoint has no address; nobody is answered there");
            return;
        }
    };
    let mut connections = JoinSet::new();
    let (mut refusals, mut closings) = (Seldom::default(), Seldom::default());
    tokio::pin!(end);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = accept(&listener, own, &room.slots, &room.table) => accepted,
        };
        let (stream, caller, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = refusals.note() {
                    tracing::warn!(%error, times, "cannot accept a connection; going on trying, and told once a minute");
                }
                tokio::select! {
                    () = &mut end => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
                continue;
            }
        };
        let Ok(guard) = enter(&endpoint, &room, caller) else {
            if let Some(times) = closings.note() {
                tracing::warn!(%caller, times, "too many connections of this uid; one more is closed");
            }
            continue;
        };
        let endpoint = Arc::clone(&endpoint);
        connections.spawn(async move {
            serve(stream, caller, |request| endpoint.answer(caller, request)).await;
            drop((slot, guard));
        });
    }
    let _ = tokio::time::timeout(drain, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

struct TooMany;

fn enter(
    endpoint: &IdentityEndpoint,
    room: &Room,
    caller: Caller,
) -> Result<Option<ForeignGuard>, TooMany> {
    if endpoint.is_own(caller) {
        return Ok(None);
    }
    let uid = caller.uid.unwrap_or(OVERFLOW_UID);
    let guard = room.foreign.enter(uid, MAX_CONNECTIONS_PER_FOREIGN_UID);
    guard.map(Some).ok_or(TooMany)
}

/// The slot comes after the connection: one that was held by an endpoint where nobody asks would be lacking where somebody does.
async fn accept(
    listener: &TcpListener,
    own: SocketAddr,
    slots: &Arc<Semaphore>,
    table: &SocketTable,
) -> io::Result<(TcpStream, Caller, OwnedSemaphorePermit)> {
    let (stream, address) = listener.accept().await?;
    // As early as can be: who closes again is nobody.
    let caller = Caller::of(table, address, own);
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    Ok((stream, caller, slot))
}

async fn serve<A: Future<Output = Reply>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    caller: Caller,
    answer: impl Fn(Request<Incoming>) -> A,
) {
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    match served {
        Ok(()) => {}
        // hyper has answered with a status alone, so this is all that is ever said of it.
        Err(error) if error.is_parse() => {
            tracing::info!(%caller, %error, "a request that cannot be read is turned away");
        }
        Err(error) => tracing::debug!(%caller, %error, "connection ended"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use http::Response;
    use http_body_util::Either;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;
    use tokio::time::Instant;

    use super::{Caller, HEADER_TIMEOUT, SocketTable, accept, serve};

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_comes_is_not_waited_for_without_end() {
        for sent in ["", "GET /msi", "GET /msi/token HTTP/1.1\r\nhost: x\r\n"] {
            let (mut near, far) = duplex(1024);
            let caller = Caller {
                uid: Some(77),
                address: (Ipv4Addr::LOCALHOST, 1).into(),
            };
            near.write_all(sent.as_bytes()).await.unwrap();
            let start = Instant::now();
            let answer = |_| async { Response::new(Either::Left("never".into())) };
            let served = serve(far, caller, answer);
            let (mut read, ()) = (Vec::new(), served.await);
            near.read_to_end(&mut read).await.unwrap();
            assert_eq!((start.elapsed(), read.len()), (HEADER_TIMEOUT, 0), "{sent}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_where_nobody_asks_keeps_no_slot_from_the_others() {
        let slots = Arc::new(Semaphore::new(1));
        let table = SocketTable::default();
        let idle = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let asked = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let waiting = accept(&idle, idle.local_addr().unwrap(), &slots, &table);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        let _client = TcpStream::connect(asked.local_addr().unwrap())
            .await
            .unwrap();
        let accepted = accept(&asked, asked.local_addr().unwrap(), &slots, &table);
        tokio::pin!(accepted);
        // The connection stands, but the runtime may first have to hear of it.
        for _ in 0..1000 {
            if futures::poll!(&mut accepted).is_ready() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("an idle endpoint holds the only slot");
    }
}
