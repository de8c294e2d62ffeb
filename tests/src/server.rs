//! The server under every double: accepts, records, asks the double for its answer, and lets the script spoil it.
//!
//! Doubles run on a runtime of their own, so a test may block its thread, or have no runtime at all.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::answer::{Body, Broken, perform};
use crate::clock::Clock;
use crate::proxy;
use crate::recorder::{InFlight, Outcome, RecordedRequest, Recorder};
use crate::reply::{Received, Reply};
use crate::script::{Behavior, OnConnect, Script};

/// A request body longer than this gets a 413.
const BODY_LIMIT: usize = 1024 * 1024;

/// What a double is, to the server.
pub(crate) trait Handler: Send + Sync + 'static {
    /// A refusal that comes before the script and uses nothing up, such as a rate limit.
    fn refuse(&self, _request: &Received) -> Option<Reply> {
        None
    }

    /// The answer.
    fn answer(&self, request: &Received) -> Reply;

    /// A real server that answers requests for this path in the double's place.
    fn upstream(&self, _path: &str) -> Option<SocketAddr> {
        None
    }
}

/// One listening address of a double, with its script and its record. Stops when dropped, and every connection with it.
pub struct Endpoint {
    name: &'static str,
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    recorder: Recorder,
    script: Script,
    clock: Clock,
    tls: Option<TlsAcceptor>,
    handler: Arc<dyn Handler>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    pub(crate) fn start(
        name: &'static str,
        bind: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        clock: Clock,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Self> {
        let listener = StdTcpListener::bind(bind)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            recorder: Recorder::new(),
            script: Script::new(),
            clock,
            tls: tls.map(TlsAcceptor::from),
            handler,
        });
        let runtime = runtime()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let task = runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            name,
            address,
            scheme,
            shared,
            task,
        })
    }

    /// What the endpoint is called in a configuration and in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL by address; `path` begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Its URL by a name that the caller has made resolve to its address.
    #[must_use]
    pub fn url_as(&self, host: &str, path: &str) -> String {
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    /// What it does with requests.
    #[must_use]
    pub fn script(&self) -> &Script {
        &self.shared.script
    }

    /// What it was asked.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// Every request so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.recorder.requests()
    }

    /// The clock of its `Date` header and its tokens.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

fn runtime() -> io::Result<&'static Handle> {
    static RUNTIME: OnceLock<Result<Runtime, io::ErrorKind>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("doubles")
                .enable_all()
                .build()
                .map_err(|error| error.kind())
        })
        .as_ref()
        .map(Runtime::handle)
        .map_err(|kind| io::Error::from(*kind))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Owned by this task, so that its end ends every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    shared.recorder.connected();
                    connections.spawn(connect(stream, peer, Arc::clone(&shared)));
                }
                // Out of descriptors, most likely: some connection has to end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    match shared.script.on_connect() {
        OnConnect::Serve => {}
        OnConnect::Hang => {
            std::future::pending::<()>().await;
        }
        OnConnect::Reset => {
            let _ = stream.set_zero_linger();
            return;
        }
    }
    let _ = stream.set_nodelay(true);
    match &shared.tls {
        None => serve(stream, peer, Arc::clone(&shared)).await,
        Some(tls) => {
            // A client that distrusts the certificate ends here; what it thinks of it is its own to report.
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, peer, Arc::clone(&shared)).await;
            }
        }
    }
}

/// A connection whose TCP stream can be reached below TLS.
trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn serve<S: Transport>(stream: S, peer: SocketAddr, shared: Arc<Shared>) {
    let broken: Arc<Mutex<Option<Broken>>> = Arc::default();
    let service = service_fn(|request| {
        let (shared, broken) = (Arc::clone(&shared), Arc::clone(&broken));
        Box::pin(async move {
            respond(request, peer, &shared).await.map_err(|how| {
                broken
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .replace(how);
                io::Error::other("broken on purpose")
            })
        })
    });
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let _ = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let mut stream = connection.into_parts().io.into_inner();
    let broken = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    match broken {
        Some(Broken::Reset) => {
            let _ = stream.tcp().set_zero_linger();
        }
        Some(Broken::Raw(bytes)) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Some(Broken::Close) | None => {
            let _ = stream.shutdown().await;
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    shared: &Shared,
) -> Result<Response<Body>, Broken> {
    let (parts, body) = request.into_parts();
    let in_flight = shared.recorder.arrived(&parts, peer);
    let path = parts.uri.path().to_owned();
    let mut behavior = None;
    if let Some(upstream) = shared.handler.upstream(&path) {
        match shared.script.next(&path) {
            Behavior::Ok => {
                let response = proxy::forward(upstream, Request::from_parts(parts, body)).await;
                in_flight.ended(Outcome::Answered(response.status().as_u16()));
                return Ok(response);
            }
            other => behavior = Some(other),
        }
    }
    let read = Limited::new(body, BODY_LIMIT).collect().await;
    let Ok(body) = read.map(http_body_util::Collected::to_bytes) else {
        return dated(Reply::status(413), in_flight, shared).await;
    };
    in_flight.read_body(&body);
    let received = received(&parts, body, in_flight.concurrent());
    if let Some(refusal) = shared.handler.refuse(&received) {
        return dated(refusal, in_flight, shared).await;
    }
    let behavior = behavior.unwrap_or_else(|| shared.script.next(&path));
    let answer = || shared.handler.answer(&received);
    perform(behavior, answer, &shared.script, &shared.clock, in_flight).await
}

async fn dated(
    reply: Reply,
    in_flight: InFlight,
    shared: &Shared,
) -> Result<Response<Body>, Broken> {
    perform(
        Behavior::Ok,
        || reply,
        &shared.script,
        &shared.clock,
        in_flight,
    )
    .await
}

fn received(parts: &http::request::Parts, body: Bytes, in_flight: usize) -> Received {
    Received {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect(),
        headers: parts.headers.clone(),
        body,
        in_flight,
    }
}

/// Sets the `Date` of a response, `offset` seconds off `clock`.
pub(crate) fn set_date(response: &mut Response<Body>, clock: &Clock, offset: i64) {
    if let Ok(date) = HeaderValue::try_from(clock.http_date(offset)) {
        response.headers_mut().insert(DATE, date);
    }
}
