use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many chains of a queue are with the pool.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: Mutex<usize>,
    none: Condvar,
}

impl InFlight {
    pub(crate) fn count(&self) -> usize {
        *self.lock()
    }

    pub(crate) fn add_one(&self) {
        let mut count = self.lock();
        *count = count.saturating_add(1);
    }

    pub(crate) fn remove_one(&self) {
        let mut count = self.lock();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.none.notify_all();
        }
    }

    /// Waits until there are none, but no longer than `patience`, and returns whether there are.
    pub(crate) fn wait_for_none(&self, patience: Duration) -> bool {
        let waited = self
            .none
            .wait_timeout_while(self.lock(), patience, |count| *count > 0);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
