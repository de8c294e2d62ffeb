//! Who asked for tokens, for `status`: a bounded table by uid and pid.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jobcred_wire::CallerStatus;

use crate::platform::{ProcessFacts, Processes, StartTime, UnixTime};

/// Callers remembered; the one unseen for longest makes room.
const MAX_CALLERS: usize = 512;
/// Callers whose process is looked at for one list, the most recent ones: each costs a few reads of `/proc`.
const MAX_LOOKED_AT: usize = 128;

/// The callers seen so far.
#[derive(Debug)]
pub struct Callers {
    seen: Mutex<HashMap<(u32, Option<u32>), Seen>>,
    processes: Processes,
}

#[derive(Debug)]
struct Seen {
    requests: u64,
    last: UnixTime,
    looked_at: Option<LookedAt>,
}

/// A caller's process, when it was looked at.
#[derive(Debug)]
struct LookedAt {
    start: StartTime,
    facts: ProcessFacts,
    /// How many requests there had been.
    requests: u64,
}

impl Callers {
    /// None so far; what they are is looked up in `processes`.
    #[must_use]
    pub fn new(processes: Processes) -> Self {
        Self {
            seen: Mutex::default(),
            processes,
        }
    }

    /// Counts one request for a token or a credential. Looks at nothing: this is on every request's way.
    pub fn note(&self, uid: u32, pid: Option<u32>, now: UnixTime) {
        let mut callers = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (uid, pid);
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
                looked_at: None,
            },
        );
    }

    /// The table, the most recent caller first, with what can be seen of their processes.
    #[must_use]
    pub fn list(&self) -> Vec<CallerStatus> {
        let mut callers = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recent: Vec<_> = callers.iter_mut().collect();
        recent.sort_by_key(|&(&key, ref seen)| (Reverse(seen.last), key));
        recent
            .into_iter()
            .enumerate()
            .map(|(at, (&(uid, pid), seen))| {
                let pid_to_see = pid.filter(|_| at < MAX_LOOKED_AT);
                let ended = pid_to_see.is_some_and(|pid| !self.look_at(pid, seen));
                let facts = seen.looked_at.as_ref().map(|looked| looked.facts.clone());
                let ProcessFacts { name, ranks } = facts.unwrap_or_default();
                CallerStatus {
                    uid,
                    pid,
                    requests: seen.requests,
                    last_seen_on: seen.last.as_secs(),
                    name,
                    ranks,
                    ended,
                }
            })
            .collect()
    }

    /// Whether the process that asked is still there; what it is, is looked up the first time.
    fn look_at(&self, pid: u32, seen: &mut Seen) -> bool {
        let Some(start) = self.processes.start_time(pid) else {
            return false;
        };
        if let Some(looked) = &seen.looked_at {
            if looked.start == start {
                return true;
            }
            if looked.requests == seen.requests {
                // The pid is somebody else's by now, who has asked for nothing.
                return false;
            }
        }
        seen.looked_at = Some(LookedAt {
            start,
            facts: self.processes.facts(pid),
            requests: seen.requests,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Callers, MAX_CALLERS};
    use crate::platform::{Processes, UnixTime};

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_secs(seconds)
    }

    /// A process that began at `start`, with one variable.
    fn process(root: &Path, pid: u32, start: u64, variable: &str) {
        let dir = root.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let line =
            format!("{pid} (python) R 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {start} 1 1 1");
        fs::write(dir.join("stat"), line).unwrap();
        fs::write(dir.join("comm"), "python\n").unwrap();
        fs::write(dir.join("environ"), format!("A=b\0{variable}\0")).unwrap();
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_recent() {
        let nowhere = tempfile::tempdir().unwrap();
        let callers = Callers::new(Processes::under(nowhere.path()));
        for pid in 0..1000 {
            callers.note(1, Some(pid), at(i64::from(pid)));
        }
        callers.note(1, Some(999), at(1000));
        let list = callers.list();
        assert_eq!(list.len(), MAX_CALLERS);
        assert_eq!((list[0].pid, list[0].requests), (Some(999), 2));
        assert_eq!(list[MAX_CALLERS - 1].pid, Some(488));
    }

    #[test]
    fn a_caller_is_named_with_its_rank_and_stays_so_when_it_has_ended() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 7, 100, "RANK=3");
        let callers = Callers::new(Processes::under(proc.path()));
        callers.note(1, Some(7), at(1));
        let first = callers.list().remove(0);
        assert_eq!(first.name.as_deref(), Some("python"));
        assert_eq!(first.ranks["RANK"], "3");
        assert!(!first.ended);
        fs::remove_dir_all(proc.path().join("7")).unwrap();
        let last = callers.list().remove(0);
        assert_eq!((last.ranks, last.ended), (first.ranks, true));
    }

    #[test]
    fn a_pid_that_is_used_again_is_not_taken_for_the_caller() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 7, 100, "RANK=3");
        let callers = Callers::new(Processes::under(proc.path()));
        callers.note(1, Some(7), at(1));
        let _ = callers.list();
        process(proc.path(), 7, 200, "RANK=4");
        let listed = callers.list().remove(0);
        assert_eq!((listed.ranks["RANK"].as_str(), listed.ended), ("3", true));
        // Now it asks, too.
        callers.note(1, Some(7), at(2));
        let listed = callers.list().remove(0);
        assert_eq!((listed.ranks["RANK"].as_str(), listed.ended), ("4", false));
    }
}
