use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use zerocopy::{Immutable, IntoBytes};

use crate::memory::{Memory, PAGE, Segment};
use crate::{Error, ProtocolError};

/// An entry of the descriptor table, or of an indirect table (virtio 1.4, 2.7.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Descriptor {
    /// Guest-physical address of the buffer.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// [`NEXT`](Self::NEXT), [`WRITE`](Self::WRITE), [`INDIRECT`](Self::INDIRECT).
    pub flags: u16,
    /// The next descriptor of the chain, with [`NEXT`](Self::NEXT).
    pub next: u16,
}

impl Descriptor {
    /// Bytes in memory.
    pub const SIZE: usize = size_of::<Self>();
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The buffer is for the device to write.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// An entry of the used ring (virtio 1.4, 2.7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Index of the first descriptor of the chain.
    pub id: u32,
    /// Bytes that the device wrote.
    pub len: u32,
}

const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;
/// Flags and index, at the front of the available and the used ring.
const RING_HEADER: usize = 4;
const USED_ELEMENT: usize = 8;
/// Most descriptors in a chain: 1 MiB in pages, and the headers and arguments of both directions.
/// Nor may a chain be longer than the ring, indirect or not (2.7.5.3.1).
const MAX_CHAIN: usize = 256 + 4;

/// Where the parts of a ring lie, as offsets into the memory.
#[derive(Debug, Clone)]
pub(crate) struct RingLayout {
    pub(crate) size: u16,
    pub(crate) descriptors: usize,
    pub(crate) available: usize,
    pub(crate) used: usize,
    /// One indirect table per descriptor.
    tables: usize,
    table_len: usize,
    end: usize,
}

impl RingLayout {
    /// Lays a ring out from `start` on, a multiple of a page.
    pub(crate) fn new(start: usize, size: u16) -> Self {
        let entries = usize::from(size);
        let descriptors = start;
        let available = descriptors + entries * Descriptor::SIZE;
        let used = (available + RING_HEADER + 2 * entries + 2).next_multiple_of(PAGE);
        let tables = (used + RING_HEADER + USED_ELEMENT * entries + 2).next_multiple_of(PAGE);
        let table_len = entries.min(MAX_CHAIN) * Descriptor::SIZE;
        Self {
            size,
            descriptors,
            available,
            used,
            tables,
            table_len,
            end: (tables + entries * table_len).next_multiple_of(PAGE),
        }
    }

    pub(crate) const fn end(&self) -> usize {
        self.end
    }

    const fn descriptor(&self, index: u16) -> usize {
        self.descriptors + index as usize * Descriptor::SIZE
    }

    const fn table(&self, head: u16) -> usize {
        self.tables + head as usize * self.table_len
    }

    const fn available_entry(&self, slot: u16) -> usize {
        self.available + RING_HEADER + 2 * (slot as usize % self.size as usize)
    }

    const fn used_event(&self) -> usize {
        self.available + RING_HEADER + 2 * self.size as usize
    }

    const fn used_entry(&self, slot: u16) -> usize {
        self.used + RING_HEADER + USED_ELEMENT * (slot as usize % self.size as usize)
    }

    const fn avail_event(&self) -> usize {
        self.used + RING_HEADER + USED_ELEMENT * self.size as usize
    }
}

/// What the driver and the device agreed on for rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingFeatures {
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
}

/// The driver's side of a split virtqueue (virtio 1.4, 2.7).
#[derive(Debug)]
pub(crate) struct Ring {
    memory: Arc<Memory>,
    layout: RingLayout,
    features: RingFeatures,
    /// Free descriptors; the last one is taken first.
    free: Vec<u16>,
    /// Length of the chain that starts at a descriptor: 0 where none in flight does.
    chain_len: Box<[u16]>,
    /// How a chain goes on: the driver's own copy, as the device could change the table.
    next: Box<[u16]>,
    /// The next entry of the available ring.
    available: u16,
    /// `available` when it was last decided whether to kick.
    announced: u16,
    /// The next entry of the used ring.
    used: u16,
}

impl Ring {
    pub(crate) fn new(memory: Arc<Memory>, layout: RingLayout, features: RingFeatures) -> Self {
        let entries = usize::from(layout.size);
        let mut ring = Self {
            memory,
            features,
            free: Vec::with_capacity(entries),
            chain_len: vec![0; entries].into(),
            next: vec![0; entries].into(),
            available: 0,
            announced: 0,
            used: 0,
            layout,
        };
        ring.reset();
        ring
    }

    /// Back to the state after a device reset: nothing in flight, all indexes 0.
    pub(crate) fn reset(&mut self) {
        let layout = &self.layout;
        let zeros = vec![0; layout.tables - layout.descriptors];
        self.memory.put(layout.descriptors, &zeros);
        self.free.clear();
        self.free.extend((0..layout.size).rev());
        self.chain_len.fill(0);
        (self.available, self.announced, self.used) = (0, 0, 0);
    }

    pub(crate) const fn layout(&self) -> &RingLayout {
        &self.layout
    }

    pub(crate) const fn size(&self) -> u16 {
        self.layout.size
    }

    /// The next entry of the available ring.
    pub(crate) const fn next_available(&self) -> u16 {
        self.available
    }

    /// The descriptor at which the next chain will start.
    pub(crate) fn next_head(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Makes a chain of `segments` available, of which the device may read those before
    /// `writable_from` and write the others. Returns its first descriptor, which is
    /// [`next_head`](Self::next_head)'s.
    pub(crate) fn add(&mut self, segments: &[Segment], writable_from: usize) -> Result<u16, Error> {
        let longest = MAX_CHAIN.min(usize::from(self.layout.size));
        if segments.is_empty() || segments.len() > longest {
            return Err(Error::RequestTooLong);
        }
        let indirect = self.features.indirect && segments.len() > 1;
        let needed = if indirect { 1 } else { segments.len() };
        let rest = self
            .free
            .len()
            .checked_sub(needed)
            .ok_or(Error::QueueFull)?;
        let describe = |n: usize, next: u16| {
            let segment = segments[n];
            let more = n + 1 < segments.len();
            let write = n >= writable_from;
            Descriptor {
                address: self.memory.address(segment.offset),
                len: segment.len as u32,
                flags: u16::from(more) * Descriptor::NEXT + u16::from(write) * Descriptor::WRITE,
                next: if more { next } else { 0 },
            }
        };
        let head = self.free[self.free.len() - 1];
        if indirect {
            let table = self.layout.table(head);
            for n in 0..segments.len() {
                let descriptor = describe(n, n as u16 + 1);
                self.memory
                    .put(table + n * Descriptor::SIZE, descriptor.as_bytes());
            }
            let descriptor = Descriptor {
                address: self.memory.address(table),
                len: (segments.len() * Descriptor::SIZE) as u32,
                flags: Descriptor::INDIRECT,
                next: 0,
            };
            self.write_descriptor(head, descriptor);
        } else {
            for n in 0..needed {
                let index = self.free[self.free.len() - 1 - n];
                let next = match n + 1 < needed {
                    true => self.free[self.free.len() - 2 - n],
                    false => 0,
                };
                self.next[usize::from(index)] = next;
                self.write_descriptor(index, describe(n, next));
            }
        }
        self.free.truncate(rest);
        self.chain_len[usize::from(head)] = needed as u16;
        self.publish(head);
        Ok(head)
    }

    pub(crate) fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.memory
            .put(self.layout.descriptor(index), descriptor.as_bytes());
    }

    pub(crate) fn write_available_entry(&self, slot: u16, head: u16) {
        self.memory
            .store_u16(self.layout.available_entry(slot), head, Ordering::Relaxed);
    }

    pub(crate) fn write_available_index(&self, index: u16) {
        self.memory
            .store_u16(self.layout.available + 2, index, Ordering::Release);
    }

    /// Makes the chain that starts at `head` available.
    pub(crate) fn publish(&mut self, head: u16) {
        self.write_available_entry(self.available, head);
        self.available = self.available.wrapping_add(1);
        self.write_available_index(self.available);
    }

    /// Takes `count` descriptors out of the free ones, as the start of a chain that the caller
    /// writes. They are free again when their chain is used.
    pub(crate) fn take_descriptors(&mut self, count: usize) -> Option<Vec<u16>> {
        let from = self.free.len().checked_sub(count)?;
        let taken: Vec<u16> = self.free.drain(from..).rev().collect();
        for pair in taken.windows(2) {
            self.next[usize::from(pair[0])] = pair[1];
        }
        if let Some(&head) = taken.first() {
            self.chain_len[usize::from(head)] = count as u16;
        }
        Some(taken)
    }

    /// Whether the device wants to be kicked for what was made available since this was last
    /// asked.
    pub(crate) fn must_kick(&mut self) -> bool {
        let (new, old) = (self.available, self.announced);
        self.announced = new;
        // The device writes its wish, then looks at the index: we the other way round.
        fence(Ordering::SeqCst);
        if self.features.event_idx {
            let offset = self.layout.avail_event();
            let event = self.memory.load_u16(offset, Ordering::Relaxed);
            crosses(event, old, new)
        } else {
            let flags = self.memory.load_u16(self.layout.used, Ordering::Relaxed);
            flags & USED_NO_NOTIFY == 0
        }
    }

    /// `used.idx` as the device wrote it.
    pub(crate) fn used_index(&self) -> u16 {
        self.memory
            .load_u16(self.layout.used + 2, Ordering::Acquire)
    }

    /// Entry `slot` (modulo the size) of the used ring.
    pub(crate) fn used_entry(&self, slot: u16) -> Used {
        let offset = self.layout.used_entry(slot);
        Used {
            id: self.memory.load_u32(offset),
            len: self.memory.load_u32(offset + 4),
        }
    }

    /// Whether the device used nothing that was not taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.used_index() == self.used
    }

    /// Takes the next entry of the used ring, unchecked. Raw chains come back this way.
    pub(crate) fn pop_raw(&mut self) -> Option<Used> {
        (self.used_index() != self.used).then(|| {
            let entry = self.used_entry(self.used);
            self.used = self.used.wrapping_add(1);
            entry
        })
    }

    /// Takes the next chain that the device used, and frees its descriptors.
    pub(crate) fn pop(&mut self) -> Result<Option<(u16, u32)>, ProtocolError> {
        let ahead = self.used_index().wrapping_sub(self.used);
        if ahead > self.layout.size {
            return Err(ProtocolError::UsedIndex(ahead));
        }
        let Some(entry) = self.pop_raw() else {
            return Ok(None);
        };
        match self.free_chain(entry.id) {
            Some(head) => Ok(Some((head, entry.len))),
            None => Err(ProtocolError::UsedId(entry.id)),
        }
    }

    /// Frees the descriptors of the chain in flight that starts at `id`. None if there is none.
    pub(crate) fn free_chain(&mut self, id: u32) -> Option<u16> {
        let head = u16::try_from(id).ok()?;
        let len = std::mem::take(self.chain_len.get_mut(usize::from(head))?);
        if len == 0 {
            return None;
        }
        // The head goes back last, so that it is the next to be taken: its buffers are in cache.
        let mut chain: Range<u16> = 1..len;
        let mut index = head;
        while chain.next().is_some() {
            index = self.next[usize::from(index)];
            self.free.push(index);
        }
        self.free.push(head);
        Some(head)
    }

    /// Asks for no more interrupts.
    pub(crate) fn disable_interrupts(&self) {
        // With EVENT_IDX the event stays behind, so that none is due.
        if !self.features.event_idx {
            self.write_available_flags(AVAIL_NO_INTERRUPT);
        }
    }

    /// Asks for an interrupt at the next used chain. False if there is one already.
    pub(crate) fn enable_interrupts(&self) -> bool {
        if self.features.event_idx {
            let offset = self.layout.used_event();
            self.memory.store_u16(offset, self.used, Ordering::Relaxed);
        } else {
            self.write_available_flags(0);
        }
        fence(Ordering::SeqCst);
        self.is_idle()
    }

    pub(crate) fn write_available_flags(&self, flags: u16) {
        self.memory
            .store_u16(self.layout.available, flags, Ordering::Relaxed);
    }
}

/// Whether an index that went from `old` to `new` passed `event` (virtio 1.4, 2.7.7.1).
const fn crosses(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backing;

    #[test]
    fn an_event_is_crossed_once_and_across_the_wrap() {
        assert!(crosses(0, 0, 1));
        assert!(!crosses(1, 0, 1));
        assert!(crosses(5, 3, 8));
        assert!(!crosses(2, 3, 8));
        assert!(crosses(u16::MAX, u16::MAX, 0));
        assert!(!crosses(0, u16::MAX, 0));
        assert!(!crosses(7, 9, 9));
    }

    fn ring(size: u16, indirect: bool) -> Ring {
        let layout = RingLayout::new(0, size);
        let memory = Arc::new(Memory::new(layout.end(), Backing::Shared).unwrap());
        let features = RingFeatures {
            event_idx: true,
            indirect,
        };
        Ring::new(memory, layout, features)
    }

    const SEGMENTS: [Segment; 3] = [Segment { offset: 0, len: 8 }; 3];

    #[test]
    fn a_chain_takes_and_gives_back_its_descriptors() {
        let mut ring = ring(4, false);
        let head = ring.add(&SEGMENTS, 1).unwrap();
        assert_eq!(ring.free.len(), 1);
        assert!(matches!(ring.add(&SEGMENTS, 1), Err(Error::QueueFull)));
        assert_eq!(ring.free_chain(u32::from(head)), Some(head));
        assert_eq!(ring.free_chain(u32::from(head)), None);
        assert_eq!(ring.free.len(), 4);
        assert_eq!(ring.next_head(), Some(head));
    }

    #[test]
    fn an_indirect_chain_takes_one_descriptor() {
        let mut ring = ring(4, true);
        for _ in 0..4 {
            ring.add(&SEGMENTS, 1).unwrap();
        }
        assert!(matches!(ring.add(&SEGMENTS, 1), Err(Error::QueueFull)));
    }

    #[test]
    fn a_used_id_that_is_not_in_flight_is_caught() {
        let mut ring = ring(4, true);
        ring.add(&SEGMENTS, 1).unwrap();
        let used = |ring: &Ring, slot: u16, id: u32, index: u16| {
            let offset = ring.layout.used_entry(slot);
            ring.memory.put(offset, &id.to_le_bytes());
            ring.memory
                .store_u16(ring.layout.used + 2, index, Ordering::Release);
        };
        used(&ring, 0, 3, 1);
        assert_eq!(ring.pop(), Err(ProtocolError::UsedId(3)));
        used(&ring, 1, 1 << 20, 2);
        assert_eq!(ring.pop(), Err(ProtocolError::UsedId(1 << 20)));
        used(&ring, 2, 0, 9);
        assert_eq!(ring.pop(), Err(ProtocolError::UsedIndex(7)));
    }
}
