//! This run's identity endpoint: a listener on loopback and its keys, which are COMMAND's for as long as it runs, whichever
//! agent answers there. Every agent at this run's place is offered it, over a connection that is kept for as long as it shall answer.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use jobcred_wire::{ENDPOINT_PATH, HOST, PREFIX_HEADER, REQUEST_HEADER, SECRET_HEADER};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::config::Dialect;
use crate::front::dialect::{Keys, SocketTable, Variable};
use crate::front::socket::try_connect;

/// For a connection on loopback, which stands at once or never.
const TRIAL: Duration = Duration::from_millis(200);

/// The endpoint, for as long as this is kept.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
    keys: Keys,
}

impl Endpoint {
    /// Opens one that can answer in `dialects`.
    ///
    /// # Errors
    /// When there can be no listener on loopback, no secret, or the kernel does not tell here whose a connection is: the agent would
    /// refuse all of them.
    pub fn open(dialects: &[Dialect]) -> io::Result<Self> {
        let keys = Keys::generate(dialects)
            .ok_or_else(|| io::Error::other("the system has no randomness"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        try_out(&listener, address)?;
        Ok(Self {
            listener,
            address,
            keys,
        })
    }

    /// What leads SDKs to it in these dialects.
    #[must_use]
    pub fn variables(&self, dialects: &[Dialect]) -> Vec<Variable> {
        dialects
            .iter()
            .flat_map(|dialect| self.keys.variables(*dialect, self.address))
            .collect()
    }

    /// Offers it to the agent that listens at `socket`, or will accept there next. It answers until the connection is closed. Waits for
    /// nothing.
    ///
    /// # Errors
    /// When nobody listens there, or somebody else.
    pub(super) fn offer(&self, socket: &Path) -> io::Result<UnixStream> {
        let stream = try_connect(socket)?.ok_or(io::ErrorKind::WouldBlock)?;
        let listens = getsockopt(&stream, sockopt::PeerCredentials)?;
        if listens.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut request = format!(
            "POST {ENDPOINT_PATH} HTTP/1.1\r\nhost: {HOST}\r\n{REQUEST_HEADER}: 1\r\n{SECRET_HEADER}: {}\r\n",
            self.keys.secret.expose()
        );
        if let Some(prefix) = &self.keys.prefix {
            request.extend([PREFIX_HEADER, ": ", prefix.expose(), "\r\n"]);
        }
        request.push_str("\r\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [self.listener.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        // Far less than an empty socket takes at once.
        let sent = sendmsg(
            &stream,
            &[IoSlice::new(request.as_bytes())],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        if sent < request.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(stream)
    }
}

/// Connects to the listener as an SDK would, and looks whether it can be told who that was.
fn try_out(listener: &TcpListener, address: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&address, TRIAL)?;
    let seen = SocketTable::default().owner(stream.local_addr()?, address)?;
    // It stands, so this waits for nothing; and nobody else may find it in the queue.
    drop(listener.accept()?);
    if seen != Some(geteuid().as_raw()) {
        return Err(io::Error::other(
            "the kernel does not tell whose a connection is",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Endpoint;
    use crate::config::Dialect;

    #[test]
    fn nobody_to_offer_it_to_is_an_error_and_each_has_its_own_port_and_secret() {
        let directory = tempfile::tempdir().unwrap();
        let all = [Dialect::AppService];
        let (one, two) = (Endpoint::open(&all).unwrap(), Endpoint::open(&all).unwrap());
        assert!(one.offer(&directory.path().join("agent.sock")).is_err());
        for (one, two) in one.variables(&all).iter().zip(two.variables(&all)) {
            assert_ne!(one.1, two.1);
        }
    }
}
