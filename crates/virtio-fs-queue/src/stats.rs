use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happened on a queue. Counted by its threads, read by anyone.
///
/// Nothing else is in its cache lines, of which processors fetch pairs: what one queue counts slows
/// down no other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Stats {
    chains: AtomicU64,
    offloaded: AtomicU64,
    interrupts: AtomicU64,
    polls_with_result: AtomicU64,
    polls_in_vain: AtomicU64,
    malformed: AtomicU64,
    ring_errors: AtomicU64,
    panics: AtomicU64,
}

/// The state of [`Stats`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Descriptor chains taken from the available ring.
    pub chains: u64,
    /// Requests that were left to the pool.
    pub offloaded: u64,
    /// Interrupts sent to the driver.
    pub interrupts: u64,
    /// Times that the queue looked out for chains and one came: a kick that was not needed.
    pub polls_with_result: u64,
    /// Times that it looked out for chains until time was up.
    pub polls_in_vain: u64,
    /// Chains that broke a rule and were given back with length 0.
    pub malformed: u64,
    /// Times that the ring itself was broken.
    pub ring_errors: u64,
    /// Requests during which the filesystem panicked.
    pub panics: u64,
}

impl Stats {
    /// The counts so far.
    #[must_use]
    pub fn read(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            chains: load(&self.chains),
            offloaded: load(&self.offloaded),
            interrupts: load(&self.interrupts),
            polls_with_result: load(&self.polls_with_result),
            polls_in_vain: load(&self.polls_in_vain),
            malformed: load(&self.malformed),
            ring_errors: load(&self.ring_errors),
            panics: load(&self.panics),
        }
    }

    pub(crate) fn count_chain(&self) {
        increment(&self.chains);
    }

    pub(crate) fn count_offloaded(&self) {
        increment(&self.offloaded);
    }

    pub(crate) fn count_interrupt(&self) {
        increment(&self.interrupts);
    }

    pub(crate) fn count_poll_with_result(&self) {
        increment(&self.polls_with_result);
    }

    pub(crate) fn count_poll_in_vain(&self) {
        increment(&self.polls_in_vain);
    }

    pub(crate) fn malformed(&self, error: &dyn fmt::Display) {
        let count = increment(&self.malformed);
        if is_worth_a_line(count) {
            tracing::warn!(count, "malformed descriptor chain: {error}");
        }
    }

    pub(crate) fn ring_error(&self, error: &dyn fmt::Display) {
        let count = increment(&self.ring_errors);
        if is_worth_a_line(count) {
            tracing::error!(
                count,
                "the queue is broken until it is set up anew: {error}"
            );
        }
    }

    pub(crate) fn panic(&self) {
        let count = increment(&self.panics);
        if is_worth_a_line(count) {
            tracing::error!(
                count,
                "the filesystem panicked; its request failed with EIO"
            );
        }
    }
}

fn increment(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// Ever more rarely, so that a guest cannot fill the log.
fn is_worth_a_line(count: u64) -> bool {
    count.is_power_of_two()
}
