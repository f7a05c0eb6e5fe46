use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What of a queue is with the pool.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    counts: Mutex<Counts>,
    none: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests whose threads are not done with them.
    requests: usize,
    /// Those of them whose chains were not given back: as soon as one is, the driver can use its
    /// descriptors for the next.
    chains: usize,
}

impl InFlight {
    /// How many chains the driver waits for.
    pub(crate) fn chains(&self) -> usize {
        self.lock().chains
    }

    /// A request is left to the pool.
    pub(crate) fn begin(&self) {
        let mut counts = self.lock();
        counts.requests = counts.requests.saturating_add(1);
        counts.chains = counts.chains.saturating_add(1);
    }

    /// The chain of a request is about to be given back, or not to be waited for.
    pub(crate) fn give_back(&self) {
        let mut counts = self.lock();
        counts.chains = counts.chains.saturating_sub(1);
    }

    /// A request is done with.
    pub(crate) fn end(&self) {
        let mut counts = self.lock();
        counts.requests = counts.requests.saturating_sub(1);
        if counts.requests == 0 {
            self.none.notify_all();
        }
    }

    /// Waits until there are no requests, but no longer than `patience`, and returns whether there
    /// are none.
    pub(crate) fn wait_for_none(&self, patience: Duration) -> bool {
        let waited = self
            .none
            .wait_timeout_while(self.lock(), patience, |counts| counts.requests > 0);
        let (counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counts.requests == 0
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
