//! Who is at the other end of a TCP connection on this machine: the kernel's table of sockets says whose each of them is.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

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
    /// Who connected from `address` to our `own` one, by the kernel's `table`.
    #[must_use]
    pub fn of(table: &SocketTable, address: SocketAddr, own: SocketAddr) -> Self {
        let uid = table.owner(address, own).unwrap_or_else(|error| {
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

/// The kernel's table of sockets. The line to the kernel is kept: to open one takes longer than to ask.
#[derive(Debug, Default)]
pub struct SocketTable(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    socket: Option<Socket>,
    /// The number of the last question, by which its answer is known.
    asked: u32,
    answer: Vec<u8>,
}

impl SocketTable {
    /// The uid of the socket at `local` that is connected to `remote`. `None` when there is no such connection: it was closed, and
    /// what the kernel still has of it belongs to nobody, which it writes as root.
    ///
    /// # Errors
    /// When the kernel cannot be asked: no such sockets, or not for us.
    pub fn owner(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if line.socket.is_some()
            && let Ok(owner) = line.ask(local, remote)
        {
            return Ok(owner);
        }
        // Whatever is wrong with a line that was kept is not wrong with a new one.
        line.socket = Some(open()?);
        let owner = line.ask(local, remote);
        if owner.is_err() {
            line.socket = None;
        }
        owner
    }
}

impl Line {
    fn ask(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        self.asked = self.asked.wrapping_add(1);
        socket.send(&question(self.asked, local, remote), 0)?;
        self.answer.clear();
        self.answer.reserve(ANSWER_BYTES);
        socket.recv(&mut self.answer, 0)?;
        read(&self.answer, self.asked, local, remote)
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    // The kernel answers while it is asked, so there is nothing to wait for.
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Whose the socket is that the answer to question number `asked` tells of.
pub(super) fn read(
    answer: &[u8],
    asked: u32,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Option<u32>> {
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer)
        .map_err(|error| io::Error::other(error.to_string()))?;
    if answer.header.sequence_number != asked {
        return Err(io::ErrorKind::InvalidData.into());
    }
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
            // `to_io` has no answer to the one number that has no opposite.
            let error = io::Error::from_raw_os_error(error.raw_code().saturating_abs());
            match error.kind() {
                io::ErrorKind::NotFound => Ok(None),
                _ => Err(error),
            }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn question(number: u32, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.sequence_number = number;
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
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

    use netlink_packet_core::{NetlinkHeader, NetlinkMessage};
    use netlink_packet_sock_diag::SockDiagMessage;
    use netlink_packet_sock_diag::constants::{AF_INET, TCP_ESTABLISHED};
    use netlink_packet_sock_diag::inet::{InetResponse, InetResponseHeader, SocketId};
    use proptest::prelude::*;

    use super::{Caller, SocketTable, read};

    const LOCAL: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40_000));
    const REMOTE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8460));

    /// What the kernel says of a connection of uid 4711.
    fn told(number: u32, local: SocketAddr, remote: SocketAddr, inode: u32) -> Vec<u8> {
        let header = InetResponseHeader {
            family: AF_INET,
            state: TCP_ESTABLISHED,
            timer: None,
            socket_id: SocketId {
                source_port: local.port(),
                destination_port: remote.port(),
                source_address: local.ip(),
                destination_address: remote.ip(),
                interface_id: 0,
                cookie: [1; 8],
            },
            recv_queue: 0,
            send_queue: 0,
            uid: 4711,
            inode,
        };
        let response = InetResponse {
            header,
            nlas: std::iter::empty().collect(),
        };
        let message = SockDiagMessage::InetResponse(Box::new(response));
        let mut header = NetlinkHeader::default();
        header.sequence_number = number;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn only_what_is_told_of_the_same_connection_counts() {
        let right = told(9, LOCAL, REMOTE, 5);
        assert_eq!(read(&right, 9, LOCAL, REMOTE).unwrap(), Some(4711));
        let nobodys = told(9, LOCAL, REMOTE, 0);
        assert_eq!(read(&nobodys, 9, LOCAL, REMOTE).unwrap(), None);
        let others = told(9, REMOTE, LOCAL, 5);
        assert_eq!(read(&others, 9, LOCAL, REMOTE).unwrap(), None);
        // An answer to an earlier question.
        assert!(read(&right, 10, LOCAL, REMOTE).is_err());
    }

    #[test]
    fn an_error_of_any_number_is_an_error() {
        for (code, is_nobodys) in [(-2, true), (-1, false), (5, false), (i32::MIN, false)] {
            let mut bytes = Vec::new();
            // `nlmsghdr` of an NLMSG_ERROR that answers question 9, the code, and no more of the question than its header.
            for word in [36, 2, 9, 1] {
                bytes.extend_from_slice(&u32::to_ne_bytes(word));
            }
            bytes.extend_from_slice(&i32::to_ne_bytes(code));
            bytes.extend_from_slice(&[0; 16]);
            let read = read(&bytes, 9, LOCAL, REMOTE);
            assert_eq!(matches!(read, Ok(None)), is_nobodys, "{code}: {read:?}");
            assert_eq!(read.is_err(), !is_nobodys, "{code}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn a_wrong_answer_does_no_harm_and_one_that_is_cut_tells_nothing(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            length in any::<proptest::sample::Index>(),
            is_cut: bool,
        ) {
            let mut bytes = told(9, LOCAL, REMOTE, 5);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if is_cut {
                bytes.truncate(length.index(bytes.len()));
                prop_assert!(read(&bytes, 9, LOCAL, REMOTE).is_err());
            } else {
                let _ = read(&bytes, 9, LOCAL, REMOTE);
            }
        }
    }

    #[test]
    fn a_live_connections_owner_is_known_and_a_closed_ones_is_nobody() {
        let table = SocketTable::default();
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
            assert_eq!(table.owner(local, own).unwrap(), Some(uid));
            assert_eq!(Caller::of(&table, local, own).uid, Some(uid));
            drop(stream);
            assert_eq!(Caller::of(&table, local, own).uid, None);
            // The listener is no connection.
            assert_eq!(Caller::of(&table, own, local).uid, None);
        }
    }
}
