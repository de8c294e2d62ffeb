//! Lines that wait for the moment when they may be written.

use std::collections::VecDeque;

/// The most that waits, in bytes. The oldest lines make place for newer ones.
pub(super) const MAX_KEPT: usize = 512 * 1024;

/// The newest lines, and how many there were before them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes one more.
    pub(super) fn push(&mut self, line: &[u8]) {
        self.bytes += line.len();
        self.lines.push_back(line.to_vec());
        while self.bytes > MAX_KEPT {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    /// Hands all of them to `write`, which returns how many bytes it took, and lets go of those that it took whole. In place of
    /// those that were dropped goes a line that `gap` makes.
    pub(super) fn write<E>(
        &mut self,
        gap: impl Fn(u64) -> Vec<u8>,
        write: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let mut text = if self.dropped > 0 {
            gap(self.dropped)
        } else {
            Vec::new()
        };
        let begin = text.len();
        text.extend(self.lines.iter().flatten());
        let Some(mut written) = write(&text)?.checked_sub(begin) else {
            return Ok(());
        };
        self.dropped = 0;
        while let Some(line) = self.lines.pop_front() {
            if line.len() > written {
                self.lines.push_front(line);
                break;
            }
            written -= line.len();
            self.bytes -= line.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, MAX_KEPT};

    /// What a writer that takes so many bytes is given.
    fn write(kept: &mut Kept, takes: usize) -> String {
        let mut given = Vec::new();
        kept.write(
            |lost| format!("gap {lost}\n").into_bytes(),
            |text| {
                given = text.to_vec();
                Ok::<_, ()>(takes.min(text.len()))
            },
        )
        .unwrap();
        String::from_utf8(given).unwrap()
    }

    #[test]
    fn what_is_written_is_let_go_and_what_is_not_stays() {
        let mut kept = Kept::default();
        for line in ["one\n", "two\n", "three\n"] {
            kept.push(line.as_bytes());
        }
        kept.write(|_| Vec::new(), |_| Err(())).unwrap_err();
        assert_eq!(write(&mut kept, 6), "one\ntwo\nthree\n");
        // The second was torn.
        assert_eq!(write(&mut kept, usize::MAX), "two\nthree\n");
        assert!(kept.is_empty());
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn the_newest_are_kept_and_the_rest_is_counted() {
        let mut kept = Kept::default();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let places = MAX_KEPT / line.len();
        for _ in 0..places + 7 {
            kept.push(&line);
        }
        kept.push(b"last\n");
        assert!(kept.bytes <= MAX_KEPT);
        // A gap that is torn is told again.
        assert!(write(&mut kept, 3).starts_with("gap 8\nx"));
        let text = write(&mut kept, usize::MAX);
        assert!(text.starts_with("gap 8\nx"));
        assert!(text.ends_with("\nlast\n"));
        assert_eq!(text.lines().count(), places + 1);
        assert!(kept.is_empty());
        kept.push(b"more\n");
        assert_eq!(write(&mut kept, usize::MAX), "more\n");
    }
}
