//! Certificates for a test: a CA, and leaves that it signs.
//!
//! A CA and a leaf, since rustls refuses a CA certificate as a server's own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The names that the doubles and the emulators behind them go by.
pub const USUAL_NAMES: [&str; 11] = [
    "127.0.0.1",
    "::1",
    "localhost",
    "login.microsoftonline.com",
    "management.azure.com",
    "*.azurecr.io",
    "*.azurecr.cn",
    "*.azurecr.us",
    "*.blob.core.windows.net",
    "*.dfs.core.windows.net",
    "devstoreaccount1.blob.core.windows.net",
];

/// A certification authority made for one test.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl fmt::Debug for TestCa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestCa").finish_non_exhaustive()
    }
}

impl TestCa {
    /// A new authority with a key of its own.
    pub fn new() -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.distinguished_name = named("jobcred tests CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A server certificate for these DNS names and IP addresses (a name that parses as an address is one).
    pub fn leaf<S: AsRef<str>>(&self, names: &[S]) -> io::Result<Leaf> {
        let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name = named("jobcred tests server");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(io::Error::other)?;
        Ok(Leaf {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// A leaf for [`USUAL_NAMES`].
    pub fn usual_leaf(&self) -> io::Result<Leaf> {
        self.leaf(&USUAL_NAMES)
    }

    /// Writes `ca.pem` into `directory` for other processes.
    pub fn write_to(&self, directory: &Path) -> io::Result<PathBuf> {
        let path = directory.join("ca.pem");
        std::fs::write(&path, &self.pem)?;
        Ok(path)
    }
}

/// A server's certificate and key.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS #8 in PEM.
    pub key_pem: String,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Leaf").finish_non_exhaustive()
    }
}

impl Leaf {
    /// What a rustls server needs to serve it; HTTP/1.1 only.
    pub fn server_config(&self) -> io::Result<Arc<ServerConfig>> {
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Writes `leaf.pem` and `leaf.key` (mode 0600) into `directory`; returns their paths.
    pub fn write_to(&self, directory: &Path) -> io::Result<(PathBuf, PathBuf)> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let (certificate, key) = (directory.join("leaf.pem"), directory.join("leaf.key"));
        std::fs::write(&certificate, &self.certificate_pem)?;
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&key)?
            .write_all(self.key_pem.as_bytes())?;
        Ok((certificate, key))
    }
}

pub(crate) fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
