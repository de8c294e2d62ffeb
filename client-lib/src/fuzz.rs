//! The readers of this crate, for `fuzz/` alone.

use std::sync::Arc;

use jobcred_wire::TokenResponse;

use crate::Error;
use crate::answer;
use crate::http::{Answer, AnswerReader, Method, encode_request};

/// What is read of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// The status.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
    /// Seconds.
    pub retry_after: Option<u64>,
    /// Whether the connection is used again.
    pub keep: bool,
}

/// Reads an answer that comes in `pieces`, after which the connection ends.
///
/// # Errors
/// When it is none.
pub fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Read, Error> {
    whole(pieces).map(Read::from)
}

/// The token in an answer that comes at once, at `now` in Unix seconds.
///
/// # Errors
/// When it is none, or is an error.
pub fn token(bytes: &[u8], now: i64) -> Result<Arc<TokenResponse>, Error> {
    let answer = answer::check(whole([bytes].into_iter())?)?;
    answer::token(&answer, now)
}

fn whole<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Answer, Error> {
    let mut reader = AnswerReader::default();
    for piece in pieces {
        if let Some(answer) = reader.feed(piece)? {
            return Ok(answer);
        }
    }
    reader.end()
}

/// The bytes of a request.
///
/// # Errors
/// When it would not be one request.
pub fn request(path_and_query: &str) -> Result<Vec<u8>, Error> {
    encode_request(Method::Get, path_and_query)
}

impl From<Answer> for Read {
    fn from(answer: Answer) -> Self {
        Self {
            status: answer.status,
            body: answer.body.to_vec(),
            retry_after: answer.retry_after,
            keep: answer.keep,
        }
    }
}
