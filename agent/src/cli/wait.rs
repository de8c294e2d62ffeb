//! `jobcred wait`: until every declared token exists.

use std::time::Duration;

use jobcred_client::ErrorKind;
use jobcred_wire::{ErrorCode, READY_PATH};
use tokio::time::Instant;

use super::arguments::{GlobalOptions, WaitOptions};
use super::{exit, seek};
use crate::supervisor::say;

/// Between two questions that were not answered, or answered too early. An agent that is starting is ready within a fraction
/// of a second, so this is what a job loses at most.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest that one question stays open at the agent, which answers as soon as it is settled.
const LONGEST_QUESTION: Duration = Duration::from_secs(5);
/// What an answer may take beyond that.
const ROOM: Duration = Duration::from_secs(1);

pub(super) fn wait(global: &GlobalOptions, options: &WaitOptions) -> i32 {
    let begin = Instant::now();
    let limit = Duration::from_secs(options.timeout);
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        let open = left.min(LONGEST_QUESTION).as_secs();
        let patience = left.clamp(PAUSE, Duration::from_secs(open) + ROOM);
        let client = seek::impatient_client(global, patience);
        let Err(error) = client.get(&format!("{READY_PATH}?wait={open}")) else {
            return exit::OK;
        };
        if !may_pass(error.kind()) {
            return seek::report_unready(&error);
        }
        if begin.elapsed() + PAUSE >= limit {
            say(&format!("not ready after {} s", options.timeout));
            seek::report(&error);
            return exit::TIMED_OUT;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether waiting can help.
fn may_pass(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::AgentNotFound
        | ErrorKind::AgentGone
        | ErrorKind::Timeout
        | ErrorKind::Connection => true,
        ErrorKind::Agent(code) => code == ErrorCode::Transient,
        _ => false,
    }
}
