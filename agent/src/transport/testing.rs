//! A tiny scripted HTTP server for the tests of this crate.
