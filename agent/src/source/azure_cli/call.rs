//! One bounded run of the program.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::platform::Environment;

/// A token is 2 to 30 KiB.
const MOST_OUTPUT: usize = 256 * 1024;
/// Of what it complains, the end counts.
const MOST_WORDS: usize = 16 * 1024;

/// What is to be run. No shell is in between.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<String>,
    pub(super) environment: &'a Environment,
    pub(super) patience: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With 0, and this on its output.
    Well(Zeroizing<Vec<u8>>),
    /// Otherwise: with its code, where it had one, and what it said.
    Badly { code: Option<i32>, words: String },
    /// Not in time; everything it started is ended.
    TooLate,
    /// It did not begin.
    NotStarted(io::Error),
}

/// Ends the program's process group when it is dropped before the program was waited for: also when the agent lets go of a
/// call half-way.
struct Group {
    child: Child,
    is_over: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        // The number is the program's own for as long as it has not been waited for.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let (false, Some(id)) = (self.is_over, id) {
            // It may have ended by now.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

impl Call<'_> {
    pub(super) async fn run(self) -> Ended {
        let spawned = Command::new(self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut group = match spawned {
            Ok(child) => Group {
                child,
                is_over: false,
            },
            Err(error) => return Ended::NotStarted(error),
        };
        let (output, words) = (group.child.stdout.take(), group.child.stderr.take());
        let ended = timeout(self.patience, async {
            let (output, words) = tokio::join!(
                read(output, MOST_OUTPUT, End::First),
                read(words, MOST_WORDS, End::Last)
            );
            // Only now: what it left behind in its group may still hold the pipes, and is ended with it.
            let status = group.child.wait().await;
            (output, words, status)
        })
        .await;
        let Ok((output, words, status)) = ended else {
            return Ended::TooLate;
        };
        group.is_over = true;
        match status {
            Ok(status) if status.success() => Ended::Well(output),
            Ok(status) => Ended::Badly {
                code: status.code(),
                words: String::from_utf8_lossy(&words).into_owned(),
            },
            Err(error) => Ended::NotStarted(error),
        }
    }
}

/// Which end of what is written is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// Everything that is written, of which `most` bytes are kept: a program whose output nobody reads would hang.
async fn read(from: Option<impl AsyncRead + Unpin>, most: usize, end: End) -> Zeroizing<Vec<u8>> {
    let mut kept = Zeroizing::new(Vec::with_capacity(8 * 1024));
    let mut buffer = Zeroizing::new(vec![0; 8 * 1024]);
    let Some(mut from) = from else { return kept };
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if end == End::Last {
            let excess = (kept.len() + count).saturating_sub(most).min(kept.len());
            kept.drain(..excess);
        }
        let room = most.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(count.min(room)));
    }
    kept
}
