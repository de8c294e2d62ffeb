//! What subcommands print.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use super::exit;
use crate::supervisor::say;

/// Writes to stdout. A reader that has gone away (`jobcred status | head -1`) is not an error; a full disk ends the process with
/// one, for what comes next in a script would go on with half a token, or none.
pub(super) fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(&format!("cannot write the answer: {error}"));
            std::process::exit(exit::INTERNAL);
        }
        _ => {}
    }
}

/// Lines of two columns, the second one aligned.
pub(super) fn aligned(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:width$}  {value}");
    }
    out
}

/// A span of time as people say it, in its two largest units.
pub(super) fn span(seconds: i64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let mut rest = seconds.max(0);
    let mut parts = Vec::new();
    for (unit, size) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.truncate(2);
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// Text from elsewhere, fit for a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{aligned, plain, span};

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_661, "1 h 1 min"),
            (3_605, "1 h"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn columns_line_up_and_nothing_moves_the_cursor() {
        let text = aligned(&[("a", "1".to_owned()), ("long", "2".to_owned())]);
        assert_eq!(text, "a     1\nlong  2\n");
        assert_eq!(plain("a\u{1b}[2J\n"), "a [2J ");
    }
}
