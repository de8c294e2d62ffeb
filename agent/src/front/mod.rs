//! The ways in: the socket, the native API, and the one place where an error becomes an answer.

pub mod callers;
pub mod claim;
pub mod election;
pub mod leases;
pub mod metrics;
pub mod native;
mod readiness;
pub mod reply;
mod seldom;
pub mod serve;
pub mod socket;
