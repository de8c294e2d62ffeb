//! How long an agent under `run` lives: as long as anybody counts on it.
//!
//! Its supervisor has a lease like everyone else's, only over a connection that was inherited. When the last lease is gone the
//! agent closes its place and ends; where somebody has claimed the place meanwhile, it stays for him.

use std::mem::ManuallyDrop;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::log::{SharedStage, Stage};
use crate::front::claim::ONCE;
use crate::front::election::{Cleared, clear_place};
use crate::front::leases::{Lease, Leases};
use crate::front::socket::SocketFile;
use crate::supervisor::{ALONE, ENDED, FAILED, OTHERS, STAYS};

/// The pauses before it is tried again to end, where somebody claims the place and has no lease yet: the first and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The end of an agent, when it has come.
#[derive(Clone, Debug)]
pub(super) struct Tenure {
    leases: Arc<Leases>,
    /// The socket's file; `None` where it is somebody else's to remove. It is removed when the place is closed, and stays when this
    /// process ends in any other way: its successor may be on the way.
    file: Option<Arc<ManuallyDrop<SocketFile>>>,
    stop: watch::Sender<bool>,
    /// The supervisor's last word on COMMAND.
    word: SharedStage,
    /// What the job's log goes by. Set at the very end: until then others may run in the same directory.
    stage: SharedStage,
}

impl Tenure {
    /// Of an agent that ends, by `stop`, with the last of `leases`. `stage` is set then to what has become of COMMAND, or of those of
    /// the runs that shared the agent.
    pub(super) fn new(
        leases: Arc<Leases>,
        place: Option<PathBuf>,
        stop: watch::Sender<bool>,
        stage: SharedStage,
    ) -> Self {
        let file = place.and_then(|path| SocketFile::at(&path).ok());
        Self {
            leases,
            file: file.map(|file| Arc::new(ManuallyDrop::new(file))),
            stop,
            word: SharedStage::new(stage.get()),
            stage,
        }
    }

    /// Begins with the supervisor's lease.
    pub(super) fn begin_with_supervisor(self, connection: StdStream) -> std::io::Result<()> {
        connection.set_nonblocking(true)?;
        let connection = UnixStream::from_std(connection)?;
        let lease = self.leases.enter(Duration::ZERO);
        tokio::spawn(self.clone().attend(connection, lease));
        tokio::spawn(self.watch());
        Ok(())
    }

    /// Begins with nobody, for a while.
    pub(super) fn begin_alone(self, linger: Duration) {
        drop(self.leases.enter(linger));
        tokio::spawn(self.watch());
    }

    /// Tells the supervisor whether others count on this agent, so that it knows how to take its leave, and sees it go.
    async fn attend(self, mut connection: UnixStream, lease: Lease) {
        let mut count = self.leases.watch();
        let mut said = ALONE;
        let mut buffer = [0; 16];
        loop {
            let others = if *count.borrow_and_update() > 1 {
                OTHERS
            } else {
                ALONE
            };
            if others != said {
                said = others;
                let _ = connection.write_all(&[said]).await;
            }
            tokio::select! {
                _ = count.changed() => {}
                read = connection.read(&mut buffer) => {
                    let length = read.unwrap_or(0);
                    for said in buffer.iter().take(length) {
                        match *said {
                            ENDED => self.word.set(Stage::Ended),
                            FAILED => self.word.set(Stage::Failed),
                            _ => {}
                        }
                    }
                    if length == 0 {
                        break;
                    }
                }
            }
        }
        drop(lease);
        if self.leases.count() > 0 || !self.try_to_end() {
            // It was the supervisor's, and whoever reads that to its end must not wait for the runs of others.
            release_stderr();
            let _ = connection.write_all(&[STAYS]).await;
        }
    }

    /// Ends once there is no lease.
    async fn watch(self) {
        let mut count = self.leases.watch();
        loop {
            if count.wait_for(|count| *count == 0).await.is_err() {
                return;
            }
            let mut pause = FIRST_PAUSE;
            while self.leases.count() == 0 {
                if self.try_to_end() {
                    return;
                }
                // Somebody has come and is not served yet, or dies without a word.
                let _ = tokio::time::timeout(pause, count.changed()).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Ends, unless somebody claims the place. Whether it does.
    fn try_to_end(&self) -> bool {
        let ends = self
            .file
            .as_ref()
            .is_none_or(|file| clear_place(file, ONCE) == Cleared::Gone);
        if ends {
            self.stage.set(match self.word.get() {
                Stage::Ended if self.leases.has_failed() => Stage::Failed,
                // A COMMAND whose supervisor was killed may run on.
                word => word,
            });
            self.stop.send_replace(true);
        }
        ends
    }
}

fn release_stderr() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(null.as_fd());
    }
}
