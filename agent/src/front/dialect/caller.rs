//! Who is at the other end of a TCP connection on this machine: the kernel's table of sockets says whose each of them is.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};

/// Longer than an answer, in bytes.
const ANSWER_BYTES: usize = 4096;
/// No particular socket: addresses and ports tell which.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The uid its socket was made by; `None` where the kernel does not tell, which is never taken for root.
    pub uid: Option<u32>,
    /// Where it connected from.
    pub address: SocketAddr,
}

impl Caller {
    /// Who connected from `address` to our `own` one.
    #[must_use]
    pub fn of(address: SocketAddr, own: SocketAddr) -> Self {
        let uid = owner(address, own).unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel does not tell whose a connection is");
            None
        });
        Self { uid, address }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "uid {uid} at {}", self.address),
            None => write!(f, "somebody unknown at {}", self.address),
        }
    }
}

/// The uid of the socket at `local` that is connected to `remote`. `None` when there is no such connection: it was closed, and
/// what the kernel still has of it belongs to nobody, which it writes as root.
///
/// # Errors
/// When the kernel cannot be asked: no such sockets, or not for us.
pub fn owner(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    // The kernel answers while it is asked, so there is nothing to wait for.
    socket.set_non_blocking(true)?;
    socket.send(&question(local, remote), 0)?;
    let mut buffer = Vec::with_capacity(ANSWER_BYTES);
    socket.recv(&mut buffer, 0)?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&buffer)
        .map_err(|error| io::Error::other(error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
            let header = &found.header;
            let id = &header.socket_id;
            let is_the_one = id.source_port == local.port()
                && id.destination_port == remote.port()
                && header.state == TCP_ESTABLISHED
                && header.inode != 0;
            Ok(is_the_one.then_some(header.uid))
        }
        NetlinkPayload::Error(error) => {
            let error = error.to_io();
            match error.kind() {
                io::ErrorKind::NotFound => Ok(None),
                _ => Err(error),
            }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn question(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let request = InetRequest {
        family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id: SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: local.ip(),
            destination_address: remote.ip(),
            interface_id: 0,
            cookie: ANY_COOKIE,
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::{Caller, owner};

    #[test]
    fn a_live_connections_owner_is_known_and_a_closed_ones_is_nobody() {
        for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let address: std::net::IpAddr = address;
            let Ok(listener) = TcpListener::bind((address, 0)) else {
                assert!(address.is_ipv6(), "IPv4's loopback is always there");
                continue;
            };
            let own = listener.local_addr().unwrap();
            let stream = TcpStream::connect(own).unwrap();
            let local = stream.local_addr().unwrap();
            let _accepted = listener.accept().unwrap();
            let uid = nix::unistd::geteuid().as_raw();
            assert_eq!(owner(local, own).unwrap(), Some(uid));
            assert_eq!(Caller::of(local, own).uid, Some(uid));
            drop(stream);
            assert_eq!(Caller::of(local, own).uid, None);
            // The listener is no connection.
            assert_eq!(Caller::of(own, local).uid, None);
        }
    }
}
