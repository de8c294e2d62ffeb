//! What the supervisor tells the person who reads the job's log.

use std::io::stderr;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// What a pipe that can be written to takes at once: `PIPE_BUF` of Linux. A longer write could wait for the reader.
const AT_ONCE: usize = 4096;

/// Writes to stderr, marked as ours. A stderr that is closed or full must never harm the job, so what it does not take now is
/// lost: whoever collects the log may have stopped for good.
pub fn say(line: &str) {
    let text = format!("jobcred: {line}\n");
    let stderr = stderr();
    for piece in pieces(&text) {
        if !takes_more(stderr.as_fd()) {
            return;
        }
        // One write, so that lines of several processes do not mix.
        let _ = write(stderr.as_fd(), piece);
    }
}

/// The descriptor stays as it is: to make it non-blocking would do so for COMMAND too, which has the same one.
fn takes_more(descriptor: BorrowedFd<'_>) -> bool {
    let mut wait = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    poll(&mut wait, PollTimeout::ZERO).is_ok()
        && wait[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLOUT))
}

/// The text in pieces that are written at once, cut between lines where that can be.
fn pieces(text: &str) -> impl Iterator<Item = &[u8]> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let most = rest.get(..AT_ONCE).unwrap_or(rest);
        let length = match most.iter().rposition(|byte| *byte == b'\n') {
            Some(end) if most.len() < rest.len() => end + 1,
            _ => most.len(),
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::{AT_ONCE, pieces};

    #[test]
    fn nothing_is_lost_in_pieces_and_lines_stay_whole() {
        let lines = "a line of a long report\n".repeat(1000);
        let long = "x".repeat(3 * AT_ONCE);
        for text in ["", "one\n", lines.as_str(), long.as_str()] {
            let cut: Vec<&[u8]> = pieces(text).collect();
            assert!(cut.iter().all(|piece| piece.len() <= AT_ONCE));
            assert_eq!(cut.concat(), text.as_bytes());
        }
        assert!(pieces(&lines).all(|piece| piece.ends_with(b"\n")));
    }
}
