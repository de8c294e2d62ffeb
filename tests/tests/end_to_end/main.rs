//! The real programs against the doubles of Azure, from a job's environment to what its processes get.
//!
//! `make test` runs it in `tests/isolated`, beside the programs of the same build. One program, because each one
//! more would have to be linked.

#![cfg(test)]

#[path = "../support/mod.rs"]
mod support;

mod azure_cli;
mod bad_requests;
mod check;
mod clock;
mod commands;
mod dialects;
mod doors;
mod endpoints;
mod explain;
mod federation;
mod grant;
mod harness;
mod job_directory;
mod job_log;
mod kubernetes;
mod leases;
mod local_faults;
mod prefetch;
mod registry;
mod sharing;
mod strategies;
mod supervision;
mod top;
mod upstream;
