//! The bounded map of entries.

use std::collections::HashMap;
use std::time::Duration;

use super::Key;
use super::entry::{Entry, Moment, Plan};

/// Entries by key. Only asking for a key that is not there adds one, and so may remove another: renewing never does.
///
/// Declared entries and those with a fetch under way never give way and are bounded elsewhere: by the configuration and
/// by the bound on fetches, which is below the capacity.
pub(super) struct Store {
    capacity: usize,
    entries: HashMap<Key, Entry>,
}

impl Store {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: HashMap::new(),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    /// The entry of `key`; a new and empty one if need be, for which the least useful one gives way when the store is
    /// full.
    pub(super) fn entry(&mut self, key: &Key, now: Moment) -> &mut Entry {
        if !self.entries.contains_key(key) {
            self.make_room(now);
        }
        self.entries
            .entry(key.clone())
            .or_insert_with(|| Entry::new(now))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// Drops what nobody needs any more. Gives the keys to renew now, and the time until the next of the others is to be
    /// looked at again; `None` when there are none.
    pub(super) fn plan(&mut self, now: Moment) -> (Vec<Key>, Option<Duration>) {
        let mut due = Vec::new();
        let mut wait: Option<Duration> = None;
        self.entries.retain(|key, entry| {
            match entry.plan(now) {
                Plan::LetGo => return false,
                Plan::Refresh => due.push(key.clone()),
                Plan::Wait(time) => wait = Some(wait.map_or(time, |wait| wait.min(time))),
            }
            true
        });
        (due, wait)
    }

    /// Takes all entries out.
    pub(super) fn take(&mut self) -> HashMap<Key, Entry> {
        std::mem::take(&mut self.entries)
    }

    fn make_room(&mut self, now: Moment) {
        let undeclared = self.entries.values().filter(|entry| !entry.is_declared());
        if undeclared.count() < self.capacity {
            return;
        }
        let least = self
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((entry.usefulness(now)?, key)))
            .min_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(_, key)| key.clone());
        if let Some(key) = least {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use jobcred_wire::Secret;
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::Store;
    use crate::broker::Key;
    use crate::broker::entry::Moment;
    use crate::platform::UnixTime;
    use crate::token::{AccessToken, Identity};

    const CAPACITY: usize = 5;

    #[derive(Clone, Debug)]
    enum Step {
        Ask(u8),
        /// A renewal of a key that is there.
        Renew(u8),
        Declare(u8),
        Forget(u8),
        Pass,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u8..30).prop_map(Step::Ask),
            4 => (0_u8..30).prop_map(Step::Renew),
            1 => (0_u8..3).prop_map(Step::Declare),
            1 => (0_u8..30).prop_map(Step::Forget),
            1 => Just(Step::Pass),
        ]
    }

    fn key(number: u8) -> Key {
        Key::Registry {
            identity: Identity::Job,
            server: number.to_string(),
        }
    }

    fn keys(store: &Store) -> BTreeSet<Key> {
        store.iter().map(|(key, _)| key.clone()).collect()
    }

    fn renew(store: &mut Store, key: &Key, now: Moment, number: usize) {
        let token = AccessToken {
            secret: Secret::new(number.to_string()),
            expires_on: now.wall + Duration::from_secs(100),
            refresh_on: None,
            resource: String::new(),
            client_id: None,
        };
        store
            .entry(key, now)
            .land(key, now, Ok(token), 0, false)
            .result
            .unwrap();
    }

    proptest! {
        #[test]
        fn only_a_new_key_makes_room_and_only_for_itself(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut store = Store::new(CAPACITY);
            let mut declared = BTreeSet::new();
            let start = Instant::now();
            for (number, step) in steps.into_iter().enumerate() {
                let passed = Duration::from_secs(number as u64);
                let now = Moment {
                    wall: UnixTime::from_secs(1_000) + passed,
                    runtime: start + passed,
                };
                let before = keys(&store);
                match step {
                    Step::Ask(n) => {
                        if let Some(entry) = store.get_mut(&key(n)) {
                            let _ = entry.hit(now, Duration::ZERO);
                        } else {
                            renew(&mut store, &key(n), now, number);
                        }
                        let after = keys(&store);
                        prop_assert!(after.contains(&key(n)));
                        let gone = before.difference(&after).count();
                        prop_assert!(gone <= usize::from(!before.contains(&key(n))));
                    }
                    Step::Renew(n) => {
                        if before.contains(&key(n)) {
                            renew(&mut store, &key(n), now, number);
                            prop_assert_eq!(keys(&store), before);
                        }
                    }
                    Step::Declare(n) => {
                        store.entry(&key(n), now).declare();
                        declared.insert(key(n));
                    }
                    Step::Forget(n) => {
                        if let Some(entry) = store.get_mut(&key(n)) {
                            entry.forget();
                        }
                    }
                    Step::Pass => {
                        let _ = store.plan(now);
                    }
                }
                let held = keys(&store);
                prop_assert!(held.is_superset(&declared));
                prop_assert!(held.len() <= CAPACITY + declared.len());
            }
        }
    }
}
