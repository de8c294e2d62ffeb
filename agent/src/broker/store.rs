//! The bounded map of entries.

use std::collections::HashMap;

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

    /// Drops what nobody needs any more and gives the plan of every other entry.
    pub(super) fn plans(&mut self, now: Moment) -> Vec<(Key, Plan)> {
        let mut plans = Vec::with_capacity(self.entries.len());
        self.entries.retain(|key, entry| match entry.plan(now) {
            Plan::LetGo => false,
            plan => {
                plans.push((key.clone(), plan));
                true
            }
        });
        plans
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
