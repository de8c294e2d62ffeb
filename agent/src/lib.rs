//! jobcred: an in-job credential helper and sidecar agent for Azure Machine Learning training containers.
//!
//! The path of a request: `front` -> `policy` -> `broker` -> `source` -> `transport` -> Azure. Edges (`front`, `source`,
//! `registry`, `transport`, `platform`) know the domain (`peer`, `policy`, `broker`, `strategy`); the domain knows no HTTP
//! and no socket.

pub mod agent;
pub mod broker;
pub mod cli;
pub mod config;
pub mod error;
pub mod front;
pub mod journal;
#[cfg(test)]
mod mutation;
pub mod peer;
pub mod platform;
pub mod policy;
pub mod principal;
pub mod registry;
pub mod resource;
pub mod source;
pub mod storage;
pub mod strategy;
pub mod supervisor;
pub mod token;
pub mod transport;
