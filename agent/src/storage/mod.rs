//! `jobcred check`: where data lies, what is asked of it, and what its answers mean.
//!
//! The domain of the command: URLs in, requests out, answers in, findings out. It does no I/O; the command does.

pub mod address;
mod answer;
pub mod code;
mod finding;
mod location;
pub mod request;
mod verdict;

pub use self::answer::Answer;
pub use self::finding::{Access, Finding, Fix, Weight};
pub use self::location::{Hints, Location, LocationError, Service};
pub use self::verdict::{Operation, Situation, Way, clock, judge, skew};
