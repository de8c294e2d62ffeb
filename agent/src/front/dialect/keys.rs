//! What a caller of an identity endpoint has to know: it is made for one `run`, and goes with it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use jobcred_wire::Secret;
use subtle::ConstantTimeEq as _;

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

/// The names of what leads SDKs to a dialect: the endpoint's first.
#[must_use]
pub const fn names_of(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::AppService => &["IDENTITY_ENDPOINT", "IDENTITY_HEADER"],
        Dialect::AzureMl => &["MSI_ENDPOINT", "MSI_SECRET"],
        Dialect::OnBehalfOf => &["OBO_ENDPOINT"],
        Dialect::Imds => &["AZURE_POD_IDENTITY_AUTHORITY_HOST"],
    }
}

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

    /// Those by which [`Self::variables`] were made that `value` looks up. `None` where none are found that could be ours.
    #[must_use]
    pub fn found(value: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let is_random = |text: &String| {
            text.len() == 2 * BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let of = |dialect: Dialect, at: usize| value(names_of(dialect).get(at)?);
        let secret = of(Dialect::AppService, 1).or_else(|| of(Dialect::AzureMl, 1));
        let hidden = of(Dialect::Imds, 0).or_else(|| of(Dialect::OnBehalfOf, 0));
        let prefix = hidden.and_then(|url| Some(url.split('/').nth(3)?.to_owned()));
        let (secret, prefix) = (secret.filter(is_random), prefix.filter(is_random));
        if secret.is_none() && prefix.is_none() {
            return None;
        }
        Some(Self {
            // Where it is not said it was not used.
            secret: secret.map_or_else(random, |text| Some(Secret::new(text)))?,
            prefix: prefix.map(Secret::new),
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
        let values = match dialect {
            Dialect::AppService => vec![format!("{base}{}", app_service::PATH), secret],
            Dialect::AzureMl => vec![format!("{base}{}", azure_ml::PATH), secret],
            Dialect::OnBehalfOf => hidden(on_behalf_of::PATH).into_iter().collect(),
            Dialect::Imds => hidden(imds::BASE).into_iter().collect(),
        };
        names_of(dialect).iter().copied().zip(values).collect()
    }
}

/// Whether `given` is the secret, told in a time that does not tell how much of it is right.
#[must_use]
pub(super) fn is_secret(given: &[u8], secret: &Secret) -> bool {
    !secret.is_empty() && bool::from(given.ct_eq(secret.expose().as_bytes()))
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
    use jobcred_wire::Secret;

    use super::{Keys, is_secret};
    use crate::config::Dialect;

    #[test]
    fn secrets_are_compared_whole() {
        let secret = Secret::from("0123456789abcdef");
        assert!(is_secret(b"0123456789abcdef", &secret));
        for given in [
            "",
            "0123456789abcde",
            "0123456789abcdefg",
            "1123456789abcdef",
        ] {
            assert!(!is_secret(given.as_bytes(), &secret), "{given}");
        }
        assert!(!is_secret(b"", &Secret::default()));
    }

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
        for keys in [&keys, &other] {
            let all: Vec<_> = Dialect::ALL
                .iter()
                .flat_map(|dialect| keys.variables(*dialect, address))
                .collect();
            let value = |name: &str| {
                let found = all.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.clone())
            };
            let found = Keys::found(value).unwrap();
            assert_eq!((&found.secret, &found.prefix), (&keys.secret, &keys.prefix));
        }
        assert!(Keys::found(|_| None).is_none());
        assert!(Keys::found(|_| Some("short".to_owned())).is_none());
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
