//! The real programs against the doubles of Azure, from a job's environment to what its processes get.
//!
//! Run by `tests/isolated`, after `cargo build --workspace --bins`; `make test` does both.

#[path = "../support/mod.rs"]
mod support;

mod bad_requests;
mod registry;
mod sharing;
mod strategies;
mod upstream;
