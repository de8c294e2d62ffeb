//! Leases: connections that stay open and tell the agent that somebody counts on it.
//!
//! Over each of them goes what a successor of this agent would have to know, one line of JSON at once and one whenever more
//! becomes known. A lease ends with its connection, so a process that is killed gives its lease back too.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::watch;

use super::reply::ReplyBody;

/// The longest that a lease may be asked to count on after its connection has ended.
pub const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// Who counts on this agent, and what they are told.
#[derive(Debug)]
pub struct Leases {
    count: watch::Sender<usize>,
    told: watch::Sender<Bytes>,
    has_failed: AtomicBool,
}

/// One lease, for as long as it is kept.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
    linger: Duration,
}

impl Leases {
    /// None yet, and nothing to tell.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            count: watch::Sender::new(0),
            told: watch::Sender::new(Bytes::new()),
            has_failed: AtomicBool::new(false),
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// The number as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Tells all of them, now and later ones, a line, in place of the one before.
    pub fn tell(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        self.told.send_replace(line.into());
    }

    /// Takes note that the COMMAND of one of them has failed.
    pub fn note_failure(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Whether one has said so.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// One more, which goes on to count for `linger` after it was dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, linger: Duration) -> Lease {
        self.count.send_modify(|count| *count += 1);
        Lease {
            leases: Arc::clone(self),
            linger: linger.min(LONGEST_LINGER),
        }
    }
}

impl Lease {
    /// The body of the answer to the one who asked for it: what is told, line by line, without end.
    #[must_use]
    pub fn into_body(self) -> ReplyBody {
        let mut told = self.leases.told.subscribe();
        told.mark_changed();
        let lines = stream::unfold((told, self), |(mut told, lease)| async move {
            told.changed().await.ok()?;
            let line = told.borrow_and_update().clone();
            Some((Ok::<_, Infallible>(Frame::data(line)), (told, lease)))
        });
        ReplyBody::Right(StreamBody::new(lines).boxed())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (false, Ok(runtime)) = (self.linger.is_zero(), runtime) {
            let leases = Arc::clone(&self.leases);
            let linger = self.linger;
            runtime.spawn(async move {
                tokio::time::sleep(linger).await;
                leases.leave();
            });
        } else {
            self.leases.leave();
        }
    }
}

impl Leases {
    fn leave(&self) {
        self.count
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::{LONGEST_LINGER, Leases};

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_told_what_is_known_and_what_becomes_known() {
        let leases = Leases::new();
        leases.tell(b"{\"a\":1}".to_vec());
        let mut body = leases.enter(Duration::ZERO).into_body();
        assert_eq!(leases.count(), 1);
        for line in ["{\"a\":1}\n", "{\"a\":2}\n"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), line);
            leases.tell(b"{\"a\":2}".to_vec());
        }
        drop(body);
        assert_eq!(leases.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_lingers_counts_on_for_a_while_and_not_for_ever() {
        let leases = Leases::new();
        let mut count = leases.watch();
        let begin = tokio::time::Instant::now();
        drop(leases.enter(Duration::from_secs(1_000_000)));
        assert_eq!(leases.count(), 1);
        count.wait_for(|count| *count == 0).await.unwrap();
        assert_eq!(begin.elapsed(), LONGEST_LINGER);
    }
}
