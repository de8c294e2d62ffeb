//! What kind of address a name leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is of a network of its own: private use (RFC 1918), shared (RFC 6598), unique local (RFC 4193), link-local
/// or loopback. Behind an account's name that means a private endpoint.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || is_shared(ip)
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || is_unique_local(ip),
    }
}

fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && (64..128).contains(&second)
}

fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.octets()[0] & 0xfe == 0xfc
}

#[cfg(test)]
mod tests {
    use super::is_private;

    #[test]
    fn the_edges_of_every_range() {
        for (address, expected) in [
            ("10.0.0.0", true),
            ("11.0.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.168.0.1", true),
            ("192.169.0.1", false),
            ("169.254.169.254", true),
            ("127.0.0.1", true),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("20.38.104.164", false),
            ("::1", true),
            ("fe80::1", true),
            ("fc00::1", true),
            ("fdff::1", true),
            ("fe00::1", false),
            ("2603:1030::1", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:8.8.8.8", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), expected, "{address}");
        }
    }
}
