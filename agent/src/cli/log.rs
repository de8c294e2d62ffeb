//! The agent's log, on stderr.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Turns the log on. `config.log` was checked when it was read; a filter that is refused all the same means the default.
///
/// Under `run` the log shares stderr with COMMAND, so only what a person should look at is said unless more is asked for.
pub(super) fn init(config: &Config, supervised: bool) {
    let default = if supervised { "warn" } else { "info" };
    let filter = EnvFilter::try_new(config.log.as_deref().unwrap_or(default))
        .unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Only fails when there is a log already.
    let _ = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
