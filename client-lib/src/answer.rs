//! From an answer of the agent to a value or an error.

use std::sync::Arc;

use jobcred_wire::TokenResponse;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::http::Answer;

/// Passes a success on and turns everything else into the error it carries.
pub(crate) fn check(answer: Answer) -> Result<Answer, Error> {
    match answer.status {
        200 | 204 => Ok(answer),
        status => Err(Error::from_answer(status, &answer.body, answer.retry_after)),
    }
}

/// The value in a successful answer.
///
/// The parser's own words are left out of the error: they may quote the value that did not fit, and that may be a token.
pub(crate) fn parse<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| Error::protocol("the agent's answer is not what was asked for"))
}

/// The text of a successful answer.
pub(crate) fn text(answer: &Answer) -> Result<String, Error> {
    std::str::from_utf8(&answer.body)
        .map(str::to_owned)
        .map_err(|_| Error::protocol("the agent's answer is not text"))
}

/// The token in a successful answer. An expired one is refused here, so that nothing behind this can hand it out.
pub(crate) fn token(answer: &Answer, now: i64) -> Result<Arc<TokenResponse>, Error> {
    let token: TokenResponse = parse(answer)?;
    if token.access_token.is_empty() {
        return Err(Error::protocol("the agent answered without a token"));
    }
    if token.expires_on <= now {
        return Err(Error::protocol(
            "the agent answered with a token that has ended; do the clocks of the two containers agree?",
        ));
    }
    Ok(Arc::new(token))
}

/// Whether `token` has the life left that a caller needs.
pub(crate) fn lasts(token: &TokenResponse, min_validity: Option<u64>, now: i64) -> bool {
    let needed = i64::try_from(min_validity.unwrap_or(0)).unwrap_or(i64::MAX);
    token.expires_on.saturating_sub(now) >= needed.max(1)
}
