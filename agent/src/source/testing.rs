//! A source against a scripted endpoint.
