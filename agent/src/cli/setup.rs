//! What `run`, `agent` and `explain` begin with: the configuration and the outside.

use std::path::Path;

use super::arguments::GlobalOptions;
use crate::agent::Outside;
use crate::config::{Config, ConfigFile, FILE_VARIABLE, MAX_FILE_BYTES, Override};
use crate::platform::{Clock, Environment, Files};
use crate::strategy::Strategy;

/// The configuration and the outside.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) outside: Outside,
}

impl Setup {
    /// Reads everything.
    ///
    /// # Errors
    /// The report of all mistakes, for a person.
    pub(super) fn read(options: &GlobalOptions) -> Result<Self, String> {
        let outside = Outside {
            environment: Environment::of_process(),
            files: Files::system(),
            clock: Clock::system(),
            own_uid: nix::unistd::geteuid().as_raw(),
        };
        let config = read_config(options, &outside.environment)?;
        Ok(Self { config, outside })
    }
}

fn read_config(options: &GlobalOptions, environment: &Environment) -> Result<Config, String> {
    let named = options.config.as_deref();
    let path = named.or_else(|| environment.get(FILE_VARIABLE).map(Path::new));
    let text = path
        .map(|path| read_text(path).map_err(|why| format!("{}: {why}", path.display())))
        .transpose()?;
    let name = path.map(|path| path.display().to_string());
    let file = name
        .as_deref()
        .zip(text.as_deref())
        .map(|(name, text)| ConfigFile { name, text });
    let socket = options
        .socket
        .as_ref()
        .map(|path| path.to_string_lossy().into_owned());
    let overrides: Vec<Override> = [
        ("--strategy", "strategy", options.strategy.clone()),
        ("--socket", "socket", socket),
        ("--log", "log", options.log.clone()),
    ]
    .into_iter()
    .filter_map(|(flag, key, value)| {
        let value = value?;
        Some(Override { flag, key, value })
    })
    .collect();
    let mut config =
        Config::load(file, environment, &overrides).map_err(|errors| errors.to_string())?;
    if options.sandbox {
        // The flag alone can say this: neither a file nor a variable can turn a real job into a sandbox.
        config.strategy = Some(Strategy::Sandbox);
    }
    Ok(config)
}

fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    // Not through `Files`: a relative path means the working directory here.
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    // One byte more than allowed, so that the reader of the text can tell that there is too much.
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}
