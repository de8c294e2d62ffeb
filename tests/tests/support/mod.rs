//! Real processes in an environment of their own, whose every output is searched for secrets.
//!
//! A [`World`] is a directory, an environment and the secrets in play. What is started in it is ended and searched when
//! it is dropped, so that no test can forget to.

mod binaries;
mod held;
mod http;
mod nested;
mod process;
mod scan;
mod sdk;
mod world;

pub use binaries::binary;
pub use held::Held;
pub use http::Answer;
pub use nested::{in_namespace_with_hosts, in_namespace_with_imds};
pub use process::{Output, Process};
pub use sdk::{SdkRequest, ask_as, exchange, read_answer};
pub use world::{Call, World, cluster};

pub use jobcred_tests::{HUNG, wait_until};
