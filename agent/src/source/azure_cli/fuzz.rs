//! The readers of this module, for `fuzz/` alone.

use super::answer;
use crate::error::TokenError;
use crate::platform::UnixTime;
use crate::token::AccessToken;

/// What its output is taken for where it ends well.
///
/// # Errors
/// When there is no token in it.
pub fn read(output: &[u8], resource: &str, now: UnixTime) -> Result<AccessToken, TokenError> {
    answer::read(output, resource, now)
}

/// What its complaints are taken for where it ends with `code`, or by a signal.
#[must_use]
pub fn refused(code: Option<i32>, words: &str) -> TokenError {
    answer::refused(code, words)
}
