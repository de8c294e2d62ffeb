//! The search for secrets.

use std::sync::{Arc, Mutex, PoisonError};

use jobcred_tests::{Leak, Secrets};

/// All sets of secrets in play. Clones share them, and each set goes on growing.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Vec<Secrets>>>);

impl Watch {
    pub fn add(&self, secrets: &Secrets) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(secrets.clone());
    }

    pub fn leaks(&self, text: &[u8]) -> Vec<Leak> {
        let sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sets.iter().flat_map(|set| set.leaks(text)).collect()
    }

    /// Fails the test when `text` holds a secret. Says which, never what.
    pub fn check(&self, what: &str, text: &[u8]) {
        let leaks = self.leaks(text);
        // A test that fails already is not to abort.
        assert!(
            leaks.is_empty() || std::thread::panicking(),
            "{what} shows secrets: {leaks:?}"
        );
    }
}
