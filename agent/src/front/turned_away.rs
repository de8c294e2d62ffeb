//! Requests that may not ask, in the log.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::reply::RequestId;
use crate::error::TokenError;

/// How many are warned of. A program that asks without end must not fill the job's log.
const WARNINGS: u64 = 20;

/// Counts the requests turned away at one way in. The first are logged as warnings, later ones as information.
#[derive(Debug, Default)]
pub struct TurnedAway(AtomicU64);

impl TurnedAway {
    pub(super) fn note(&self, id: RequestId, caller: &impl fmt::Display, error: &TokenError) {
        if self.0.fetch_add(1, Ordering::Relaxed) < WARNINGS {
            tracing::warn!(request.id = %id, %caller, %error, "a request that may not ask is turned away");
        } else {
            tracing::info!(request.id = %id, %caller, %error, "a request that may not ask is turned away");
        }
    }
}
