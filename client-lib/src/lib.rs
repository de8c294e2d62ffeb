//! Client of the jobcred agent: tokens and registry credentials for the job this process is part of.
//!
//! ```no_run
//! use jobcred_client::{Client, Target, TokenRequest};
//!
//! let client = Client::new();
//! let storage = TokenRequest::new(Target::Scope("https://storage.azure.com/.default".to_owned()));
//! let token = client.token(&storage)?;
//! println!("ends at {}", token.expires_on);
//! # Ok::<(), jobcred_client::Error>(())
//! ```
//!
//! A token is kept in the process and asked for again when the agent said it should be, so [`Client::token`] is meant to
//! be called for every use. An expired token is never handed out, and a valid one is not taken away because the agent
//! cannot be reached.
//!
//! Features: `async` gives `AsyncClient` on tokio, `azure` gives `JobCredential` for the Azure SDK's crates.

mod answer;
#[cfg(feature = "async")]
mod asynchronous;
#[cfg(feature = "azure")]
mod azure;
mod blocking;
mod cache;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod http;
mod owner;
mod platform;
mod settings;
mod socket;

pub use jobcred_wire::{
    ErrorCode, Explanation, NamedIdentity, RegistryResponse, Secret, SocketSearch, Status, Target,
    TokenRequest, TokenResponse,
};

#[cfg(feature = "async")]
pub use crate::asynchronous::AsyncClient;
#[cfg(feature = "azure")]
pub use crate::azure::JobCredential;
pub use crate::blocking::Client;
pub use crate::error::{Error, ErrorKind};
pub use crate::settings::Builder;
