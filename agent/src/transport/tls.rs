//! The roots that TLS trusts, loaded when they are first needed.
//!
//! They are the system's store and all that is named besides: `SSL_CERT_FILE`, `SSL_CERT_DIR` and `ca_file` *add* roots. A left-over
//! variable is common (conda and build tools set them), so one that leads to no certificate is a warning and not an error.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{CertificateResult, load_certs_from_paths};
use rustls_pki_types::CertificateDer;
use tokio::sync::OnceCell;

use super::error::TransportError;
use crate::platform::Environment;

/// Where distributions have their bundle; the first one that exists counts. Source: `crypto/x509/root_linux.go` of Go, which
/// reads the same. Not by rustls-native-certs: it reads `SSL_CERT_FILE` in the place of these.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Directories of single certificates.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Roots that are named besides the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedRoots {
    /// `ca_file` of the configuration.
    pub ca_file: Option<PathBuf>,
    /// `SSL_CERT_FILE`.
    pub cert_file: Option<PathBuf>,
    /// The directories in `SSL_CERT_DIR`.
    pub cert_dirs: Vec<PathBuf>,
}

impl NamedRoots {
    /// An empty variable is an unset one.
    #[must_use]
    pub fn of(environment: &Environment, ca_file: Option<PathBuf>) -> Self {
        let directories = environment.get("SSL_CERT_DIR").unwrap_or_default();
        Self {
            ca_file,
            cert_file: environment.get("SSL_CERT_FILE").map(PathBuf::from),
            cert_dirs: std::env::split_paths(directories)
                .filter(|path| !path.as_os_str().is_empty())
                .collect(),
        }
    }

    /// A sentence for each name that leads to nothing at all. Reads no file.
    fn missing(&self) -> Vec<String> {
        let is_lost = |path: &PathBuf| !path.exists();
        let file = |name: &str, path: &Option<PathBuf>| {
            let path = path.as_ref().filter(|path| is_lost(path))?;
            Some(format!(
                "{name} names {}, which is not there",
                path.display()
            ))
        };
        let directories = &self.cert_dirs;
        let all_lost = !directories.is_empty() && directories.iter().all(is_lost);
        [
            file("ca_file", &self.ca_file),
            file("SSL_CERT_FILE", &self.cert_file),
            all_lost.then(|| "SSL_CERT_DIR names no directory that is there".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Each name with what it leads to.
    fn load(&self) -> Vec<(&'static str, CertificateResult)> {
        let mut loaded = Vec::new();
        for (name, file) in [
            ("ca_file", &self.ca_file),
            ("SSL_CERT_FILE", &self.cert_file),
        ] {
            if let Some(file) = file {
                loaded.push((name, load_file(file)));
            }
        }
        if !self.cert_dirs.is_empty() {
            let mut all = CertificateResult::default();
            for directory in &self.cert_dirs {
                let found = load_certs_from_paths(None, Some(directory));
                all.certs.extend(found.certs);
                all.errors.extend(found.errors);
            }
            loaded.push(("SSL_CERT_DIR", all));
        }
        loaded
    }
}

/// The client side of TLS. Holds nothing until the first connection: an agent that talks plain http to its identity
/// endpoint should not pay for a hundred and fifty certificates.
#[derive(Debug)]
pub(super) struct Tls {
    named: NamedRoots,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(named: NamedRoots) -> Self {
        Self {
            named,
            config: OnceCell::new(),
        }
    }

    /// See [`NamedRoots::missing`].
    pub(super) fn missing(&self) -> Vec<String> {
        self.named.missing()
    }

    /// The configuration; a failure to load it is tried again with the next request.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, TransportError> {
        self.config
            .get_or_try_init(|| async {
                let named = self.named.clone();
                // Reading and parsing a bundle takes milliseconds that cached tokens should not wait for.
                tokio::task::spawn_blocking(move || load(&system_roots(), &named))
                    .await
                    .map_err(|error| TransportError::roots(error.to_string()))?
            })
            .await
            .cloned()
    }
}

fn load(
    system: &[CertificateDer<'static>],
    named: &NamedRoots,
) -> Result<Arc<ClientConfig>, TransportError> {
    let (roots, warnings) = collect(system, named);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if roots.is_empty() {
        let mut message = "there are no roots to trust: the system has no store of them".to_owned();
        for warning in &warnings {
            // Writing to a String cannot fail.
            let _ = write!(message, "; {warning}");
        }
        return Err(TransportError::roots(message));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::roots(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// All roots, and a warning for each name that adds none.
fn collect(system: &[CertificateDer<'static>], named: &NamedRoots) -> (RootCertStore, Vec<String>) {
    let mut roots = RootCertStore::empty();
    let mut warnings = Vec::new();
    roots.add_parsable_certificates(system.iter().cloned());
    for (name, found) in named.load() {
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found
                .errors
                .first()
                .map_or_else(String::new, |error| format!(" ({error})"));
            warnings.push(format!(
                "{name} leads to no certificates{why} and is ignored; correct it or unset it"
            ));
        }
    }
    (roots, warnings)
}

fn system_roots() -> Vec<CertificateDer<'static>> {
    let file = SYSTEM_FILES
        .iter()
        .map(Path::new)
        .find(|path| path.is_file());
    let mut found = load_certs_from_paths(file, None).certs;
    for directory in SYSTEM_DIRECTORIES.iter().map(Path::new) {
        if directory.is_dir() {
            found.extend(load_certs_from_paths(None, Some(directory)).certs);
        }
    }
    found.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    found.dedup();
    found
}

/// Only a regular file is read: one that is a pipe would never end.
fn load_file(path: &Path) -> CertificateResult {
    if path.exists() && !path.is_file() {
        return CertificateResult::default();
    }
    load_certs_from_paths(Some(path), None)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::{NamedRoots, collect, load};
    use crate::platform::Environment;
    use crate::transport::FailureKind;
    use crate::transport::testing::TestAuthority;

    #[test]
    fn c2_an_empty_variable_is_an_unset_one() {
        let environment = Environment::from([("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", "")]);
        assert_eq!(NamedRoots::of(&environment, None), NamedRoots::default());
        let environment = Environment::from([("SSL_CERT_FILE", "/a"), ("SSL_CERT_DIR", ":/b:/c")]);
        let named = NamedRoots::of(&environment, None);
        assert_eq!(named.cert_file, Some(PathBuf::from("/a")));
        assert_eq!(named.cert_dirs, [PathBuf::from("/b"), PathBuf::from("/c")]);
    }

    #[test]
    fn c2_roots_that_are_named_are_added_and_bad_ones_are_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let own = TestAuthority::new();
        let system = super::load_file(&TestAuthority::new().ca_file).certs;
        assert_eq!(system.len(), 1);
        fs::write(place("text.pem"), "no certificate here").unwrap();
        fs::write(place("empty.pem"), "").unwrap();
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        fs::write(place("broken.pem"), broken).unwrap();
        fs::create_dir(place("empty")).unwrap();
        fs::create_dir(place("full")).unwrap();
        fs::copy(&own.ca_file, place("full/own.pem")).unwrap();
        // What else lies there does not matter.
        fs::write(place("full/README"), "\u{fffd}").unwrap();
        nix::unistd::mkfifo(&place("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();

        let file = |path: PathBuf| NamedRoots {
            cert_file: Some(path),
            ..NamedRoots::default()
        };
        let dirs = |paths: &[&str]| NamedRoots {
            cert_dirs: paths.iter().map(|path| place(path)).collect(),
            ..NamedRoots::default()
        };
        let configured = |path: PathBuf| NamedRoots {
            ca_file: Some(path),
            ..NamedRoots::default()
        };
        for (named, count, warned) in [
            (NamedRoots::default(), 1, None),
            (dirs(&["missing", "missing too"]), 1, Some("SSL_CERT_DIR")),
            (file(own.ca_file.clone()), 2, None),
            (dirs(&["full"]), 2, None),
            (dirs(&["missing", "full"]), 2, None),
            (configured(own.ca_file.clone()), 2, None),
            (file(place("missing.pem")), 1, Some("SSL_CERT_FILE")),
            (file(place("text.pem")), 1, Some("SSL_CERT_FILE")),
            (file(place("empty.pem")), 1, Some("SSL_CERT_FILE")),
            (file(place("broken.pem")), 1, Some("SSL_CERT_FILE")),
            (file(place("full")), 1, Some("SSL_CERT_FILE")),
            (file(place("pipe")), 1, Some("SSL_CERT_FILE")),
            (dirs(&["empty"]), 1, Some("SSL_CERT_DIR")),
            (dirs(&["missing"]), 1, Some("SSL_CERT_DIR")),
            (dirs(&["text.pem"]), 1, Some("SSL_CERT_DIR")),
            (configured(place("missing.pem")), 1, Some("ca_file")),
            (configured(place("text.pem")), 1, Some("ca_file")),
        ] {
            let (roots, warnings) = collect(&system, &named);
            assert_eq!(roots.len(), count, "{named:?}: {warnings:?}");
            assert_eq!(warnings.len(), usize::from(warned.is_some()), "{named:?}");
            for warning in &warnings {
                assert!(warning.starts_with(warned.unwrap()), "{warning}");
            }
            assert!(load(&system, &named).is_ok());
            let is_missing = format!("{named:?}").contains("missing") && warned.is_some();
            assert_eq!(named.missing().len(), usize::from(is_missing), "{named:?}");
        }
    }

    #[test]
    fn c2_without_any_roots_the_message_says_what_was_looked_at() {
        let named = NamedRoots {
            cert_file: Some("/no/such/file.pem".into()),
            ..NamedRoots::default()
        };
        let error = load(&[], &named).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Roots);
        let said = error.to_string();
        assert!(
            said.contains("the system has no store") && said.contains("SSL_CERT_FILE"),
            "{said}"
        );
        assert!(said.contains("/no/such/file.pem"), "{said}");
        assert!(error.hint().contains("ca-certificates"));
    }
}
