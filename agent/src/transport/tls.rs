//! The roots that TLS trusts, loaded when they are first needed.
//!
//! They are the system's store and all that is named besides: `SSL_CERT_FILE`, `SSL_CERT_DIR` and `ca_file` *add* roots. A left-over
//! variable is common (conda and build tools set them), so one without certificates is a warning and not an error.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{CertificateResult, ErrorKind, load_certs_from_paths};
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
/// The longest file of named roots that is read, in bytes. The bundles of distributions have less than 1 MiB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

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

    /// A sentence for each path that adds no root because it cannot be found. Reads no file.
    fn missing(&self) -> Vec<String> {
        let files = [
            ("ca_file", &self.ca_file),
            ("SSL_CERT_FILE", &self.cert_file),
        ];
        let mut all: Vec<String> = files
            .into_iter()
            .filter_map(|(name, path)| missing(name, path.as_ref()?))
            .collect();
        // One that is there is enough.
        let directories = self.cert_dirs.iter();
        let lost: Option<Vec<String>> = directories
            .map(|path| missing("SSL_CERT_DIR", path))
            .collect();
        all.extend(lost.unwrap_or_default());
        all
    }

    /// Each name with the certificates that are there.
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
                load_directory(directory, &mut all);
            }
            keep_one_of_each(&mut all.certs);
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
                "{name} has no certificates{why} and is ignored; correct it or unset it"
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
    keep_one_of_each(&mut found);
    found
}

/// Directories of roots have several names for each file.
fn keep_one_of_each(certs: &mut Vec<CertificateDer<'static>>) {
    certs.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    certs.dedup();
}

/// Only a regular file is read, because a pipe would never end.
fn load_file(path: &Path) -> CertificateResult {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => CertificateResult::default(),
        Ok(found) if found.len() > MAX_FILE => {
            let mut nothing = CertificateResult::default();
            let limit = MAX_FILE / 1024 / 1024;
            let error = io::Error::other(format!("the file is larger than {limit} MiB"));
            nothing.errors.push(cannot_read(path, error));
            nothing
        }
        _ => load_certs_from_paths(Some(path), None),
    }
}

fn load_directory(directory: &Path, all: &mut CertificateResult) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return all.errors.push(cannot_read(directory, error)),
    };
    for entry in entries {
        match entry {
            Ok(entry) => {
                let found = load_file(&entry.path());
                all.certs.extend(found.certs);
                all.errors.extend(found.errors);
            }
            Err(error) => all.errors.push(cannot_read(directory, error)),
        }
    }
}

fn cannot_read(path: &Path, inner: io::Error) -> rustls_native_certs::Error {
    rustls_native_certs::Error {
        context: "cannot be read",
        kind: ErrorKind::Io {
            inner,
            path: path.to_owned(),
        },
    }
}

/// What is said of a path that cannot be found.
fn missing(name: &str, path: &Path) -> Option<String> {
    let why = match path.try_exists() {
        Ok(true) => return None,
        Ok(false) => "is not there".to_owned(),
        Err(error) => format!("cannot be looked at: {error}"),
    };
    Some(format!("{name} names {}, which {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::PathBuf;

    use super::{MAX_FILE, NamedRoots, collect, load};
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
        let large = MAX_FILE + 1;
        fs::copy(&own.ca_file, place("large.pem")).unwrap();
        File::options()
            .write(true)
            .open(place("large.pem"))
            .unwrap()
            .set_len(large)
            .unwrap();
        fs::create_dir(place("large")).unwrap();
        fs::hard_link(place("large.pem"), place("large/own.pem")).unwrap();

        let (gone, below_a_file) = ("which is not there", "Not a directory");
        for (named, count, warned, missing) in [
            (NamedRoots::default(), 1, None, &[][..]),
            (dirs(&["no", "nor"]), 1, Some("SSL_CERT_DIR"), &[gone, gone]),
            (file(own.ca_file.clone()), 2, None, &[]),
            (dirs(&["full"]), 2, None, &[]),
            (dirs(&["no", "full"]), 2, None, &[]),
            // The same root by two names.
            (dirs(&["full", "full"]), 2, None, &[]),
            (configured(own.ca_file.clone()), 2, None, &[]),
            (file(place("no.pem")), 1, Some("SSL_CERT_FILE"), &[gone]),
            (file(place("text.pem")), 1, Some("SSL_CERT_FILE"), &[]),
            (
                file(place("text.pem/no.pem")),
                1,
                Some("SSL_CERT_FILE"),
                &[below_a_file],
            ),
            (file(place("empty.pem")), 1, Some("SSL_CERT_FILE"), &[]),
            (file(place("broken.pem")), 1, Some("SSL_CERT_FILE"), &[]),
            (file(place("large.pem")), 1, Some("SSL_CERT_FILE"), &[]),
            (file(place("full")), 1, Some("SSL_CERT_FILE"), &[]),
            (file(place("pipe")), 1, Some("SSL_CERT_FILE"), &[]),
            (dirs(&["empty"]), 1, Some("SSL_CERT_DIR"), &[]),
            (dirs(&["large"]), 1, Some("SSL_CERT_DIR"), &[]),
            (dirs(&["large", "full"]), 2, None, &[]),
            (dirs(&["no"]), 1, Some("SSL_CERT_DIR"), &[gone]),
            (dirs(&["text.pem"]), 1, Some("SSL_CERT_DIR"), &[]),
            (
                dirs(&["text.pem/no"]),
                1,
                Some("SSL_CERT_DIR"),
                &[below_a_file],
            ),
            (configured(place("no.pem")), 1, Some("ca_file"), &[gone]),
            (configured(place("text.pem")), 1, Some("ca_file"), &[]),
            (configured(place("large.pem")), 1, Some("ca_file"), &[]),
        ] {
            let (roots, warnings) = collect(&system, &named);
            assert_eq!(roots.len(), count, "{named:?}: {warnings:?}");
            assert_eq!(warnings.len(), usize::from(warned.is_some()), "{named:?}");
            for warning in &warnings {
                assert!(warning.starts_with(warned.unwrap()), "{warning}");
                let is_large = format!("{named:?}").contains("large");
                assert_eq!(warning.contains("larger than"), is_large, "{warning}");
            }
            assert!(load(&system, &named).is_ok());
            let said = named.missing();
            assert_eq!(said.len(), missing.len(), "{named:?}: {said:?}");
            for (said, why) in said.iter().zip(missing) {
                assert!(
                    said.starts_with(warned.unwrap()) && said.contains(why),
                    "{said}"
                );
            }
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
