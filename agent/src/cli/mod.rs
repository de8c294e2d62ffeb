//! The command line, one file per subcommand; the only place that uses the client crate.

mod agent;
mod announce;
mod arguments;
mod check;
mod completions;
mod env;
mod exit;
mod explain;
mod explaining;
mod fixed_endpoint;
mod health;
mod join;
mod layout;
mod leftover;
mod log;
mod output;
mod place;
mod probe;
mod recipe;
mod run;
mod seek;
mod setup;
mod stand_in;
mod status;
mod supervised;
mod tenure;
mod token;
mod tools;
mod top;
mod wait;

use std::ffi::OsString;

use clap::Parser as _;

use self::arguments::{Action, Arguments};
use crate::supervisor::{Ending, Entry, say};

/// Does what the arguments say. How the process shall end.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>, entry: Entry) -> Ending {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too. A closed stdout is no reason to fail.
            let _ = error.print();
            return Ending::Exited(error.exit_code());
        }
    };
    let mut global = arguments.global;
    if arguments.action.asks_an_agent()
        && let Err(report) = seek::settle(&mut global)
    {
        say(&report);
        return Ending::Exited(exit::USAGE);
    }
    let code = match arguments.action {
        Action::Run(options) => return run::run(&global, options, entry),
        Action::Agent(options) => agent::agent(&global, &options, entry),
        Action::Check(options) => check::check(&global, &options),
        Action::Token(options) => token::token(&global, options),
        Action::Status(options) => status::status(&global, &options),
        Action::Top(options) => top::top(&global, &options),
        Action::Join => join::join(&global),
        Action::Env(options) => env::env(&global, &options),
        Action::Completions(options) => completions::completions(&options),
        Action::Man(options) => completions::man(&options),
        Action::Wait(options) => wait::wait(&global, &options),
        Action::Health(options) => health::health(&global, &options),
        Action::Explain(options) => explaining::explain(&global, &options),
    };
    Ending::Exited(code)
}
