//! The ways in: the socket with the native API, loopback TCP with the managed-identity dialects, and the places where an error
//! becomes an answer.

pub mod callers;
pub mod claim;
pub mod dialect;
pub mod election;
mod guard;
pub mod handed;
pub mod leases;
pub mod metrics;
pub mod native;
mod readiness;
pub mod reply;
mod seldom;
pub mod serve;
pub mod socket;
pub mod turned_away;
