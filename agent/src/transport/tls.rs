//! Whom TLS trusts, loaded when it is first needed.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::OnceCell;

use super::error::{TransportError, TransportSetupError};
use crate::platform::Files;

/// The largest file of roots; a whole distribution's bundle is 220 KB.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;

/// The client side of TLS. Holds nothing until the first connection: an agent that talks plain http to its identity
/// endpoint should not pay for a hundred and fifty certificates.
#[derive(Debug)]
pub(super) struct Tls {
    ca_file: Option<PathBuf>,
    files: Files,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(ca_file: Option<PathBuf>, files: Files) -> Result<Self, TransportSetupError> {
        if let Some(path) = &ca_file {
            files
                .read_text(path, MAX_CA_FILE)
                .map_err(|source| TransportSetupError {
                    path: path.display().to_string(),
                    source,
                })?;
        }
        Ok(Self {
            ca_file,
            files,
            config: OnceCell::new(),
        })
    }

    /// The configuration; a failure to load it is tried again with the next request.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, TransportError> {
        self.config
            .get_or_try_init(|| async {
                let (ca_file, files) = (self.ca_file.clone(), self.files.clone());
                // Reading and parsing a bundle takes milliseconds that cached tokens should not wait for.
                tokio::task::spawn_blocking(move || load(ca_file, &files))
                    .await
                    .map_err(|error| TransportError::roots(error.to_string()))?
            })
            .await
            .cloned()
    }
}

fn load(ca_file: Option<PathBuf>, files: &Files) -> Result<Arc<ClientConfig>, TransportError> {
    let (place, found, problem) = if let Some(path) = ca_file {
        let place = path.display().to_string();
        let text = files.read_text(&path, MAX_CA_FILE).map_err(|error| {
            TransportError::roots(format!("the roots in {place} cannot be read: {error}"))
        })?;
        let found = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| {
                TransportError::roots(format!("{place} is no PEM file of certificates: {error}"))
            })?;
        (place, found, None)
    } else {
        // Honours SSL_CERT_FILE and SSL_CERT_DIR. Errors for single files are no reason to give up the others.
        let loaded = rustls_native_certs::load_native_certs();
        let problem = loaded.errors.first().map(ToString::to_string);
        ("the system's store".to_owned(), loaded.certs, problem)
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        let reason = problem.map_or_else(String::new, |problem| format!(" ({problem})"));
        return Err(TransportError::roots(format!(
            "there are no roots to trust in {place}{reason}"
        )));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::roots(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
