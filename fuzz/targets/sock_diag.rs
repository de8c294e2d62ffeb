//! What the kernel says of a connection. Only what is told of the same connection says whose it is.

#![no_main]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use jobcred::front::dialect::fuzz::owner;
use libfuzzer_sys::fuzz_target;

const LOCAL: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40_000));
const REMOTE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8460));
const ASKED: u32 = 9;

fuzz_target!(|data: &[u8]| {
    let Ok(Some(uid)) = owner(data, ASKED, LOCAL, REMOTE) else {
        return;
    };
    // By linux/netlink.h and linux/inet_diag.h: `nlmsghdr`, then `inet_diag_msg`.
    let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
    let port = |at: usize| u16::from_be_bytes(data[at..at + 2].try_into().unwrap());
    assert_eq!(word(8), ASKED);
    // TCP_ESTABLISHED
    assert_eq!(data[17], 1);
    assert_eq!((port(20), port(22)), (40_000, 8460));
    assert_eq!(word(80), uid);
    assert_ne!(word(84), 0, "a connection without an inode is nobody's");
});
