//! How far COMMAND is, as the writer of the job's log has to know it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How far COMMAND is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Stage {
    /// It may be running: its directory is its own.
    Running,
    /// It has ended, or there is none.
    Ended,
    /// It has ended, and failed: somebody will look for reasons.
    Failed,
}

/// One stage, known to all who have a clone of it.
#[derive(Clone, Debug)]
pub(in crate::cli) struct SharedStage(Arc<AtomicU8>);

impl SharedStage {
    pub(in crate::cli) fn new(stage: Stage) -> Self {
        Self(Arc::new(AtomicU8::new(stage as u8)))
    }

    pub(in crate::cli) fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Release);
    }

    pub(in crate::cli) fn get(&self) -> Stage {
        const ENDED: u8 = Stage::Ended as u8;
        const FAILED: u8 = Stage::Failed as u8;
        match self.0.load(Ordering::Acquire) {
            ENDED => Stage::Ended,
            FAILED => Stage::Failed,
            _ => Stage::Running,
        }
    }
}
