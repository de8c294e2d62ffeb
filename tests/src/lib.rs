//! Doubles of Azure: real servers on loopback that speak the identity endpoints' and the registry's protocols, well or
//! badly as a test says, and keep a record of what they were asked.
//!
//! Each is written from what the real service was seen to do, and from nothing of jobcred's own, so that a wrong
//! reading in one is caught by the other.
//!
//! ```
//! use jobcred_tests::{AzureMl, AzureMlOptions, Behavior};
//!
//! let aml = AzureMl::start(AzureMlOptions::default())?;
//! aml.script().push(Behavior::throttle(2)).push(Behavior::Hang);
//! assert!(aml.environment().iter().any(|(name, _)| name == "MSI_ENDPOINT"));
//! assert!(aml.requests().is_empty());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A double stops, with every connection, when it is dropped.

mod acr;
mod answer;
mod app_service;
mod azure_ml;
mod ca;
mod clock;
mod control;
mod doubles;
mod entra;
mod identity;
mod imds;
mod isolation;
mod proxy;
mod recorder;
mod reply;
mod script;
mod secrets;
mod server;
mod storage;
mod token;
mod waiting;

pub use acr::{Acr, AcrOptions, NULL_GUID};
pub use app_service::{AppService, AppServiceOptions};
pub use azure_ml::{AzureMl, AzureMlOptions, GrantEnd, WithoutClientId};
pub use ca::{Leaf, TestCa, USUAL_NAMES};
pub use clock::Clock;
pub use control::Control;
pub use doubles::{Doubles, DoublesConfig};
pub use entra::{Entra, EntraOptions};
pub use identity::{ExpiryForm, Identities};
pub use imds::{Imds, ImdsOptions};
pub use isolation::{NotIsolated, check_isolation, require_isolation};
pub use recorder::{Outcome, RecordedRequest, Recorder};
pub use script::{Behavior, OnConnect, Script, WrongForm};
pub use secrets::{Leak, Secrets};
pub use server::Endpoint;
pub use storage::{Rights, Storage, StorageOptions};
pub use token::{
    DEFAULT_TENANT, IssuedToken, Mint, Principal, PrincipalKind, decode_claims, guid, is_guid,
    random_secret,
};
pub use waiting::{HUNG, wait_until};

#[cfg(test)]
mod tests;
