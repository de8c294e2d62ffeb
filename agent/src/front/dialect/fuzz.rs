//! The readers of this module, for `fuzz/` alone.

use std::io;
use std::net::SocketAddr;

use http::request::Parts;

pub use super::query::Query;
use super::{Keys, caller, invalid, knock, route};
use crate::config::Dialect;
use crate::error::TokenError;

/// What an endpoint on `port` reads of a request before it asks anybody for a token.
///
/// # Errors
/// As the caller is told.
pub fn read(parts: &Parts, keys: &Keys, port: u16) -> Result<(Dialect, Query), TokenError> {
    let dialect = route(parts.uri.path(), keys.prefix.as_ref());
    knock(dialect, parts, keys, port).map_err(|refused| refused.error)?;
    let dialect = dialect.ok_or_else(|| invalid("what has no dialect was let in"))?;
    Ok((dialect, dialect.read(parts)?))
}

/// Whose the socket is that the kernel's answer to question number `asked` tells of.
///
/// # Errors
/// When it is no answer to that.
pub fn owner(
    answer: &[u8],
    asked: u32,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Option<u32>> {
    caller::read(answer, asked, local, remote)
}
