use std::sync::atomic::{Ordering, fence};

use vm_memory::bitmap::{BitmapSlice, MS};
use vm_memory::{AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

use crate::write_log::Log;
use crate::{QueueConfig, RingArea, RingError};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`.
const NO_NOTIFY: u16 = 1;
/// Offset of `flags` in the available and the used ring.
const FLAGS: usize = 0;
/// Offset of `idx` in the available and the used ring.
const IDX: usize = 2;
/// Offset of the entries in the available and the used ring.
const ENTRIES: usize = 4;

/// The three areas of a split virtqueue (virtio 1.x, section 2.7), as they are mapped right now.
///
/// Each access is one atomic load or store of a little-endian field.
pub(crate) struct Ring<'m, B> {
    descriptors: VolatileSlice<'m, B>,
    avail: VolatileSlice<'m, B>,
    used: VolatileSlice<'m, B>,
    config: &'m QueueConfig,
    log: Option<&'m Log>,
}

/// A chain to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedElement {
    /// Its first descriptor.
    pub(crate) head: u16,
    /// Bytes of the reply.
    pub(crate) len: u32,
}

/// Finds the areas in `memory`; what is written there is noted in `log`.
pub(crate) fn find<'m, M: GuestMemoryBackend>(
    memory: &'m M,
    config: &'m QueueConfig,
    log: Option<&'m Log>,
) -> Result<Ring<'m, MS<'m, M>>, RingError> {
    let slice = |area| {
        memory
            .get_slice(config.address_of(area), config.len_of(area))
            .map_err(|_| outside(config, area))
    };
    Ok(Ring {
        descriptors: slice(RingArea::Descriptors)?,
        avail: slice(RingArea::Avail)?,
        used: slice(RingArea::Used)?,
        config,
        log,
    })
}

impl<'m, B: BitmapSlice> Ring<'m, B> {
    pub(crate) const fn descriptors(&self) -> &VolatileSlice<'m, B> {
        &self.descriptors
    }

    pub(crate) const fn config(&self) -> &'m QueueConfig {
        self.config
    }

    /// How many chains are available beyond the first `next_avail`.
    pub(crate) fn pending(&self, next_avail: u16) -> Result<u16, RingError> {
        // Acquire: what the driver wrote before `idx` is seen after it.
        let idx = u16::from_le(self.load(IDX, Ordering::Acquire)?);
        let advanced = idx.wrapping_sub(next_avail);
        if advanced > self.config.size {
            return Err(RingError::AvailJump {
                advanced,
                size: self.config.size,
            });
        }
        Ok(advanced)
    }

    /// First descriptor of the chain that is number `index` in the available ring.
    pub(crate) fn head(&self, index: u16) -> Result<u16, RingError> {
        let offset = self.entry(index, size_of::<u16>());
        let head = u16::from_le(self.load(offset, Ordering::Relaxed)?);
        if head >= self.config.size {
            return Err(RingError::Head {
                head,
                size: self.config.size,
            });
        }
        Ok(head)
    }

    /// Asks the driver not to kick while its chains are being taken anyway.
    ///
    /// With EVENT_IDX that is the case without a word: the driver kicks when it passes
    /// `avail_event`, which stays behind.
    pub(crate) fn suppress_kicks(&self) -> Result<(), RingError> {
        if self.config.event_idx {
            return Ok(());
        }
        self.store(FLAGS, NO_NOTIFY.to_le(), Ordering::Relaxed)
    }

    /// Asks the driver to kick at the next chain, and returns how many it made available before it
    /// could know: where that is not 0, no kick will come for them.
    pub(crate) fn await_kick(&self, next_avail: u16) -> Result<u16, RingError> {
        if self.config.event_idx {
            let avail_event = self.behind_entries(size_of::<[u32; 2]>());
            self.store(avail_event, next_avail.to_le(), Ordering::Relaxed)?;
        } else {
            self.store(FLAGS, 0u16, Ordering::Relaxed)?;
        }
        // The driver stores `idx`, then loads what was just stored here. Either it sees that, or
        // the load below sees its `idx`.
        fence(Ordering::SeqCst);
        self.pending(next_avail)
    }

    /// Writes entry number `index` of the used ring. The driver looks at it once `idx` is beyond.
    pub(crate) fn write_used(&self, index: u16, element: UsedElement) -> Result<(), RingError> {
        let offset = self.entry(index, size_of::<[u32; 2]>());
        let len_at = offset.saturating_add(size_of::<u32>());
        self.store(offset, u32::from(element.head).to_le(), Ordering::Relaxed)?;
        self.store(len_at, element.len.to_le(), Ordering::Relaxed)
    }

    /// Gives the driver all entries of the used ring below `next_used`.
    pub(crate) fn publish(&self, next_used: u16) -> Result<(), RingError> {
        // Release: the entries and the replies are seen by whoever sees `idx`.
        self.store(IDX, next_used.to_le(), Ordering::Release)
    }

    /// Whether the driver wants to be interrupted for what was just published; `last` is up to
    /// where it was asked before, if it was.
    pub(crate) fn wants_interrupt(
        &self,
        last: Option<u16>,
        next_used: u16,
    ) -> Result<bool, RingError> {
        // The driver stores what is loaded below, then loads the used `idx`. Either it sees what
        // was published, or its wish is seen here.
        fence(Ordering::SeqCst);
        if !self.config.event_idx {
            let flags = u16::from_le(self.load(FLAGS, Ordering::Relaxed)?);
            return Ok(flags & NO_INTERRUPT == 0);
        }
        let used_event = self.behind_entries(size_of::<u16>());
        let event = u16::from_le(self.load(used_event, Ordering::Relaxed)?);
        Ok(last.is_none_or(|last| passes(event, last, next_used)))
    }

    /// Offset of entry `index`, which counts beyond the end of the ring, of `len` bytes.
    fn entry(&self, index: u16, len: usize) -> usize {
        // The size is a power of two.
        let slot = index & self.config.size.wrapping_sub(1);
        usize::from(slot)
            .saturating_mul(len)
            .saturating_add(ENTRIES)
    }

    /// Offset of the event field: behind as many entries of `len` bytes as the ring has.
    fn behind_entries(&self, len: usize) -> usize {
        usize::from(self.config.size)
            .saturating_mul(len)
            .saturating_add(ENTRIES)
    }

    fn load<T: AtomicAccess>(&self, offset: usize, order: Ordering) -> Result<T, RingError> {
        self.avail
            .load(offset, order)
            .map_err(|_| outside(self.config, RingArea::Avail))
    }

    fn store<T: AtomicAccess>(
        &self,
        offset: usize,
        value: T,
        order: Ordering,
    ) -> Result<(), RingError> {
        self.used
            .store(value, offset, order)
            .map_err(|_| outside(self.config, RingArea::Used))?;
        if let Some(log) = self.log.and_then(Log::if_on) {
            let address = self.config.used.0.saturating_add(offset as u64);
            log.wrote(GuestAddress(address), size_of::<T>());
        }
        Ok(())
    }
}

/// Whether a counter that went from `last` to `now` went over `event` (`vring_need_event`).
fn passes(event: u16, last: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(last)
}

fn outside(config: &QueueConfig, area: RingArea) -> RingError {
    RingError::Outside {
        area,
        address: config.address_of(area).0,
        len: config.len_of(area),
    }
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn an_event_is_passed_once() {
        for base in [0u16, 5, 65530, 65535] {
            let at = |n: u16| base.wrapping_add(n);
            assert!(passes(at(3), at(3), at(4)));
            assert!(passes(at(3), at(0), at(4)));
            assert!(passes(at(3), at(0), at(9)));
            assert!(!passes(at(3), at(4), at(9)));
            assert!(!passes(at(3), at(0), at(3)));
            assert!(!passes(at(3), at(3), at(3)));
        }
    }
}
