//! Every touch of the outside that is not a connection: clock, environment, files. Real, or in memory for a test.

mod clock;
mod environment;
mod files;

pub use self::clock::{Clock, UnixTime};
pub use self::environment::Environment;
pub use self::files::Files;
