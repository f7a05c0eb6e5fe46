use std::cell::Cell;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a [`Session`](crate::Session) has counted since it was made, over all INITs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Requests that were dealt with, errors included. One that is served again because it would
    /// have had to wait counts once.
    pub served: u64,
    /// Requests among them that broke a rule of the protocol, were of an unknown operation, or
    /// left no room for their reply.
    pub malformed: u64,
    /// Times that the filesystem broke its contract and the guest was told EIO.
    pub faults: u64,
}

/// Enough that threads of a busy device rarely share one.
const SHARDS: usize = 16;

/// Counts for [`SessionStats`]. What each request counts is spread over cache lines, so that queues
/// do not slow each other down.
#[derive(Debug, Default)]
pub(super) struct Counters {
    served: [Shard; SHARDS],
    malformed: AtomicU64,
    faults: AtomicU64,
}

/// Alone on the two cache lines that processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

impl Counters {
    pub(super) fn read(&self) -> SessionStats {
        let served = self
            .served
            .iter()
            .map(|shard| shard.0.load(Ordering::Relaxed));
        SessionStats {
            served: served.fold(0, u64::wrapping_add),
            malformed: self.malformed.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
        }
    }

    pub(super) fn served(&self) {
        if let Some(shard) = self.served.get(shard_of_this_thread()) {
            shard.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that the guest got wrong. A guest can do that as often as it likes, so
    /// only the 1st, 2nd, 4th, 8th and so on are logged.
    pub(super) fn malformed(&self, opcode: Option<u32>, reason: &dyn Display) {
        let count = increment(&self.malformed);
        if count.is_power_of_two() {
            tracing::warn!(opcode, count, "malformed request: {reason}");
        }
    }

    /// Counts, and logs as rarely, that the filesystem did what it may not.
    pub(super) fn fault(&self, opcode: u32, reason: &dyn Display) {
        let count = increment(&self.faults);
        if count.is_power_of_two() {
            tracing::error!(opcode, count, "fault in the filesystem: {reason}");
        }
    }
}

/// Counts one more and returns how many that makes.
fn increment(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: Cell<Option<usize>> = const { Cell::new(None) });

    SHARD.with(|shard| {
        shard.get().unwrap_or_else(|| {
            let mine = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            shard.set(Some(mine));
            mine
        })
    })
}
