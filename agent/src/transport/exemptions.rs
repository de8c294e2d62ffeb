//! `NO_PROXY`: the hosts that are reached without the proxy.
//!
//! There is no standard. This reads the union of what curl, Python (urllib, requests) and Go accept, because a host that any of
//! them exempts here is meant to be exempt.
//!
//! | entry | exempts |
//! |---|---|
//! | `*` | every host |
//! | `host`, `.host`, `host.` | the host and its subdomains |
//! | `*.host` | its subdomains |
//! | `10.1.2.3`, `fd00::1`, `[fd00::1]` | the address |
//! | `10.0.0.0/8`, `fd00::/8` | the network |
//! | any of these with `:port` | the same at that port |
//!
//! Commas and blanks separate entries. Upper and lower case are the same. Not read is the end of an address, like `.2.3`: Python and
//! Go compare it as text.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

/// The entries that exempt this machine. `run` appends them for COMMAND.
pub(crate) const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// The entries of a list, as they are spelt.
pub(crate) fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|entry| !entry.is_empty())
}

/// A list that was read.
#[derive(Debug, Default)]
pub(super) struct Exemptions(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    hosts: Hosts,
    /// `None` is every port.
    port: Option<u16>,
}

#[derive(Debug)]
enum Hosts {
    All,
    Network(IpNet),
    /// A name without dots around it, and whether it is exempt itself or its subdomains only.
    Domain {
        name: String,
        itself: bool,
    },
}

impl Exemptions {
    /// Entries that cannot be read exempt nothing.
    pub(super) fn read(list: &str) -> Self {
        Self(entries(list).filter_map(Entry::read).collect())
    }

    /// Whether `url` is reached without the proxy.
    pub(super) fn has(&self, url: &Url) -> bool {
        let Some(host) = url.host() else {
            return false;
        };
        let port = url.port_or_known_default();
        self.0
            .iter()
            .any(|entry| (entry.port.is_none() || entry.port == port) && entry.hosts.has(&host))
    }
}

impl Entry {
    fn read(entry: &str) -> Option<Self> {
        if let Some(hosts) = Hosts::read(entry) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = entry.rsplit_once(':')?;
        Some(Self {
            hosts: Hosts::read(host)?,
            port: Some(port.parse().ok()?),
        })
    }
}

impl Hosts {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Some(Self::Network(address.to_canonical().into()));
        }
        if let Ok(network) = text.parse() {
            return Some(Self::Network(network));
        }
        let (name, itself) = match text.strip_prefix("*.") {
            Some(name) => (name, false),
            None => (text.trim_start_matches('.'), true),
        };
        // As a URL has it: in lower case, other alphabets in punycode. A wildcard elsewhere is not one.
        match Host::parse(name.trim_end_matches('.')) {
            Ok(Host::Domain(name)) if !name.contains('*') => Some(Self::Domain { name, itself }),
            _ => None,
        }
    }

    fn has(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network(network), Host::Ipv4(address)) => {
                network.contains(&IpAddr::V4(*address))
            }
            (Self::Network(network), Host::Ipv6(address)) => {
                network.contains(&IpAddr::V6(*address).to_canonical())
            }
            (Self::Domain { name, itself }, Host::Domain(host)) => {
                let host = host.trim_end_matches('.');
                if host == name {
                    return *itself;
                }
                host.strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with('.'))
            }
            (Self::Network(_), Host::Domain(_))
            | (Self::Domain { .. }, Host::Ipv4(_) | Host::Ipv6(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::Exemptions;

    fn is_exempt(list: &str, url: &str) -> bool {
        Exemptions::read(list).has(&Url::parse(url).unwrap())
    }

    #[test]
    fn c4_every_spelling_that_curl_python_or_go_accepts_is_read() {
        let login = "https://login.example/t";
        let ipv4 = "https://10.1.2.3/";
        let ipv6 = "https://[fd00::1]/";
        for (list, url, expected) in [
            // Names.
            ("login.example", login, true),
            ("LOGIN.Example", login, true),
            (".login.example", login, true),
            ("login.example.", login, true),
            ("login.example", "https://login.example./t", true),
            ("example", login, true),
            (".example", login, true),
            ("*.example", login, true),
            ("*.login.example", login, false),
            ("*.login.example", "https://a.login.example/", true),
            ("in.example", login, false),
            ("*in.example", login, false),
            ("other.example", login, false),
            ("b\u{fc}cher.example", "https://b\u{fc}cher.example/", true),
            // Ports.
            ("login.example:443", login, true),
            (".example:443", login, true),
            ("*.example:443", login, true),
            ("login.example:8443", login, false),
            ("login.example:8443", "https://login.example:8443/", true),
            ("login.example", "https://login.example:8443/", true),
            ("login.example:", login, false),
            ("login.example:x", login, false),
            // Addresses and networks.
            ("10.1.2.3", ipv4, true),
            ("10.1.2.3:443", ipv4, true),
            ("10.1.2.3:80", ipv4, false),
            ("10.1.2.4", ipv4, false),
            ("10.0.0.0/8", ipv4, true),
            ("10.1.2.3/8", ipv4, true),
            ("11.0.0.0/8", ipv4, false),
            // The end of an address, which Python and Go accept and curl does not.
            ("1.2.3", ipv4, false),
            (".2.3", ipv4, false),
            ("10.1.2.3", "https://[::ffff:10.1.2.3]/", true),
            ("fd00::1", ipv6, true),
            ("FD00:0::1", ipv6, true),
            ("[fd00::1]", ipv6, true),
            ("[fd00::1]:443", ipv6, true),
            ("[fd00::1]:80", ipv6, false),
            ("fd00::/8", ipv6, true),
            ("fd00::2", ipv6, false),
            // Everything.
            ("*", login, true),
            ("*", ipv4, true),
            ("*", ipv6, true),
            ("*:443", login, true),
            ("*:80", login, false),
            ("*,x", login, true),
            ("x, *", ipv4, true),
            // Separators.
            ("a,login.example,b", login, true),
            ("a , login.example , b", login, true),
            ("a login.example b", login, true),
            ("a\tlogin.example\nb", login, true),
            (",,login.example,,", login, true),
            ("", login, false),
            (" , ", login, false),
        ] {
            assert_eq!(is_exempt(list, url), expected, "{list:?} {url}");
        }
    }

    proptest! {
        #[test]
        fn no_list_is_too_odd_to_read(list in "[ -~]{0,40}|\\PC{0,40}") {
            let _ = is_exempt(&list, "https://login.example/");
        }

        #[test]
        fn an_entry_does_not_change_what_others_exempt(other in "[a-z0-9.:/\\[\\]-]{0,20}") {
            let list = format!("{other} login.example,{other}");
            prop_assert!(is_exempt(&list, "https://login.example/"));
        }
    }
}
