use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

    pub(crate) fn wait_for_none(&self) {
        let count = self.lock();
        drop(
            self.none
                .wait_while(count, |count| *count > 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
