//! `jobcred check URL`: whether the job's identity gets at its data, step by step, and if not, why and what to do.

mod report;
mod steps;
mod way;

use std::io::IsTerminal as _;

use self::report::{Form, Report};
use super::arguments::{CheckOptions, ColorChoice, GlobalOptions, ServiceChoice};
use super::exit;
use super::explain::{wants_color, width};
use super::setup::{Setup, runtime};
use crate::platform::Environment;
use crate::storage::{Hints, Location, Service};
use crate::supervisor::say;

/// Where fsspec's adlfs and the Azure CLI look for the account that a URL does not name.
const ACCOUNT_VARIABLES: [&str; 2] = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"];

pub(super) fn check(global: &GlobalOptions, options: &CheckOptions) -> i32 {
    let setup = match Setup::read(global) {
        Ok(setup) => setup,
        Err(report) => {
            say(&report);
            return exit::USAGE;
        }
    };
    let environment = &setup.outside.environment;
    let location = match Location::parse(&options.url, &hints(options, environment)) {
        Ok(location) => location,
        Err(error) => {
            say(&error.message);
            say(&error.hint);
            return exit::USAGE;
        }
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let mut report = Report::new(&location, form(options, environment));
    let code = runtime.block_on(Box::pin(steps::take(
        global,
        options,
        &setup,
        &location,
        &mut report,
    )));
    // A lookup of a name that nobody answers may still be waiting in a thread of its own.
    runtime.shutdown_background();
    report.finish();
    code
}

fn hints<'a>(options: &'a CheckOptions, environment: &'a Environment) -> Hints<'a> {
    let named = || {
        ACCOUNT_VARIABLES
            .iter()
            .find_map(|name| environment.get(name))
    };
    Hints {
        account: options.account.as_deref().or_else(named),
        service: options.service.map(|service| match service {
            ServiceChoice::Blob => Service::Blob,
            ServiceChoice::Dfs => Service::Dfs,
        }),
    }
}

fn form(options: &CheckOptions, environment: &Environment) -> Form {
    if options.json {
        return Form::Json;
    }
    let asked = match options.color {
        ColorChoice::Auto => None,
        ColorChoice::Always => Some(true),
        ColorChoice::Never => Some(false),
    };
    Form::Text {
        width: width(environment, None),
        color: wants_color(asked, environment, std::io::stdout().is_terminal()),
    }
}
