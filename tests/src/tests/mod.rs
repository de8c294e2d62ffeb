//! The doubles, asked over real sockets by a client that knows no protocol but HTTP.

mod behaviors;
mod client;
mod control;
mod identity_endpoints;
mod isolation;
mod registry;
mod token_endpoint;
mod waiting;
