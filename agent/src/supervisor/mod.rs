//! `jobcred run`: a small process that starts the agent and COMMAND, forwards signals and keeps the exit status.
//!
//! ```text
//! jobcred run          this module: one thread, no runtime; owns the listening socket; may be PID 1 and reap for the whole container
//!   +- COMMAND         starts first, with the environment, descriptors, limits and signal state that this process was given
//!   +- jobcred agent   in a session of its own; gets the listener as an inherited descriptor; started again when it dies
//! ```
//!
//! Nothing here may end, hang or delay COMMAND: whatever fails on our side is said on stderr and COMMAND runs all the same.

mod agent;
mod ask;
mod command;
mod ending;
mod endpoint;
mod entry;
mod event_loop;
mod lease;
mod no_proxy;
mod offer;
mod passing;
mod post_mortem;
mod prefetch;
mod record;
mod say;
mod service;
mod shell_hint;
mod signals;
mod timer;
mod witness;

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use crate::front::election::Seat;
use crate::platform::Environment;

pub use self::agent::{ALONE, ENDED, FAILED, KEEPS_ENDING, LOST, OTHERS, STAYS, start_detached};
pub(crate) use self::agent::{GIVEN, LEASE};
pub use self::ending::Ending;
pub use self::endpoint::Endpoint;
pub use self::entry::Entry;
pub use self::event_loop::{run, run_alone};
pub use self::lease::{LeaseReader, News, Told};
pub use self::no_proxy::with_loopback;
pub use self::post_mortem::PostMortemPlan;
pub use self::prefetch::{PrefetchPlan, Wanted};
pub use self::record::{ConfigText, Decision, Given, Record};
pub use self::say::say;
pub use self::signals::{guard_words, outlive_file_limit};
pub use self::witness::serve_as_witness;

/// What to run and with what.
#[derive(Debug)]
pub struct Plan {
    /// COMMAND and its arguments; never empty.
    pub command: Vec<OsString>,
    /// How `run` ends where there can be no agent and COMMAND may not run without one; `None` where it may.
    pub required: Option<i32>,
    /// Variables COMMAND gets on top of the ones we were given.
    pub variables: Environment,
    /// The socket, and how to start the agent that answers on it; `None` when there is no place for a socket.
    pub agent: Option<AgentPlan>,
    /// What to wait for before COMMAND is started; `None` is nothing.
    pub prefetch: Option<PrefetchPlan>,
    /// What to say after COMMAND; `None` is nothing.
    pub post_mortem: Option<PostMortemPlan>,
}

/// The agent's place, and how to start agents there.
#[derive(Debug)]
pub struct AgentPlan {
    /// Our part at the place. Where that is to start the agent, this process keeps the socket over all deaths of the agent, so
    /// callers only wait.
    pub seat: Seat,
    /// How to start it. One who shares the agent of another run has it for the day when that is gone.
    pub recipe: Recipe,
    /// Where unmodified SDKs ask it; `None` where they are not led here.
    pub endpoint: Option<Endpoint>,
}

/// How to start the agent.
#[derive(Debug)]
pub struct Recipe {
    /// Its arguments, after the program's name.
    pub arguments: Vec<OsString>,
    /// Variables it gets on top of the ones we were given.
    pub variables: Vec<(String, OsString)>,
    /// What it is given to go by, and what it decides for those after it; see [`Record`].
    pub record: Option<OwnedFd>,
}
