//! Every touch of the outside that is not a connection: clock, environment, files, processes. Real, or in memory for a test.

mod clock;
mod environment;
mod files;
mod processes;
mod told;
mod wall;

pub use self::clock::{Clock, UnixTime};
pub use self::environment::Environment;
pub use self::files::{Files, open_regular};
pub use self::processes::{ProcessFacts, Processes, StartTime};
pub use self::told::ClockFault;
pub(crate) use self::wall::ClockJumps;
