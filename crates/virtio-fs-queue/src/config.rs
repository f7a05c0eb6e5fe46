use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuse_fs::Serve;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::{Polling, Pool, RingArea, StartError, Stats, WriteLog};

/// Where a split virtqueue is and how it is used: what the driver and the transport agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Number of descriptors: a power of two from 1 to 32768 (virtio 1.x, section 2.7).
    pub size: u16,
    /// Guest address of the descriptor table, a multiple of 16.
    pub descriptors: GuestAddress,
    /// Guest address of the available ring, a multiple of 2.
    pub avail: GuestAddress,
    /// Guest address of the used ring, a multiple of 4.
    pub used: GuestAddress,
    /// Whether `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// Whether `VIRTIO_F_INDIRECT_DESC` was negotiated.
    pub indirect: bool,
    /// Where to start; all zero for a ring that was never used.
    pub position: Position,
}

/// How far a ring has been processed. Both count chains since the ring was set up, modulo 2^16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Chains taken from the available ring: the next to take has this index.
    pub next_avail: u16,
    /// Chains given back: `idx` of the used ring.
    pub next_used: u16,
}

/// Offset of `idx` in the used ring (virtio 1.x, section 2.7.8).
const USED_IDX: u64 = 2;

impl Position {
    /// Where to go on with the ring whose used part is at `used`, when the next to take is
    /// `next_avail`. How much was given back so far the ring tells; it counts as 0 where the ring is
    /// not in memory, which the start of the queue finds.
    #[must_use]
    pub fn of_ring(memory: &impl GuestMemoryBackend, used: GuestAddress, next_avail: u16) -> Self {
        let idx = GuestAddress(used.0.saturating_add(USED_IDX));
        let next_used = memory.load(idx, Ordering::Acquire).map_or(0, u16::from_le);
        Self {
            next_avail,
            next_used,
        }
    }
}

/// What a queue needs beside its ring.
pub struct Resources<AS> {
    /// The guest's memory. The map is looked up again whenever more chains turn out to be
    /// available: what is added to it before the driver uses it is found.
    pub memory: AS,
    /// Serves the requests.
    pub filesystem: Arc<dyn Serve>,
    /// Serves those that have to wait; shared by all queues of a device.
    pub pool: Arc<Pool>,
    /// How the queue polls; shared by those of a device's queues that do.
    pub polling: Arc<Polling>,
    /// Learns what is written to the guest's memory, where somebody wants to know.
    pub log: Option<Arc<dyn WriteLog>>,
    /// What happens is counted there, over as many restarts of the queue as there are.
    pub stats: Arc<Stats>,
    /// Interrupts the driver (a vhost-user *call*). Called from the thread that drains and from the
    /// pool's, never with a lock held.
    pub notify: Box<dyn Fn() + Send + Sync>,
}

impl<AS> fmt::Debug for Resources<AS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources")
            .field("pool", &self.pool)
            .field("polling", &self.polling)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Largest split virtqueue (virtio 1.x, section 2.7).
const MAX_SIZE: u16 = 1 << 15;

impl QueueConfig {
    /// Checks what can be checked without the guest's memory.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if !self.size.is_power_of_two() || self.size > MAX_SIZE {
            return Err(StartError::Size(self.size));
        }
        for (area, address, alignment) in [
            (RingArea::Descriptors, self.descriptors, 16),
            (RingArea::Avail, self.avail, 2),
            (RingArea::Used, self.used, 4),
        ] {
            if !address.0.is_multiple_of(alignment) {
                return Err(StartError::Misaligned {
                    area,
                    address: address.0,
                    alignment,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn address_of(&self, area: RingArea) -> GuestAddress {
        match area {
            RingArea::Descriptors => self.descriptors,
            RingArea::Avail => self.avail,
            RingArea::Used => self.used,
        }
    }

    /// Bytes of an area, the field behind its ring included that only EVENT_IDX gives a meaning.
    pub(crate) fn len_of(&self, area: RingArea) -> usize {
        let size = usize::from(self.size);
        // `flags` and `idx` before the ring.
        let around: usize = if self.event_idx { 6 } else { 4 };
        match area {
            RingArea::Descriptors => size.saturating_mul(16),
            RingArea::Avail => size.saturating_mul(2).saturating_add(around),
            RingArea::Used => size.saturating_mul(8).saturating_add(around),
        }
    }
}
