//! The ways in: the socket, the native API, and the one place where an error becomes an answer.

pub mod socket;
