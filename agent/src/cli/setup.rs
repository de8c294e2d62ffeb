//! What `run`, `agent` and `explain` begin with: the configuration and the outside.

use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::arguments::GlobalOptions;
use super::env::quote;
use super::exit;
use super::output::plain;
use crate::agent::Outside;
use crate::config::{
    Config, ConfigFile, FILE_VARIABLE, MAX_FILE_BYTES, Override, ignored_variables,
};
use crate::journal::Journal;
use crate::platform::{Clock, Environment, Files, open_regular};
use crate::strategy::{Strategy, platform_environment};
use crate::supervisor::{ConfigText, say};

/// The uid of root.
const ROOT: u32 = 0;

/// The configuration and the outside.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) outside: Outside,
    /// The file that the configuration came from, where one was named.
    pub(super) file: Option<ConfigText>,
}

impl Setup {
    /// Reads everything.
    ///
    /// # Errors
    /// The report of all mistakes, for a person.
    pub(super) fn read(options: &GlobalOptions) -> Result<Self, String> {
        let outside = outside();
        let named = options.config.as_deref();
        let path = named.or_else(|| outside.environment.get(FILE_VARIABLE).map(Path::new));
        let file = path.map(read_file).transpose()?;
        Self::with_file(options, outside, file)
    }

    /// The same with a configuration file that was read before, or none.
    ///
    /// # Errors
    /// The report of all mistakes.
    pub(super) fn from_text(
        options: &GlobalOptions,
        file: Option<ConfigText>,
    ) -> Result<Self, String> {
        Self::with_file(options, outside(), file)
    }

    /// Says which variables are ignored, though they have the name of a key.
    pub(super) fn say_ignored(&self) {
        for sentence in ignored_variables(&self.outside.environment) {
            say(&sentence);
        }
    }

    /// The outside with nothing configured, for an agent that has only a refusal to say.
    pub(super) fn bare() -> Self {
        Self {
            config: Config::default(),
            outside: outside(),
            file: None,
        }
    }

    fn with_file(
        options: &GlobalOptions,
        outside: Outside,
        file: Option<ConfigText>,
    ) -> Result<Self, String> {
        let config = load(options, &outside.environment, file.as_ref())?;
        Ok(Self {
            config,
            outside,
            file,
        })
    }
}

/// What a command runs on that talks to somebody; on failure that is said, and the exit code given.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, i32> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            say(&format!("cannot start: {error}"));
            exit::INTERNAL
        })
}

/// Whether `--log` is a filter of the log, for a command that reads no configuration.
///
/// # Errors
/// The report of the mistake.
pub(super) fn check_log(options: &GlobalOptions) -> Result<(), String> {
    let only = GlobalOptions {
        log: options.log.clone(),
        ..GlobalOptions::default()
    };
    load(&only, &Environment::default(), None).map(|_| ())
}

fn outside() -> Outside {
    Outside {
        environment: platform_environment(&Environment::of_process()),
        files: Files::system(),
        clock: Clock::system(),
        own_uid: nix::unistd::geteuid().as_raw(),
        restarts: 0,
        journal: Journal::default(),
    }
}

fn load(
    options: &GlobalOptions,
    environment: &Environment,
    file: Option<&ConfigText>,
) -> Result<Config, String> {
    let file = file.map(|file| ConfigFile {
        name: &file.name,
        text: &file.text,
    });
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

fn read_file(path: &Path) -> Result<ConfigText, String> {
    let name = path.display().to_string();
    match read_text(path) {
        Ok(text) => Ok(ConfigText { name, text }),
        Err(why) => Err(format!("{name}: {why}")),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    // Not through `Files`: a relative path means the working directory here.
    let (file, metadata) = open_regular(path).map_err(|error| error.to_string())?;
    check_writers(path, &metadata, nix::unistd::geteuid().as_raw())?;
    let mut text = String::new();
    // One byte more than allowed, so that the reader of the text can tell that there is too much.
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

/// A configuration decides where tokens go, so it belongs to this user or root, and not every user may write it. Its group may: a volume
/// of a pod has `fsGroup` for that, and the usual umask of many systems makes files so.
fn check_writers(path: &Path, metadata: &Metadata, own_uid: u32) -> Result<(), String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let mut reasons = Vec::new();
    if owner != own_uid && owner != ROOT {
        reasons.push(format!(
            "it belongs to uid {owner}, not to uid {own_uid} or root"
        ));
    }
    if mode & 0o002 != 0 {
        reasons.push(format!("its mode {mode:04o} lets every user write to it"));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    let name = quote(&plain(&path.display().to_string()));
    let command = if own_uid == owner {
        format!("chmod o-w {name}")
    } else {
        format!("install -m 600 {name} jobcred.toml, and name that file")
    };
    Err(format!("{}. Run: {command}", reasons.join(", and ")))
}
