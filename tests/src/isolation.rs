//! Proof that this process has no way out to a network, for tests that start something which may look for one.

use std::fmt;
use std::io;
use std::net::UdpSocket;

/// Devices that some kernels put into every namespace. They are down and lead nowhere.
const FALLBACK_DEVICES: [&str; 9] = [
    "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0",
];

/// Why this process is not isolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotIsolated {
    reason: String,
}

impl fmt::Display for NotIsolated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: this test may only run without a route out; run it by tests/isolated",
            self.reason
        )
    }
}

impl std::error::Error for NotIsolated {}

/// Fails the test, with the reason, unless there is verifiably no route out of this network namespace.
///
/// # Panics
///
/// When there is one.
#[expect(
    clippy::panic,
    reason = "its purpose is to fail the test that calls it"
)]
pub fn require_isolation() {
    if let Err(reason) = check_isolation() {
        panic!("{reason}");
    }
}

/// Whether there is no route out: the kernel's own tables are read, and it is asked for a route to addresses that
/// only a network could have. Nothing is sent. The environment is not believed.
pub fn check_isolation() -> Result<(), NotIsolated> {
    let read = |path: &str| {
        std::fs::read_to_string(path).map_err(|error| NotIsolated {
            reason: format!("{path} can't be read ({error})"),
        })
    };
    check_devices(&read("/proc/self/net/dev")?)?;
    check_routes(&read("/proc/self/net/route")?)?;
    // Absent where the kernel has no IPv6.
    match std::fs::read_to_string("/proc/self/net/ipv6_route") {
        Ok(table) => check_routes6(&table)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(NotIsolated {
                reason: format!("the IPv6 routes can't be read ({error})"),
            });
        }
    }
    // Documentation addresses (RFC 5737, RFC 3849): connecting a datagram socket only looks for a route.
    for (from, to) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let connected = UdpSocket::bind(from).and_then(|socket| socket.connect(to));
        if connected.is_ok() {
            return Err(NotIsolated {
                reason: format!("the kernel has a route to {to}"),
            });
        }
    }
    Ok(())
}

fn check_devices(table: &str) -> Result<(), NotIsolated> {
    let foreign = table
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .find(|name| *name != "lo" && !FALLBACK_DEVICES.contains(name));
    match foreign {
        None => Ok(()),
        Some(name) => Err(NotIsolated {
            reason: format!("there is a network device {name}"),
        }),
    }
}

fn check_routes(table: &str) -> Result<(), NotIsolated> {
    let foreign = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .find(|name| *name != "lo");
    match foreign {
        None => Ok(()),
        Some(name) => Err(NotIsolated {
            reason: format!("there is a route by {name}"),
        }),
    }
}

fn check_routes6(table: &str) -> Result<(), NotIsolated> {
    let foreign = table
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .find(|name| *name != "lo");
    match foreign {
        None => Ok(()),
        Some(name) => Err(NotIsolated {
            reason: format!("there is an IPv6 route by {name}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Inter-|   Receive\n face |bytes\n";

    #[test]
    fn only_loopback_and_the_kernels_own_fallbacks_pass() {
        assert!(check_devices(&format!("{HEAD}    lo: 0 0\n  sit0: 0 0\n")).is_ok());
        let error = check_devices(&format!("{HEAD}    lo: 0 0\n  eth0: 0 0\n")).unwrap_err();
        assert!(error.to_string().contains("eth0"), "{error}");
    }

    #[test]
    fn a_route_by_another_device_is_a_way_out() {
        let table = "Iface\tDestination\tGateway\neth0\t00000000\t0100A8C0\n";
        assert!(check_routes(table).is_err());
        assert!(check_routes("Iface\tDestination\n").is_ok());
        let line = "00000000000000000000000000000000 00 0 00 0 ffffffff 1 0 00200200";
        assert!(check_routes6(&format!("{line}       lo\n")).is_ok());
        assert!(check_routes6(&format!("{line}     eth0\n")).is_err());
    }
}
