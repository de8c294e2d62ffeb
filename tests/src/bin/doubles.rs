//! Doubles of Azure for tests in other languages: starts them, prints one JSON line that says where they are, and
//! ends when its standard input does.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jobcred_tests::{Control, Doubles, DoublesConfig};

/// Starts doubles of Azure's identity endpoints and prints where they are.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A JSON file that says which doubles to start and how; `-` is standard input's first line.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where certificates are written; a new temporary directory when left out.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Doubles to start with their usual options.
    #[arg(value_parser = ["azure_ml", "imds", "app_service", "entra", "acr", "storage"])]
    doubles: Vec<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "jobcred-doubles: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let mut config = match arguments.config {
        None => DoublesConfig::default(),
        Some(path) => {
            let text = if path.as_os_str() == "-" {
                let mut line = String::new();
                io::stdin().read_line(&mut line)?;
                line
            } else {
                std::fs::read_to_string(&path)?
            };
            serde_json::from_str(&text)?
        }
    };
    for name in &arguments.doubles {
        match name.as_str() {
            "azure_ml" => drop(config.azure_ml.get_or_insert_default()),
            "imds" => drop(config.imds.get_or_insert_default()),
            "app_service" => drop(config.app_service.get_or_insert_default()),
            "entra" => drop(config.entra.get_or_insert_default()),
            "acr" => drop(config.acr.get_or_insert_default()),
            _ => drop(config.storage.get_or_insert_default()),
        }
    }
    // Kept until the end, and then removed with what is in it.
    let mut temporary = None;
    if let Some(directory) = arguments.directory {
        config.directory = directory;
    } else if config.directory.as_os_str().is_empty() {
        let made = temporary.insert(tempfile::tempdir()?);
        config.directory = made.path().into();
    }
    let control = Control::start(Doubles::start(config)?)?;
    writeln!(io::stdout(), "{}", control.ready())?;
    io::stdout().flush()?;
    io::copy(&mut io::stdin().lock().take(u64::MAX), &mut io::sink())?;
    Ok(())
}
