//! The one background task: renews what is in use, lets go of what is not.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::Broker;
use crate::platform::ClockJumps;

/// The longest sleep while anything is held and nobody tells of clocks that are set. Expiry is wall time, which a suspended machine
/// or a corrected clock moves without the runtime noticing, so the plan is made anew at least this often then.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The longest sleep where somebody does. There is no more to look for in between.
const LONGEST_SLEEP_WITH_WORD: Duration = Duration::from_secs(24 * 3600);
/// The shortest sleep, so that no plan, however odd, can keep the runtime busy.
const SHORTEST_SLEEP: Duration = Duration::from_millis(20);

/// Runs until its broker is gone. It holds the broker only while it works, never while it waits.
///
/// `jumps` tells that the wall clock was set, or that the machine slept, at once: an idle agent wakes up for nothing else.
pub(super) async fn run(broker: Weak<Broker>, wake: Arc<Notify>, jumps: Option<ClockJumps>) {
    let longest = if jumps.is_some() {
        LONGEST_SLEEP_WITH_WORD
    } else {
        LONGEST_SLEEP
    };
    let jump = async || match &jumps {
        Some(jumps) => jumps.next().await,
        None => std::future::pending().await,
    };
    loop {
        // A wake-up during the pass is kept by the Notify, so none is lost between the pass and the wait.
        let sleep = broker.upgrade().map(|broker| broker.pass(longest));
        match sleep {
            // The broker may not be there yet: it starts this task before it is complete.
            None | Some(None) => wake.notified().await,
            Some(Some(sleep)) => {
                // Either way it is time for the next pass.
                let news = async {
                    tokio::select! {
                        () = wake.notified() => {}
                        () = jump() => {}
                    }
                };
                let _ = timeout(sleep, news).await;
            }
        }
    }
}

impl Broker {
    /// Starts what is due and says how long to sleep; `None` when nothing is held.
    fn pass(&self, longest: Duration) -> Option<Duration> {
        // It may have been set just now.
        self.clock.say_fault();
        let now = self.now();
        let mut state = self.lock();
        let (due, wait) = state.store.plan(now);
        let is_empty = due.is_empty() && wait.is_none();
        for key in due {
            // When too much is in flight, the next landing wakes the scheduler.
            let _ = self.start(&mut state, &key, None, false);
        }
        let sleep = wait.unwrap_or(LONGEST_SLEEP);
        (!is_empty).then(|| sleep.clamp(SHORTEST_SLEEP, longest))
    }
}
