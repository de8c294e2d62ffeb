//! `jobcred run` with real processes: whoever runs COMMAND through it must not be able to tell, except by the tokens.
//!
//! Nothing here asks for an identity outside: the sandbox, or an environment that names none and forbids the probe.

#![expect(
    clippy::unwrap_used,
    reason = "also outside the test functions, what fails here fails the test"
)]

mod agent;
mod command;
mod disabled;
mod group;
mod limits;
mod orphans;
mod place;
mod scarcity;
mod sharing;
mod sidecar;
mod signals;
mod start;
mod state;
mod stderr;
mod terminal;
