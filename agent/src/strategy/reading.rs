//! What a variable's text means: an id, an address that may be asked, a placeholder, or nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::principal::is_guid;

/// Where the instance metadata service is on every Azure machine.
pub(super) const IMDS: &str = "http://169.254.169.254";

/// A variable that should hold a GUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Id {
    /// Unset or empty.
    Absent,
    /// Set to anything that is no GUID, such as the literal `clientid` that Azure ML writes where there is no identity.
    Placeholder,
    /// A GUID, lower case.
    Guid(String),
}

impl Id {
    pub(super) fn read(value: Option<&str>) -> Self {
        match value {
            None => Self::Absent,
            Some(text) if is_guid(text) => Self::Guid(text.to_ascii_lowercase()),
            Some(_) => Self::Placeholder,
        }
    }

    pub(super) fn guid(&self) -> Option<&str> {
        match self {
            Self::Guid(guid) => Some(guid),
            Self::Absent | Self::Placeholder => None,
        }
    }
}

/// Whether what is no GUID was meant as one: most of the 32 digits are there, and not only zeros, which stand for nobody.
pub(super) fn is_meant_as_guid(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    (24..=40).contains(&digits.len()) && digits.iter().any(|digit| *digit != b'0')
}

/// A variable that should hold an endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// Unset or empty.
    Absent,
    /// Set to something that is no URL at all, such as `identity-responder-not-enabled`.
    Placeholder,
    /// A URL that must not be asked, and why: a clause that follows the variable's name.
    Invalid(&'static str),
    /// A URL that may be asked.
    Usable(Url),
}

impl Address {
    /// Reads an endpoint. A secret goes to it, so plain http is accepted only where it stays on the machine or its
    /// private network.
    pub(super) fn read(value: Option<&str>) -> Self {
        let Some(text) = value.map(str::trim).filter(|text| !text.is_empty()) else {
            return Self::Absent;
        };
        // `host:port/path` parses as a URL with the scheme `host`.
        if !text.contains("://") {
            return Self::Placeholder;
        }
        let Ok(url) = Url::parse(text) else {
            return Self::Invalid("cannot be read as a URL");
        };
        match check(&url) {
            Ok(()) => Self::Usable(url),
            Err(why) => Self::Invalid(why),
        }
    }
}

fn check(url: &Url) -> Result<(), &'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has user information in it");
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(()),
        "http" if is_near(url) => Ok(()),
        "http" => Err("is plain http to an address outside this machine and its private network"),
        _ => Err("is neither http nor https"),
    }
}

/// Whether a URL's host is this machine, its link or its private network, as a literal address or as `localhost`. A
/// name would have to be resolved, and then anybody who answers could be asked.
fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(ip)) => is_near_v4(ip),
        Some(Host::Ipv6(ip)) => is_near_v6(ip),
        None => false,
    }
}

fn is_near_v4(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.is_link_local() || ip.is_private()
}

fn is_near_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback()
        || ip.is_unicast_link_local()
        || ip.is_unique_local()
        || ip.to_ipv4_mapped().is_some_and(is_near_v4)
}

/// Whether `url` is IMDS itself.
pub(super) fn is_imds(url: &Url) -> bool {
    url.host() == Some(Host::Ipv4(Ipv4Addr::new(169, 254, 169, 254)))
}

/// An issuer: https, without user information.
pub(super) fn authority(text: &str) -> Option<Url> {
    let text = text.trim();
    // SDKs accept a bare host here.
    let url = if text.contains("://") {
        Url::parse(text).ok()?
    } else {
        Url::parse(&format!("https://{text}")).ok()?
    };
    (url.scheme() == "https" && check(&url).is_ok()).then_some(url)
}

/// Whether `text` may stand in an issuer's path as a tenant: a GUID or a domain name.
pub(super) fn is_tenant(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::{Address, Id, authority, is_tenant};

    #[test]
    fn only_guids_are_ids() {
        let guid = "0A1B2C3D-0000-4000-8000-00000000000F";
        assert_eq!(
            Id::read(Some(guid)),
            Id::Guid("0a1b2c3d-0000-4000-8000-00000000000f".to_owned())
        );
        for text in [
            "clientid",
            "00000000-0000-0000-0000-000000000000",
            "0a1b2c3d00004000800000000000000f",
            "0a1b2c3d-0000-4000-8000-00000000000g",
            " 0a1b2c3d-0000-4000-8000-00000000000f",
            "{0a1b2c3d-0000-4000-8000-00000000000f}",
            "0a1b2c3d-0000-4000-8000-0000000000\u{e9}",
        ] {
            assert_eq!(Id::read(Some(text)), Id::Placeholder, "{text}");
        }
    }

    #[test]
    fn addresses_that_may_be_asked() {
        for text in [
            "http://127.0.0.1:46808/MSI/auth",
            "http://localhost:46809/OBO/token",
            "http://[::1]:1/",
            "http://[::ffff:127.0.0.1]:1/",
            "http://[fd00::1]:1/",
            "http://169.254.131.2:8081/msi/token",
            "http://10.0.0.4/x",
            "https://identity.example.com/x",
        ] {
            assert!(
                matches!(Address::read(Some(text)), Address::Usable(_)),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_that_may_not() {
        for text in [
            "http://20.1.2.3/x",
            "http://identity.example.com/x",
            "http://localhost.example.com/x",
            "http://me:pw@127.0.0.1/x",
            "https://me@identity.example.com/x",
            "http://127.0.0.1:99999/x",
            "http://",
            "ftp://127.0.0.1/x",
            "file:///etc/passwd",
            "http://[::ffff:20.1.2.3]/",
            "http://0.0.0.0:46808/x",
        ] {
            assert!(
                matches!(Address::read(Some(text)), Address::Invalid(_)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_url_is_a_placeholder() {
        for text in [
            "identity-responder-not-enabled",
            "identity-responder-not-enabled/",
            "localhost:46808/MSI/auth",
        ] {
            assert_eq!(Address::read(Some(text)), Address::Placeholder, "{text}");
        }
        assert_eq!(Address::read(Some("  ")), Address::Absent);
    }

    #[test]
    fn issuers_and_tenants() {
        assert!(authority("https://login.microsoftonline.us/").is_some());
        assert!(authority("login.microsoftonline.com").is_some());
        assert!(authority("http://login.microsoftonline.com").is_none());
        assert!(authority("http://127.0.0.1").is_none());
        assert!(is_tenant("contoso.onmicrosoft.com"));
        for text in ["", "..", "a/b", "a?b", "a b"] {
            assert!(!is_tenant(text), "{text}");
        }
    }
}
