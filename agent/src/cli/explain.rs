//! `jobcred explain`: the selection for people, for programs, and for a bug report.
//!
//! Everything here turns an [`Explanation`] into text. Getting one, and asking for the token of `--probe`, is the
//! command's part.

mod report;
#[cfg(test)]
mod tests;
mod text;

use jobcred_wire::{Explanation, Notice};

use crate::platform::{Environment, Files, UnixTime};

/// The narrowest width that is wrapped to, in columns; less would break words apart.
const MIN_WIDTH: usize = 40;
/// The widest; longer lines are hard to read.
const MAX_WIDTH: usize = 110;
/// The width when nothing says another.
const DEFAULT_WIDTH: usize = 80;

/// What the codes of the ways around jobcred begin with.
const BYPASS: &str = "bypass_";

/// Whether it is about a way around jobcred.
#[must_use]
pub fn is_bypass(notice: &Notice) -> bool {
    notice.code.starts_with(BYPASS)
}

/// What the text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For a person.
    Text {
        /// Columns to wrap to.
        width: usize,
        /// Whether the terminal understands colours; it is then taken to understand Unicode as well.
        color: bool,
    },
    /// For a program: the explanation as JSON, codes and all.
    Json,
    /// For a bug report: codes, names of variables and the machine, without values, ids and addresses.
    Report,
}

/// What `jobcred explain` prints, with a line feed at its end.
///
/// `now` is for the life left of a probe's token; `files` are read for a report only, for the names of system and kernel.
#[must_use]
pub fn explain_text(explanation: &Explanation, form: Form, now: UnixTime, files: &Files) -> String {
    match form {
        Form::Text { width, color } => text::render(explanation, width, color, now),
        Form::Json => json(explanation),
        Form::Report => report::render(explanation, now, files),
    }
}

/// Whether to use colours: as asked for (`--color`), else as the environment says, else on a terminal.
///
/// `NO_COLOR` (set to anything, <https://no-color.org>), `CLICOLOR=0` and `TERM=dumb` turn them off; `CLICOLOR_FORCE` turns
/// them on where there is no terminal.
#[must_use]
pub fn wants_color(asked: Option<bool>, environment: &Environment, is_terminal: bool) -> bool {
    let is_one = |name| environment.get(name).is_some_and(|value| value != "0");
    asked.unwrap_or_else(|| {
        if environment.get("NO_COLOR").is_some() {
            false
        } else if is_one("CLICOLOR_FORCE") {
            true
        } else {
            is_terminal
                && environment.get("CLICOLOR") != Some("0")
                && environment.get("TERM").is_some_and(|term| term != "dumb")
        }
    })
}

/// The columns to wrap to: `COLUMNS`, else what the terminal says, else 80; within what can be read.
#[must_use]
pub fn width(environment: &Environment, terminal: Option<usize>) -> usize {
    environment
        .get("COLUMNS")
        .and_then(|columns| columns.parse().ok())
        .or(terminal)
        .unwrap_or(DEFAULT_WIDTH)
        .clamp(MIN_WIDTH, MAX_WIDTH)
}

fn json(explanation: &Explanation) -> String {
    // Strings and lists only: nothing in it can fail to serialise.
    let mut text = serde_json::to_string_pretty(explanation).unwrap_or_default();
    text.push('\n');
    text
}
