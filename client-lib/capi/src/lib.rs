//! The client of the jobcred agent for C, and for every language that can call C.
//!
//! This crate adds no behaviour to [`jobcred_client`]: it turns pointers into values, values into pointers, panics into
//! errors, and keeps a forked child away from what its parent was in the middle of. Its reference is
//! `include/jobcred.h`, which is made from the comments here.
//!
//! Pointers to our own types come in as `Option<&T>` and `Option<Box<T>>`, which the language defines to be a pointer or
//! NULL in C. What is left as `unsafe` is reading text, and a client's two lives across a fork.

mod boundary;
mod text;

// One at a time, in the order that the header has.
mod version;

mod settings;

mod client;

mod options;

mod token;

mod registry;

mod error;
