//! Which library this is.

use std::ffi::{CStr, c_char};

/// The version of the library, for example `0.1.0`. Never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_version() -> *const c_char {
    VERSION.as_ptr()
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"unknown",
    };
