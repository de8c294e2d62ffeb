//! A COMMAND that leaves its environment behind and stays until it is told to end.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::process::{Output, Process};
use super::world::World;

/// Its environment goes to the file `$1`, whole or not at all; then it waits for a line of the pipe `$2`.
const COMMAND: &str = r#"
    env -0 > "$1.new" && mv "$1.new" "$1"
    echo ready
    read -r line < "$2"
    exit 7
"#;

/// A `jobcred run` whose COMMAND waits.
pub struct Held {
    pub process: Process,
    /// What COMMAND was given.
    pub environment: BTreeMap<String, String>,
    pipe: PathBuf,
}

impl Held {
    /// Starts one under a name of its own, with these options of `run` and variables.
    #[track_caller]
    pub fn start(world: &World, name: &str, options: &[&str], variables: &[(&str, &str)]) -> Self {
        let file = world.path().join(format!("{name}.env"));
        let pipe = world.path().join(format!("{name}.pipe"));
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&pipe, mode).unwrap();
        let places = [&file, &pipe].map(|path| path.display().to_string());
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.extend(["--", "sh", "-c", COMMAND, "sh"]);
        arguments.extend(places.iter().map(String::as_str));
        let mut call = world.jobcred(&arguments);
        for (variable, value) in variables {
            call = call.env(variable, value);
        }
        let process = call.start();
        process.wait_for_stdout("ready\n");
        let text = fs::read_to_string(&file).unwrap();
        let environment = text
            .split_terminator('\0')
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            process,
            environment,
            pipe,
        }
    }

    /// One that was started in another way, and ends otherwise.
    pub fn of(process: Process, environment: BTreeMap<String, String>) -> Self {
        Self {
            process,
            environment,
            pipe: PathBuf::new(),
        }
    }

    /// A variable that COMMAND was given; empty when it was not.
    pub fn variable(&self, name: &str) -> String {
        self.environment.get(name).cloned().unwrap_or_default()
    }

    /// Tells COMMAND to end, and waits for `run`.
    #[track_caller]
    pub fn end(self) -> Output {
        fs::write(&self.pipe, "end\n").unwrap();
        let output = self.process.finish();
        assert_eq!(output.code, Some(7), "{}", output.stderr);
        output
    }
}
