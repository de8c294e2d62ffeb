//! The registry's signature: ES256 tokens with an `x5c` header, as a distribution registry verifies them.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use serde_json::{Value, json};

use crate::ca::named;

/// A key and its self-signed certificate.
pub(crate) struct Signer {
    key: KeyPair,
    certificate_pem: String,
    header: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    pub(crate) fn new() -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params =
            CertificateParams::new(vec!["registry-tokens".to_owned()]).map_err(io::Error::other)?;
        params.distinguished_name = named("registry tokens");
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        let header =
            json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(certificate.der())]});
        Ok(Self {
            key,
            certificate_pem: certificate.pem(),
            header: URL_SAFE_NO_PAD.encode(header.to_string()),
        })
    }

    /// The certificate that a registry has to trust, PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A signed token with these claims. Its signature is empty if signing fails, which a registry refuses.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            self.header,
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self
            .key
            .sign(signed.as_bytes())
            .ok()
            .and_then(|der| fixed_width(&der))
            .unwrap_or_default();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A JWT wants the two numbers of a signature side by side, 32 bytes each (RFC 7518, 3.4); the key gives them as
/// DER: `30 len 02 len r 02 len s`.
fn fixed_width(der: &[u8]) -> Option<Vec<u8>> {
    let (&[0x30, length], rest) = der.split_first_chunk::<2>()? else {
        return None;
    };
    if usize::from(length) != rest.len() {
        return None;
    }
    let (r, rest) = integer(rest)?;
    let (s, rest) = integer(rest)?;
    rest.is_empty().then(|| [r, s].concat())
}

fn integer(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let (&[0x02, length], rest) = der.split_first_chunk::<2>()? else {
        return None;
    };
    let (digits, rest) = rest.split_at_checked(usize::from(length))?;
    // DER puts a zero before a number whose first bit is set, and leaves leading zeros out.
    let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
    let mut wide = [0; 32];
    wide.get_mut(32_usize.checked_sub(digits.len())?..)?
        .copy_from_slice(digits);
    Some((wide, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_and_stripped() {
        let mut der = vec![0x30, 3 + 2 + 33, 0x02, 1, 7, 0x02, 33, 0];
        der.extend([0xff; 32]);
        let fixed = fixed_width(&der).unwrap();
        assert_eq!(fixed.len(), 64);
        assert_eq!((fixed[30], fixed[31], fixed[32]), (0, 7, 0xff));
        assert!(fixed_width(&der[..20]).is_none());
    }

    #[test]
    fn a_token_is_signed_every_time() {
        let signer = Signer::new().unwrap();
        for _ in 0..64 {
            let token = signer.sign(&json!({"a": 1}));
            let signature = token.rsplit_once('.').unwrap().1;
            assert_eq!(URL_SAFE_NO_PAD.decode(signature).unwrap().len(), 64);
        }
    }
}
