//! Text, in and out.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use jobcred_client::Secret;
use zeroize::Zeroizing;

use crate::error::Error;

/// Secret text with the zero byte that ends it, wiped on drop.
pub(crate) struct SecretText(Zeroizing<Vec<u8>>);

impl SecretText {
    /// A copy of `secret` for C. `what` names it in the error for one that C could not read to its end.
    pub(crate) fn new(what: &str, secret: &Secret) -> Result<Self, Error> {
        let text = secret.expose().as_bytes();
        if text.contains(&0) {
            return Err(Error::internal(&format!(
                "the agent answered with a zero byte in the {what}"
            )));
        }
        // One allocation: a growing one would leave pieces behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + 1));
        bytes.extend_from_slice(text);
        bytes.push(0);
        Ok(Self(bytes))
    }

    pub(crate) fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

/// Text for C. A zero byte would end it early, so it becomes a space.
pub(crate) fn owned(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// The pointer to text that may be absent.
pub(crate) fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// The bytes of text from C; nothing for NULL.
///
/// # Safety
///
/// `text` is NULL or points to bytes that end with a zero byte and that nobody changes during the call.
pub(crate) unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and the caller vouches for the rest. The lifetime is the caller's choice, and all take a copy.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A copy of text from C; nothing for NULL. `what` names it in the error.
///
/// # Safety
///
/// As for [`bytes`].
pub(crate) unsafe fn optional(what: &str, text: *const c_char) -> Result<Option<String>, Error> {
    // SAFETY: the same condition.
    let Some(bytes) = (unsafe { bytes(text) }) else {
        return Ok(None);
    };
    if bytes.len() > MAX_BYTES {
        return Err(Error::invalid(&format!(
            "the {what} is longer than {MAX_BYTES} bytes"
        )));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(Error::invalid(&format!("the {what} is not UTF-8"))),
    }
}

/// A copy of text from C that must be there.
///
/// # Safety
///
/// As for [`bytes`].
pub(crate) unsafe fn required(what: &str, text: *const c_char) -> Result<String, Error> {
    // SAFETY: the same condition.
    match unsafe { optional(what, text) }? {
        Some(text) if text.is_empty() => Err(Error::invalid(&format!("the {what} is empty"))),
        Some(text) => Ok(text),
        None => Err(Error::invalid(&format!("the {what} is NULL"))),
    }
}

/// Beyond any text the agent would read.
const MAX_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::ptr;

    use jobcred_client::Secret;

    use super::{MAX_BYTES, SecretText, optional, owned, required};

    #[test]
    fn text_is_copied_or_refused_with_its_name() {
        // SAFETY: all are NULL or end with a zero byte.
        let read = |text: &CStr| unsafe { required("server", text.as_ptr()) };
        assert_eq!(read(c"myreg").unwrap(), "myreg");
        let long = std::ffi::CString::new("x".repeat(MAX_BYTES + 1)).unwrap();
        for (text, message) in [
            (c"", "the server is empty"),
            (c"a\xff", "the server is not UTF-8"),
            (&long, "the server is longer than 16384 bytes"),
        ] {
            assert_eq!(read(text).unwrap_err().text(), message);
        }
        // SAFETY: NULL is allowed.
        let missing = unsafe { required("server", ptr::null()) };
        assert_eq!(missing.unwrap_err().text(), "the server is NULL");
        // SAFETY: as above.
        let absent = unsafe { optional("server", ptr::null()) };
        assert!(absent.unwrap().is_none());
    }

    #[test]
    fn a_zero_byte_inside_ends_nothing_early() {
        assert_eq!(owned("a\0b").as_c_str(), c"a b");
        assert!(SecretText::new("token", &Secret::from("a\0b")).is_err());
        assert!(SecretText::new("token", &Secret::from("ab")).is_ok());
    }
}
