//! `jobcred health`: one question, for the probes of a container platform.

use std::time::Duration;

use jobcred_wire::{HEALTH_PATH, READY_PATH};

use super::arguments::{GlobalOptions, HealthOptions};
use super::{exit, seek};

/// Probes are killed after a second by default; better to have said why by then.
const TIMEOUT: Duration = Duration::from_millis(900);

pub(super) fn health(global: &GlobalOptions, options: &HealthOptions) -> i32 {
    let path = if options.ready {
        READY_PATH
    } else {
        HEALTH_PATH
    };
    match seek::impatient_client(global, TIMEOUT).get(path) {
        Ok(_) => exit::OK,
        Err(error) if options.ready => seek::report_unready(&error),
        Err(error) => seek::report(&error),
    }
}
