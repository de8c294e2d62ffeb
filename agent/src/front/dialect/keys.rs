//! What a caller of an identity endpoint has to know: it is made for one `run`, and goes with it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use jobcred_wire::Secret;

use super::{app_service, azure_ml, imds, on_behalf_of};
use crate::config::Dialect;

/// Random bytes of a secret and of a prefix.
const BYTES: usize = 32;

/// What tells those who may ask from those who cannot: the secret for the dialects that have a header for it, the prefix of all
/// paths for those that have none.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Sent in a header.
    pub secret: Secret,
    /// The first segment of the path; `None` where the dialects without a secret are off.
    pub prefix: Option<Secret>,
}

/// A variable for COMMAND. Its value may be a secret.
pub type Variable = (&'static str, String);

impl Keys {
    /// New ones. `None` where the system has no randomness.
    #[must_use]
    pub fn generate(dialects: &[Dialect]) -> Option<Self> {
        let wants_prefix = dialects.iter().any(|dialect| !dialect.has_secret());
        Some(Self {
            secret: random()?,
            prefix: if wants_prefix { Some(random()?) } else { None },
        })
    }

    /// What leads SDKs to `dialect` at `address`: the endpoint first.
    #[must_use]
    pub fn variables(&self, dialect: Dialect, address: SocketAddr) -> Vec<Variable> {
        let secret = self.secret.expose().to_owned();
        let base = format!("http://{address}");
        let hidden = |path: &str| {
            let prefix = self.prefix.as_ref()?;
            Some(format!("{base}/{}{path}", prefix.expose()))
        };
        match dialect {
            Dialect::AppService => vec![
                ("IDENTITY_ENDPOINT", format!("{base}{}", app_service::PATH)),
                ("IDENTITY_HEADER", secret),
            ],
            Dialect::AzureMl => vec![
                ("MSI_ENDPOINT", format!("{base}{}", azure_ml::PATH)),
                ("MSI_SECRET", secret),
            ],
            Dialect::OnBehalfOf => hidden(on_behalf_of::PATH)
                .map(|url| ("OBO_ENDPOINT", url))
                .into_iter()
                .collect(),
            Dialect::Imds => hidden(imds::BASE)
                .map(|url| ("AZURE_POD_IDENTITY_AUTHORITY_HOST", url))
                .into_iter()
                .collect(),
        }
    }
}

fn random() -> Option<Secret> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).ok()?;
    let mut text = String::with_capacity(2 * BYTES);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::Keys;
    use crate::config::Dialect;

    #[test]
    fn every_dialect_has_its_variables_and_only_asked_for_ones_a_prefix() {
        let address = "127.0.0.1:4567".parse().unwrap();
        let keys = Keys::generate(&[Dialect::AppService, Dialect::AzureMl]).unwrap();
        assert!(keys.prefix.is_none());
        assert!(keys.variables(Dialect::Imds, address).is_empty());
        assert!(keys.variables(Dialect::OnBehalfOf, address).is_empty());
        let pair = keys.variables(Dialect::AppService, address);
        assert_eq!(pair[0].1, "http://127.0.0.1:4567/msi/token");
        assert_eq!(pair[1].1, keys.secret.expose());
        assert_eq!(keys.secret.expose().len(), 64);

        let other = Keys::generate(&[Dialect::Imds]).unwrap();
        assert_ne!(other.secret, keys.secret);
        let prefix = other.prefix.as_ref().unwrap().expose().to_owned();
        assert_ne!(prefix, other.secret.expose());
        assert_eq!(
            other.variables(Dialect::Imds, address),
            [(
                "AZURE_POD_IDENTITY_AUTHORITY_HOST",
                format!("http://127.0.0.1:4567/{prefix}")
            )]
        );
        assert_eq!(
            other.variables(Dialect::OnBehalfOf, address),
            [(
                "OBO_ENDPOINT",
                format!("http://127.0.0.1:4567/{prefix}/OBO/token")
            )]
        );
    }
}
