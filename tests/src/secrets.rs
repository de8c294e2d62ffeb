//! Every secret in play, and the search for them in text that should hold none.
//!
//! A leak rarely shows the secret as it is: it is percent-encoded in a URL, base64 in a Basic header, cut short by a
//! log line. The scan looks for each form, and for pieces of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Pieces of this many bytes are looked for, side by side, so that any run of twice as many bytes is found.
const PIECE: usize = 16;

/// Below this a value could turn up by chance, so it is not taken as a secret.
const SHORTEST: usize = 8;

/// A growing set of secrets. Clones share it.
#[derive(Clone, Default)]
pub struct Secrets {
    by_value: Arc<Mutex<BTreeMap<String, String>>>,
}

/// One secret found where it should not be. Says which, never what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leak {
    /// The name the secret was added under.
    pub name: String,
    /// How it was written: `plain`, `percent`, `base64` or `hex`.
    pub form: &'static str,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.names()).finish()
    }
}

impl Secrets {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret under a name that a report may show. Returns false, and adds nothing, when the value is too
    /// short to tell from chance (under 8 bytes).
    pub fn add(&self, name: impl Into<String>, value: &str) -> bool {
        if value.len() < SHORTEST {
            return false;
        }
        self.lock().insert(value.to_owned(), name.into());
        true
    }

    /// Adds everything `other` holds at this moment.
    pub fn extend(&self, other: &Self) {
        let copied = other.lock().clone();
        self.lock().extend(copied);
    }

    /// How many secrets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The names, without the values.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    /// Names and values, for a test in another process.
    #[must_use]
    pub fn reveal(&self) -> Vec<(String, String)> {
        self.lock()
            .iter()
            .map(|(value, name)| (name.clone(), value.clone()))
            .collect()
    }

    /// Which secrets show in `haystack`, whole or in part, in any of the forms; each once, by name. Empty means clean.
    #[must_use]
    pub fn leaks(&self, haystack: impl AsRef<[u8]>) -> Vec<Leak> {
        let haystack = haystack.as_ref();
        let mut found = BTreeSet::new();
        let mut pieces: HashMap<[u8; PIECE], Leak> = HashMap::new();
        for (value, name) in self.lock().iter() {
            for (form, written) in forms(telling_part(value)) {
                let leak = Leak {
                    name: name.clone(),
                    form,
                };
                if written.len() < PIECE {
                    if contains(haystack, &written) {
                        found.insert(leak);
                    }
                    continue;
                }
                // The last piece overlaps its neighbour, so that a value of 17 to 31 bytes is covered to its end.
                let last = written.get(written.len() - PIECE..).unwrap_or_default();
                for piece in written.chunks_exact(PIECE).chain([last]) {
                    if let Ok(piece) = <[u8; PIECE]>::try_from(piece) {
                        pieces.entry(piece).or_insert_with(|| leak.clone());
                    }
                }
            }
        }
        for window in haystack.windows(PIECE) {
            if let Ok(window) = <&[u8; PIECE]>::try_from(window)
                && let Some(leak) = pieces.get(window)
            {
                found.insert(leak.clone());
            }
        }
        // A piece of one form can look like a piece of another: the plainest that was found is what is reported.
        let mut by_name: BTreeMap<String, &'static str> = BTreeMap::new();
        for leak in found {
            let form = by_name.entry(leak.name).or_insert(leak.form);
            if rank(leak.form) < rank(form) {
                *form = leak.form;
            }
        }
        by_name
            .into_iter()
            .map(|(name, form)| Leak { name, form })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.by_value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a secret that is its alone. The header and the claims of a signed token are shared by many tokens
/// (and decoded claims may be shown), its signature is not; of anything else it is the whole.
fn telling_part(value: &str) -> &[u8] {
    let mut parts = value.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(claims), Some(signature), None) if claims.starts_with("ey") => {
            if signature.len() >= SHORTEST {
                signature.as_bytes()
            } else {
                claims.as_bytes()
            }
        }
        _ => value.as_bytes(),
    }
}

fn forms(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![("plain", value.to_vec())];
    let percent: String =
        percent_encoding::percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string();
    if percent.as_bytes() != value {
        forms.push(("percent", percent.into_bytes()));
    }
    // Base64 of the value inside something longer depends on where it starts, modulo three; the characters at either
    // end also depend on the neighbours and are left out.
    for shift in 0..3 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(value);
        let encoded = STANDARD_NO_PAD.encode(&shifted);
        let start = if shift == 0 { 0 } else { 4 };
        let end = shifted.len() / 3 * 4;
        if let Some(inner) = encoded.get(start..end)
            && inner.len() >= SHORTEST
        {
            forms.push(("base64", inner.as_bytes().to_vec()));
            let url_safe = inner.replace('+', "-").replace('/', "_");
            if url_safe != inner {
                forms.push(("base64", url_safe.into_bytes()));
            }
        }
    }
    let hex: String = value.iter().fold(String::new(), |mut hex, byte| {
        use fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    forms.push(("hex", hex.to_uppercase().into_bytes()));
    forms.push(("hex", hex.into_bytes()));
    forms
}

fn rank(form: &str) -> usize {
    let forms = ["plain", "percent", "base64", "hex"];
    forms
        .iter()
        .position(|known| *known == form)
        .unwrap_or(forms.len())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJlLW9mLXRoaXMtdG9rZW4tYWxvbmUtYW5kLW5vLW90aGVy";

    fn secrets() -> Secrets {
        let secrets = Secrets::new();
        assert!(secrets.add("token", TOKEN));
        assert!(secrets.add("header", "p/w d-1234+5"));
        secrets
    }

    #[test]
    fn clean_text_and_decoded_claims_are_no_leak() {
        let other = TOKEN.rsplit_once('.').unwrap().0;
        assert_eq!(secrets().leaks(format!("aud=x exp=1 {other}.other")), []);
    }

    #[test]
    fn every_form_of_a_secret_is_found() {
        for (text, name, form) in [
            (format!("a {TOKEN} b"), "token", "plain"),
            (
                "GET /?secret=p%2Fw%20d%2D1234%2B5".to_owned(),
                "header",
                "percent",
            ),
            (
                format!("Basic {}", STANDARD.encode("u:p/w d-1234+5")),
                "header",
                "base64",
            ),
            (
                format!("Basic {}", STANDARD.encode(format!("xx:{TOKEN}"))),
                "token",
                "base64",
            ),
            ("702f7720642d313233342b35".to_owned(), "header", "hex"),
        ] {
            let expected = Leak {
                name: name.to_owned(),
                form,
            };
            assert_eq!(secrets().leaks(&text), [expected], "{text}");
        }
    }

    #[test]
    fn a_token_cut_short_is_found() {
        let (_, signature) = TOKEN.rsplit_once('.').unwrap();
        assert_eq!(secrets().leaks(&signature[3..36]).len(), 1);
    }

    #[test]
    fn a_value_that_chance_could_write_is_refused() {
        assert!(!Secrets::new().add("short", "abc"));
    }

    #[test]
    fn neither_debug_nor_a_leak_shows_the_value() {
        let secrets = secrets();
        let shown = format!("{secrets:?} {:?}", secrets.leaks(TOKEN));
        assert_eq!(secrets.leaks(shown), []);
    }
}
