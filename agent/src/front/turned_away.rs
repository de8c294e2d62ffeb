//! Requests that may not ask, in the log.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::reply::RequestId;
use super::seldom::Seldom;
use crate::error::TokenError;

/// The requests that are turned away at one way in. A program that asks without end must not fill the log, so it says one a minute.
#[derive(Debug, Default)]
pub struct TurnedAway(Mutex<Seldom>);

impl TurnedAway {
    pub(super) fn note(&self, id: RequestId, caller: &impl fmt::Display, error: &TokenError) {
        let count = self.0.lock().unwrap_or_else(PoisonError::into_inner).note();
        if let Some(count) = count {
            tracing::warn!(request.id = %id, %caller, %error, count, "a request that may not ask is turned away");
        } else {
            tracing::debug!(request.id = %id, %caller, %error, "a request that may not ask is turned away");
        }
    }
}
