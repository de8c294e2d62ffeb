//! The identity endpoints that are open: each belongs to whoever offered it, a `run` or the sidecar itself, and closes with that one.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::listen::{Room, listen};
use super::{IdentityEndpoint, Keys};
use crate::front::native::NativeApi;
use crate::peer::Admission;

/// Endpoints at once. Each is a `run` of the agent's own user.
const MOST: usize = 1024;

/// The open endpoints of an agent.
#[derive(Debug)]
pub struct Endpoints {
    offers: mpsc::UnboundedSender<Offer>,
    /// Until the agent takes it to serve.
    taken: Mutex<Option<mpsc::UnboundedReceiver<Offer>>>,
    open: Mutex<Open>,
    /// Why the configured one is not open.
    missing: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    list: Vec<(u64, SocketAddr, Keys)>,
}

#[derive(Debug)]
struct Offer {
    listener: TcpListener,
    admission: Admission,
    keys: Keys,
    address: SocketAddr,
    /// Resolves when it is withdrawn.
    kept: oneshot::Receiver<()>,
}

/// An endpoint, for as long as this is kept.
#[derive(Debug)]
pub struct Kept {
    endpoints: Arc<Endpoints>,
    number: u64,
    _withdrawal: oneshot::Sender<()>,
}

impl Endpoints {
    /// None yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let (offers, taken) = mpsc::unbounded_channel();
        Arc::new(Self {
            offers,
            taken: Mutex::new(Some(taken)),
            open: Mutex::default(),
            missing: watch::Sender::default(),
        })
    }

    /// Says why the configured endpoint is not open, or by `None` that it is. The agent is not ready without it.
    pub fn set_missing(&self, why: Option<String>) {
        self.missing.send_replace(why);
    }

    /// Why the configured endpoint is not open; `None` when it is, or none is configured.
    #[must_use]
    pub fn missing(&self) -> watch::Receiver<Option<String>> {
        self.missing.subscribe()
    }

    /// Opens one on a descriptor that came from elsewhere. It answers the callers that `admission` admits.
    ///
    /// # Errors
    /// When it is not a listener on loopback.
    pub fn open_handed(
        self: &Arc<Self>,
        descriptor: OwnedFd,
        admission: Admission,
        keys: Keys,
    ) -> io::Result<Kept> {
        let is_listening = getsockopt(&descriptor, sockopt::AcceptConn)?;
        if !is_listening {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.open(StdTcpListener::from(descriptor), admission, keys)
    }

    /// Opens one on a listener. It answers the callers that `admission` admits.
    ///
    /// # Errors
    /// When it is not on loopback, or the runtime cannot use it.
    pub fn open(
        self: &Arc<Self>,
        listener: StdTcpListener,
        admission: Admission,
        keys: Keys,
    ) -> io::Result<Kept> {
        // Also an error for what is no internet socket.
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (withdrawal, kept) = oneshot::channel();
        let number = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.list.len() >= MOST {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            open.next += 1;
            let number = open.next;
            open.list.push((number, address, keys.clone()));
            number
        };
        let offer = Offer {
            listener,
            admission,
            keys,
            address,
            kept,
        };
        let kept = Kept {
            endpoints: Arc::clone(self),
            number,
            _withdrawal: withdrawal,
        };
        self.offers
            .send(offer)
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(kept)
    }

    /// One that is open, for a shell that has none of its own: the one that was opened first.
    #[must_use]
    pub fn any(&self) -> Option<(SocketAddr, Keys)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, address, keys) = open.list.first()?;
        Some((*address, keys.clone()))
    }

    /// Answers on all of them, as `api` would, until `stop`; then requests under way may finish, for as long as `drain`.
    pub async fn serve(
        &self,
        api: Arc<NativeApi>,
        mut stop: watch::Receiver<bool>,
        drain: Duration,
    ) {
        let taken = self
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut offers) = taken else { return };
        let room = Room::new();
        let mut listeners = JoinSet::new();
        loop {
            while listeners.try_join_next().is_some() {}
            let offer = tokio::select! {
                _ = stop.wait_for(|&stop| stop) => break,
                offer = offers.recv() => offer,
            };
            let Some(offer) = offer else { break };
            let port = offer.address.port();
            let endpoint =
                IdentityEndpoint::new(Arc::clone(&api), offer.admission, offer.keys, port);
            let mut stop = stop.clone();
            let end = async move {
                tokio::select! {
                    _ = stop.wait_for(|&stop| stop) => {}
                    _ = offer.kept => {}
                }
            };
            let room = room.clone();
            listeners.spawn(listen(offer.listener, Arc::new(endpoint), room, end, drain));
        }
        while listeners.join_next().await.is_some() {}
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let endpoints = &self.endpoints;
        let mut open = endpoints
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.list.retain(|(number, ..)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    use super::{Endpoints, Keys};
    use crate::config::Dialect;
    use crate::peer::Admission;

    fn admission() -> Admission {
        Admission::private(0)
    }

    fn keys() -> Keys {
        Keys::generate(&[Dialect::AppService]).unwrap()
    }

    #[tokio::test]
    async fn only_listeners_on_loopback_are_endpoints() {
        let directory = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connected = TcpStream::connect(address).unwrap();
        let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let unix = UnixListener::bind(directory.path().join("x.sock")).unwrap();
        let file = tempfile::tempfile().unwrap();
        for (what, descriptor) in [
            ("a file", file.into()),
            ("a Unix socket", unix.into()),
            ("a connection", connected.into()),
            ("a listener on all addresses", everywhere.into()),
        ] {
            let opened = endpoints.open_handed(descriptor, admission(), keys());
            assert!(opened.is_err(), "{what}");
            assert!(endpoints.any().is_none(), "{what}");
        }
        let same = listener.try_clone().unwrap();
        let first = endpoints.open_handed(same.into(), admission(), keys());
        let first = first.unwrap();
        let second = endpoints.open(listener, admission(), keys()).unwrap();
        let shown = endpoints.any().unwrap();
        assert_eq!(shown.0, address);
        drop(first);
        assert_ne!(endpoints.any().unwrap().1.secret, shown.1.secret);
        drop(second);
        assert!(endpoints.any().is_none());
    }
}
