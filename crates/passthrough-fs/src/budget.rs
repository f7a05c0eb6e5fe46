use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of things that may be there at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    used: AtomicUsize,
    limit: usize,
}

/// The right to one of them, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Counter>);

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Counter {
            used: AtomicUsize::new(0),
            limit,
        }))
    }

    /// A permit, if one is left.
    pub(crate) fn take(&self) -> Option<Permit> {
        let more = |used: usize| (used < self.0.limit).then(|| used.saturating_add(1));
        self.0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Permit(Arc::clone(&self.0)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_and_come_back() {
        let budget = Budget::new(2);
        let first = budget.take();
        let second = budget.take();
        assert!(first.is_some() && second.is_some() && budget.take().is_none());
        drop(first);
        assert!(budget.take().is_some());
        assert!(Budget::new(0).take().is_none());
    }
}
