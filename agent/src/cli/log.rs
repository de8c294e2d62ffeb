//! The agent's log, on stderr.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Turns the log on. `config.log` was checked when it was read; a filter that is refused all the same means the default.
pub(super) fn init(config: &Config) {
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info"));
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
