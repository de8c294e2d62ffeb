//! What the supervisor tells the person who reads the job's log.

use std::io::Write as _;

/// Writes one line to stderr, marked as ours. A stderr that is closed or full must never harm the job, so failures are ignored.
pub fn say(line: &str) {
    // One write, so that lines of several processes do not mix.
    let text = format!("jobcred: {line}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}
