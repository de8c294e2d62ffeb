//! A writer that never waits: lines go to a thread of their own, and are dropped when that cannot keep up.
//!
//! The agent has one thread for everything else. A log collector that hangs would stop it in the middle of a line, and with it
//! every token request.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that may wait to be written.
const MAX_WAITING: usize = 1024;
/// The longest line that is kept whole, in bytes.
const MAX_LINE: usize = 16 * 1024;
/// The most that the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

enum Job {
    Line(Vec<u8>),
    /// Answered once everything before it has been written.
    Mark(SyncSender<()>),
}

/// Takes lines, each in one `write`; `flush` comes when no more are waiting. Clones share one thread, which sleeps while
/// nothing is logged.
#[derive(Clone, Debug)]
pub(super) struct Lossy {
    jobs: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

impl Lossy {
    /// Starts the thread. Where none can be had nothing is logged.
    ///
    /// `gap` is the line that says how many were dropped.
    pub(super) fn start<W: Write>(
        open: impl FnOnce() -> W + Send + 'static,
        gap: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        // The handle is not kept: a thread that is stuck must not be waited for.
        let _ = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&waiting, &mut open(), &count, &gap));
        Self { jobs, dropped }
    }

    /// Waits until everything so far is written, for 200 ms at most.
    pub(super) fn flush(&self) {
        let (mark, reached) = sync_channel(1);
        if self.jobs.try_send(Job::Mark(mark)).is_ok() {
            let _ = reached.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Lossy {
    /// Takes a line, or counts it as dropped.
    pub(super) fn take(&self, line: &[u8]) {
        let mut kept = line.get(..MAX_LINE).unwrap_or(line).to_vec();
        if kept.len() < line.len() {
            kept.push(b'\n');
        }
        if self.jobs.try_send(Job::Line(kept)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for Lossy {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(
    waiting: &Receiver<Job>,
    out: &mut impl Write,
    dropped: &AtomicU64,
    gap: &dyn Fn(u64) -> Vec<u8>,
) {
    // What is closed takes nothing; there is nobody to tell.
    while let Some(job) = next(waiting, out) {
        let line = match job {
            Job::Line(line) => line,
            Job::Mark(mark) => {
                let _ = out.flush();
                let _ = mark.try_send(());
                continue;
            }
        };
        let _ = out.write_all(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = out.write_all(&gap(lost));
        }
    }
}

/// The next job; `None` when nobody is left to give one.
fn next(waiting: &Receiver<Job>, out: &mut impl Write) -> Option<Job> {
    match waiting.try_recv() {
        Ok(job) => Some(job),
        Err(TryRecvError::Disconnected) => None,
        Err(TryRecvError::Empty) => {
            let _ = out.flush();
            waiting.recv().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use super::{Lossy, MAX_LINE, MAX_WAITING};

    /// Keeps what is written; waits before each write for leave.
    struct Held {
        written: Arc<Mutex<Vec<u8>>>,
        leave: Receiver<()>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An end of the channel is leave for everything.
            let _ = self.leave.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn held() -> (Lossy, Arc<Mutex<Vec<u8>>>, Sender<()>) {
        let (allow, leave) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let held = Held {
            written: Arc::clone(&written),
            leave,
        };
        let gap =
            |lost| format!("jobcred: {lost} lines of the log were dropped here\n").into_bytes();
        (Lossy::start(move || held, gap), written, allow)
    }

    #[test]
    fn what_is_logged_is_written_in_order() {
        let (mut lossy, written, allow) = held();
        drop(allow);
        let all = ('a'..='z')
            .map(|name| format!("line {name}\n"))
            .collect::<Vec<_>>()
            .concat();
        for line in all.split_inclusive('\n') {
            lossy.write_all(line.as_bytes()).unwrap();
        }
        lossy.flush();
        assert_eq!(*written.lock().unwrap(), all.as_bytes());
    }

    #[test]
    fn a_reader_that_hangs_costs_lines_and_not_time() {
        let (mut lossy, written, allow) = held();
        for _ in 0..2 * MAX_WAITING {
            lossy.write_all(b"line\n").unwrap();
        }
        // Gives up.
        lossy.flush();
        assert!(written.lock().unwrap().is_empty());
        drop(allow);
        let is_told = || {
            let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
            written.contains("lines of the log were dropped here\n")
        };
        while !is_told() {
            lossy.flush();
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let (mut lossy, written, allow) = held();
        drop(allow);
        lossy.write_all(&vec![b'x'; 2 * MAX_LINE]).unwrap();
        lossy.flush();
        let written = written.lock().unwrap();
        assert_eq!(written.len(), MAX_LINE + 1);
        assert!(written.ends_with(b"x\n"));
    }
}
