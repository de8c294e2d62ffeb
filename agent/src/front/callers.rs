//! Who asked, for `status`: a bounded table by uid and pid.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jobcred_wire::CallerStatus;

use crate::peer::Peer;
use crate::platform::UnixTime;

/// Callers remembered; the one unseen for longest makes room.
const MAX_CALLERS: usize = 512;

/// The callers seen so far.
#[derive(Debug, Default)]
pub struct Callers(Mutex<HashMap<(u32, Option<u32>), Seen>>);

#[derive(Debug)]
struct Seen {
    requests: u64,
    last: UnixTime,
}

impl Callers {
    /// Counts one request.
    pub fn note(&self, peer: Peer, now: UnixTime) {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.uid, peer.pid);
        if let Some(seen) = callers.get_mut(&key) {
            seen.requests += 1;
            seen.last = now;
            return;
        }
        if callers.len() >= MAX_CALLERS
            && let Some(oldest) = callers
                .iter()
                .min_by_key(|(_, seen)| seen.last)
                .map(|(key, _)| *key)
        {
            callers.remove(&oldest);
        }
        callers.insert(
            key,
            Seen {
                requests: 1,
                last: now,
            },
        );
    }

    /// The table, the most recent caller first.
    #[must_use]
    pub fn list(&self) -> Vec<CallerStatus> {
        let callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = callers
            .iter()
            .map(|(&(uid, pid), seen)| CallerStatus {
                uid,
                pid,
                requests: seen.requests,
                last_seen_on: seen.last.as_secs(),
            })
            .collect();
        list.sort_by_key(|caller| {
            (
                std::cmp::Reverse(caller.last_seen_on),
                caller.uid,
                caller.pid,
            )
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::{Callers, MAX_CALLERS};
    use crate::peer::Peer;
    use crate::platform::UnixTime;

    fn peer(pid: u32) -> Peer {
        Peer {
            uid: 1,
            gid: 1,
            pid: Some(pid),
        }
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_recent() {
        let callers = Callers::default();
        for pid in 0..1000 {
            callers.note(peer(pid), UnixTime::from_secs(i64::from(pid)));
        }
        callers.note(peer(999), UnixTime::from_secs(1000));
        let list = callers.list();
        assert_eq!(list.len(), MAX_CALLERS);
        assert_eq!((list[0].pid, list[0].requests), (Some(999), 2));
        assert_eq!(list[MAX_CALLERS - 1].pid, Some(488));
    }
}
