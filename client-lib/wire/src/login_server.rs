//! A registry's login server, told apart from every host that only looks like one.
//!
//! A token sent to the wrong host is a token lost, so this is strict: anchored at both ends, ASCII only, no user
//! information, no address literals, no port but 443, no guessing. The credential helper and the agent read addresses
//! by the same code, so that neither can be talked into what the other refuses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Where Azure Container Registry puts its registries, one suffix per cloud: public, China, US Government and the
/// former German cloud, which every tool still lists.
pub const REGISTRY_SUFFIXES: [&str; 4] =
    [".azurecr.io", ".azurecr.cn", ".azurecr.us", ".azurecr.de"];

/// The longest address that is read at all, in bytes. Real ones, with a repository path, stay below 400.
pub const MAX_ADDRESS_BYTES: usize = 1024;

/// The port of https, and the only one unless a host is listed with another.
const HTTPS_PORT: u16 = 443;

/// A host with an optional port, reduced from any of the forms container tools use.
///
/// Says nothing about whether a credential may be sent there; [`LoginServer::parse`] does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryAddress {
    host: String,
    port: u16,
}

/// A login server: a host that may be given a credential.
///
/// The only ways to one are a known registry suffix and a host that the configuration lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoginServer {
    address: RegistryAddress,
    suffix: Option<&'static str>,
}

/// One host that the configuration serves besides the known suffixes.
///
/// `registry.contoso.com` is that host on port 443, `registry.contoso.com:5000` that host on that port, and
/// `.azurecr.contoso.local` (a leading dot) a suffix of a cloud of one's own, with the same host forms in front of it as
/// Azure has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedHost {
    address: RegistryAddress,
    is_suffix: bool,
}

/// Why an address is not a login server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginServerError {
    /// There is no host in it.
    Empty,
    /// It is longer than [`MAX_ADDRESS_BYTES`].
    TooLong,
    /// It is no plain host name: user information, an address literal, a scheme other than http and https, a character
    /// no host name has, a label too long.
    NotAHost,
    /// A registry's data endpoint: it serves redirects that carry their own permission and must never see a credential.
    DataEndpoint,
    /// Microsoft's public registry, which is read without credentials.
    PublicRegistry,
    /// The host would be served, but not on this port.
    Port,
    /// A host that is no registry of Azure's and that the configuration does not list.
    NotServed,
}

impl RegistryAddress {
    /// Reduces `text` to a host and a port: white space around it, the scheme, the path, the query, a trailing dot and
    /// upper case are taken off.
    pub fn parse(text: &str) -> Result<Self, LoginServerError> {
        if text.len() > MAX_ADDRESS_BYTES {
            return Err(LoginServerError::TooLong);
        }
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if is_web(scheme) => rest,
            // `://` further on belongs to a path or a query.
            Some((front, _)) if front.contains(['/', '?', '#']) => text,
            Some(_) => return Err(LoginServerError::NotAHost),
            None => text,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return Err(LoginServerError::Empty);
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (authority, HTTPS_PORT),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if !is_host_name(host) {
            return Err(LoginServerError::NotAHost);
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// The host, lower case, without a trailing dot.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 443 where none was given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl LoginServer {
    /// Reads an address and decides whether a credential may go there: it has a known registry suffix, or is `listed`.
    ///
    /// Data endpoints and Microsoft's public registry are refused even when listed.
    pub fn parse(text: &str, listed: &[ListedHost]) -> Result<Self, LoginServerError> {
        let address = RegistryAddress::parse(text)?;
        refuse_public(&address.host)?;
        let mut suffix = None;
        for known in REGISTRY_SUFFIXES {
            if has_login_form(&address.host, known)? {
                suffix = Some(known);
            }
        }
        let mut is_covered = suffix.is_some();
        let mut is_served = is_covered && address.port == HTTPS_PORT;
        for entry in listed {
            if entry.covers_host(&address.host)? {
                is_covered = true;
                is_served |= entry.address.port == address.port;
            }
        }
        match (is_served, is_covered) {
            (true, _) => Ok(Self { address, suffix }),
            (false, true) => Err(LoginServerError::Port),
            (false, false) => Err(LoginServerError::NotServed),
        }
    }

    /// The host, lower case, without a port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.address.host
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// Whether the host belongs to one of Azure's clouds, without any configuration.
    #[must_use]
    pub fn is_known_suffix(&self) -> bool {
        self.suffix.is_some()
    }

    /// The known suffix the host ends in, one of [`REGISTRY_SUFFIXES`]; it tells the cloud.
    #[must_use]
    pub fn suffix(&self) -> Option<&'static str> {
        self.suffix
    }
}

impl ListedHost {
    fn covers_host(&self, host: &str) -> Result<bool, LoginServerError> {
        if self.is_suffix {
            let suffix = host
                .len()
                .checked_sub(self.address.host.len() + 1)
                .and_then(|at| host.get(at..))
                .filter(|tail| {
                    tail.strip_prefix('.')
                        .is_some_and(|tail| tail == self.address.host)
                });
            return suffix.map_or(Ok(false), |suffix| has_login_form(host, suffix));
        }
        Ok(self.address.host == host)
    }
}

impl FromStr for ListedHost {
    type Err = LoginServerError;

    /// Reads one entry of the configuration. Only a bare host with an optional port, or a suffix with its leading dot:
    /// a path or a scheme in a list is a mistake worth reporting.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(['/', '?', '#']) || text != text.trim() {
            return Err(LoginServerError::NotAHost);
        }
        let (text, is_suffix) = text
            .strip_prefix('.')
            .map_or((text, false), |rest| (rest, true));
        let address = RegistryAddress::parse(text)?;
        refuse_public(&address.host)?;
        // A suffix of one label would cover a whole top-level domain.
        if is_suffix && !address.host.contains('.') {
            return Err(LoginServerError::NotAHost);
        }
        for suffix in REGISTRY_SUFFIXES {
            has_login_form(&address.host, suffix)?;
        }
        Ok(Self { address, is_suffix })
    }
}

impl fmt::Display for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.port == HTTPS_PORT {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

/// The host, followed by the port where it is not 443: the registry's name in a request and in its tokens.
impl fmt::Display for LoginServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Display for LoginServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no registry host is given",
            Self::TooLong => "the registry's address is too long",
            Self::NotAHost => "the registry's address is not a plain host name",
            Self::DataEndpoint => "this is a registry's data endpoint, which takes no credentials",
            Self::PublicRegistry => "this registry is public and takes no credentials",
            Self::Port => {
                "a registry is served on port 443 only, unless it is listed with its port"
            }
            Self::NotServed => "this host is no Azure container registry and is not listed",
        })
    }
}

impl std::error::Error for LoginServerError {}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

fn parse_port(text: &str) -> Result<u16, LoginServerError> {
    // `u16::from_str` takes a sign; a port has none.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(LoginServerError::NotAHost);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(LoginServerError::NotAHost),
        Ok(port) => Ok(port),
    }
}

/// RFC 1123, and no IPv4 address in any of the spellings a resolver takes (`127.1`, `0x7f000001`, `2130706433`): those
/// all have a last label that is a number.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .get(..2)
            .is_some_and(|front| front.eq_ignore_ascii_case("0x"));
    host.len() <= 253
        && host.split('.').all(is_label)
        && !is_number
        && host.parse::<Ipv4Addr>().is_err()
}

/// Whether `host` is a login server under `suffix` (which starts with a dot): `name`, `name-hash` (one label) or
/// `name.region.geo` in front of it. A data endpoint is an error, so that no caller can mistake it for another host.
fn has_login_form(host: &str, suffix: &str) -> Result<bool, LoginServerError> {
    let Some(front) = host.strip_suffix(suffix) else {
        return Ok(false);
    };
    let labels: Vec<&str> = front.split('.').collect();
    match labels.as_slice() {
        [.., "data"] | [_, "data", "geo"] => Err(LoginServerError::DataEndpoint),
        [name] | [name, _, "geo"] => Ok(!name.is_empty()),
        _ => Ok(false),
    }
}

fn refuse_public(host: &str) -> Result<(), LoginServerError> {
    const PUBLIC: &str = "mcr.microsoft.com";
    let is_public = host
        .strip_suffix(PUBLIC)
        .is_some_and(|front| front.is_empty() || front.ends_with('.'));
    if is_public {
        return Err(LoginServerError::PublicRegistry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ListedHost, LoginServer, LoginServerError, REGISTRY_SUFFIXES, RegistryAddress};

    fn listed(entries: &[&str]) -> Vec<ListedHost> {
        entries.iter().map(|entry| entry.parse().unwrap()).collect()
    }

    fn served(text: &str) -> Result<String, LoginServerError> {
        LoginServer::parse(text, &[]).map(|server| server.to_string())
    }

    #[test]
    fn every_form_of_an_address_is_one_host() {
        for text in [
            "myreg.azurecr.io",
            " myreg.azurecr.io\n",
            "MyReg.AzureCR.io",
            "myreg.azurecr.io.",
            "myreg.azurecr.io/",
            "myreg.azurecr.io:443",
            "myreg.azurecr.io.:443",
            "http://myreg.azurecr.io",
            "https://myreg.azurecr.io",
            "HTTPS://myreg.azurecr.io:443/v2/",
            "myreg.azurecr.io/team/app",
            "myreg.azurecr.io/team/app@sha256:0",
            "myreg.azurecr.io/v1/?next=https://evil.example",
            "myreg.azurecr.io?x=1",
            "myreg.azurecr.io#x",
        ] {
            assert_eq!(served(text).as_deref(), Ok("myreg.azurecr.io"), "{text}");
        }
    }

    #[test]
    fn every_cloud_and_form_of_name_is_known() {
        for host in [
            "myreg.azurecr.io",
            "myreg.azurecr.cn",
            "myreg.azurecr.us",
            "myreg.azurecr.de",
            "myreg-a1b2c3d4e5f6g7h8.azurecr.io",
            "myreg.westeurope.geo.azurecr.io",
            "myreg-a1b2c3.westeurope.geo.azurecr.io",
        ] {
            let server = LoginServer::parse(host, &[]).unwrap();
            assert!(server.is_known_suffix(), "{host}");
            assert_eq!(server.host(), host);
            assert_eq!(server.port(), 443);
            assert!(host.ends_with(server.suffix().unwrap()));
        }
    }

    #[test]
    fn hosts_that_only_look_like_a_registry_are_refused() {
        use LoginServerError::{
            DataEndpoint, Empty, NotAHost, NotServed, Port, PublicRegistry, TooLong,
        };
        let long_label = format!("{}.azurecr.io", "a".repeat(64));
        let long = format!("myreg.azurecr.io/{}", "a".repeat(2000));
        for (text, reason) in [
            ("evil.azurecr.io.attacker.com", NotServed),
            ("azurecr.io.attacker.com", NotServed),
            ("attacker.com/myreg.azurecr.io", NotServed),
            ("attacker.com?myreg.azurecr.io", NotServed),
            ("attacker.com#.azurecr.io", NotServed),
            ("https://attacker.com/https://myreg.azurecr.io", NotServed),
            ("myregazurecr.io", NotServed),
            ("azurecr.io", NotServed),
            (".azurecr.io", NotAHost),
            ("myreg.azurecr.io@evil.com", NotAHost),
            ("https://myreg.azurecr.io@evil.com", NotAHost),
            ("https://myreg.azurecr.io:x@evil.com", NotAHost),
            ("user:pass@myreg.azurecr.io", NotAHost),
            ("evil.com\\.azurecr.io", NotAHost),
            ("evil.com%2f.azurecr.io", NotAHost),
            ("evil.com%00.azurecr.io", NotAHost),
            ("evil.com\0.azurecr.io", NotAHost),
            ("evil.com\n.azurecr.io", NotAHost),
            ("evil com.azurecr.io", NotAHost),
            ("evil.com,.azurecr.io", NotAHost),
            ("evil_com.azurecr.io", NotAHost),
            ("-evil.azurecr.io", NotAHost),
            ("myreg..azurecr.io", NotAHost),
            ("myreg.azurecr.io..", NotAHost),
            ("*.azurecr.io", NotAHost),
            ("a.b.azurecr.io", NotServed),
            ("myreg.privatelink.azurecr.io", NotServed),
            ("a.b.c.geo.azurecr.io", NotServed),
            ("myreg.westeurope.data.azurecr.io", DataEndpoint),
            ("MYREG.WESTEUROPE.DATA.AZURECR.IO.", DataEndpoint),
            ("data.azurecr.io", DataEndpoint),
            ("myreg.data.geo.azurecr.io", DataEndpoint),
            ("mcr.microsoft.com", PublicRegistry),
            ("https://mcr.microsoft.com/v2/", PublicRegistry),
            ("westeurope.data.mcr.microsoft.com", PublicRegistry),
            ("notmcr.microsoft.com", NotServed),
            ("myreg.azurecr.io:5000", Port),
            ("myreg.azurecr.io:80", Port),
            ("myreg.azurecr.io:", NotAHost),
            ("myreg.azurecr.io:0", NotAHost),
            ("myreg.azurecr.io:+443", NotAHost),
            ("myreg.azurecr.io:65536", NotAHost),
            ("myreg.azurecr.io:443:443", NotAHost),
            ("myreg.azurecr.io:443@evil.com", NotAHost),
            ("ftp://myreg.azurecr.io", NotAHost),
            ("https://https://myreg.azurecr.io", NotAHost),
            ("//myreg.azurecr.io", Empty),
            ("https:///myreg.azurecr.io", Empty),
            ("127.0.0.1", NotAHost),
            ("127.0.0.1:443", NotAHost),
            ("127.1", NotAHost),
            ("2130706433", NotAHost),
            ("0x7f000001", NotAHost),
            ("1.2.3.0x4", NotAHost),
            ("[::1]", NotAHost),
            ("[::1]:443", NotAHost),
            ("::1", NotAHost),
            // Unicode that folds to or looks like the real thing: a full-width dot, a Kelvin sign, Cyrillic letters.
            ("myreg\u{ff0e}azurecr.io", NotAHost),
            ("myreg.azurecr\u{3002}io", NotAHost),
            ("\u{212a}reg1.azurecr.io", NotAHost),
            ("myreg.\u{430}zurecr.io", NotAHost),
            ("myreg.azurecr.io\u{200b}", NotAHost),
            ("", Empty),
            ("  ", Empty),
            ("/", Empty),
            ("https://", Empty),
            ("https://index.docker.io/v1/", NotServed),
            ("ghcr.io", NotServed),
            ("localhost:5000", NotServed),
            (long_label.as_str(), NotAHost),
            (long.as_str(), TooLong),
        ] {
            assert_eq!(served(text), Err(reason), "{text:.80}");
        }
    }

    #[test]
    fn listed_hosts_are_served_as_they_are_listed() {
        let list = listed(&[
            "registry.contoso.com",
            "localhost:5000",
            ".azurecr.contoso.local",
            "myreg.azurecr.io:8443",
        ]);
        for (text, expected) in [
            ("registry.contoso.com", Ok("registry.contoso.com")),
            ("REGISTRY.contoso.com:443/x", Ok("registry.contoso.com")),
            ("registry.contoso.com:5000", Err(LoginServerError::Port)),
            ("x.registry.contoso.com", Err(LoginServerError::NotServed)),
            ("localhost:5000", Ok("localhost:5000")),
            ("localhost", Err(LoginServerError::Port)),
            ("a1.azurecr.contoso.local", Ok("a1.azurecr.contoso.local")),
            (
                "a1.east.geo.azurecr.contoso.local",
                Ok("a1.east.geo.azurecr.contoso.local"),
            ),
            (
                "a1.east.data.azurecr.contoso.local",
                Err(LoginServerError::DataEndpoint),
            ),
            ("xazurecr.contoso.local", Err(LoginServerError::NotServed)),
            ("azurecr.contoso.local", Err(LoginServerError::NotServed)),
            ("myreg.azurecr.io:8443", Ok("myreg.azurecr.io:8443")),
            ("other.azurecr.io:8443", Err(LoginServerError::Port)),
            ("other.azurecr.io", Ok("other.azurecr.io")),
        ] {
            let server = LoginServer::parse(text, &list).map(|server| server.to_string());
            assert_eq!(
                server.as_deref().map_err(|error| *error),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn entries_that_would_serve_too_much_are_refused() {
        for entry in [
            "",
            ".",
            ".com",
            "*.contoso.com",
            "https://registry.contoso.com",
            "registry.contoso.com/",
            " registry.contoso.com",
            "10.0.0.1",
            "10.0.0.1:5000",
            "mcr.microsoft.com",
            "a.data.azurecr.io",
            "user@registry.contoso.com",
        ] {
            assert!(entry.parse::<ListedHost>().is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>(), entry in any::<String>()) {
            let list: Vec<ListedHost> = entry.parse().into_iter().collect();
            let _ = LoginServer::parse(&text, &list);
        }

        /// Whatever is put together from the pieces of an attack, what is served ends in a known suffix, is a plain host
        /// and reads back as itself.
        #[test]
        fn what_is_served_is_a_plain_host_under_a_known_suffix(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("azurecr.io"), Just("."), Just("@"), Just(":"), Just("/"), Just("443"), Just("evil"),
                    Just("data"), Just("geo"), Just("myreg"), Just("https://"), Just("\\"), Just("#"), Just("?"),
                    Just("%2e"), Just("-"), Just(" "), Just("\u{ff0e}"), Just("com"), Just("A"),
                ],
                0..12,
            )
        ) {
            if let Ok(server) = LoginServer::parse(&parts.concat(), &[]) {
                prop_assert!(REGISTRY_SUFFIXES.iter().any(|suffix| server.host().ends_with(suffix)));
                prop_assert!(server.host().bytes().all(
                    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'));
                prop_assert!(!server.host().contains(".data."));
                prop_assert_eq!(server.port(), 443);
                let again = LoginServer::parse(&server.to_string(), &[]);
                prop_assert_eq!(again.as_ref(), Ok(&server));
            }
        }

        #[test]
        fn an_address_reads_back_as_itself(host in "[a-z][a-z0-9]{0,9}(\\.[a-z][a-z0-9]{0,9}){0,3}", port in 1u16..) {
            let address = RegistryAddress::parse(&format!("{host}:{port}")).unwrap();
            prop_assert_eq!(address.host(), host.as_str());
            prop_assert_eq!(address.port(), port);
            prop_assert_eq!(RegistryAddress::parse(&address.to_string()), Ok(address));
        }
    }
}
