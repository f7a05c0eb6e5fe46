use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use vm_memory::{AtomicInteger, MmapRegion, VolatileMemory};

use crate::StartError;

/// The version of the layout that is written here; 0 is memory that nobody wrote yet.
const VERSION: u16 = 1;
/// What the place of a record is a multiple of, and its length.
const ALIGNMENT: usize = 64;

/// Offsets in the record's header.
const FEATURES: usize = 0;
const VERSION_AT: usize = 8;
const DESCRIPTORS: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_IDX: usize = 14;
const HEADER_LEN: usize = 16;

/// Offsets in the entry of a descriptor.
const IN_FLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;
const ENTRY_LEN: usize = 16;

/// Which chains of a queue are in flight, in memory that outlives the process: whoever serves the
/// queue next gives back what this one could not.
///
/// The layout is that of a split virtqueue in the vhost-user specification, "Inflight I/O tracking",
/// so that this may be another back-end. A chain is noted when it is taken, and struck off after the
/// driver was given it back, by a few stores each.
///
/// Others can write to the memory at any time. Whatever they write, no more is served than the ring
/// has descriptors, and what a descriptor describes is checked as ever. But the memory has to stay
/// there: where it is that of a file, nobody may make the file shorter.
#[derive(Debug, Clone)]
pub struct InFlightRecord {
    /// Has all of the record, at a multiple of [`ALIGNMENT`].
    memory: Arc<MmapRegion>,
    start: usize,
    descriptors: u16,
}

/// Why memory cannot be the record of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not all in the memory, or not at a multiple of 64 bytes.
    #[error("{len} bytes at {start:#x} do not lie in the memory, at a multiple of {ALIGNMENT}")]
    Place {
        /// Offset in the memory.
        start: usize,
        /// Bytes that are needed.
        len: usize,
    },
    /// It was written in a way that is not known.
    #[error("it has version {version} and features {features:#x}; known are version {VERSION}, 0")]
    Version {
        /// The version.
        version: u16,
        /// The features.
        features: u64,
    },
    /// It was written for a queue of another size.
    #[error("it is about {there} descriptors, not {expected}")]
    Descriptors {
        /// How many it has.
        there: u16,
        /// How many it should have.
        expected: u16,
    },
}

impl InFlightRecord {
    /// Bytes of the record for a queue of so many descriptors, up to where the next record can be.
    #[must_use]
    pub fn len_for(descriptors: u16) -> usize {
        // Neither overflows: the most is a little over 1 MiB.
        usize::from(descriptors)
            .saturating_mul(ENTRY_LEN)
            .saturating_add(HEADER_LEN)
            .next_multiple_of(ALIGNMENT)
    }

    /// The record at `start` in `memory`: zeros, or what was written for a queue of so many
    /// descriptors before.
    ///
    /// # Errors
    /// It is neither.
    pub fn new(
        memory: Arc<MmapRegion>,
        start: usize,
        descriptors: u16,
    ) -> Result<Self, RecordError> {
        let len = Self::len_for(descriptors);
        let fits = start
            .checked_add(len)
            .is_some_and(|end| end <= memory.len());
        if !fits || !start.is_multiple_of(ALIGNMENT) {
            return Err(RecordError::Place { start, len });
        }
        let record = Self {
            memory,
            start,
            descriptors,
        };
        let features = record.load::<AtomicU64>(FEATURES);
        match record.load::<AtomicU16>(VERSION_AT) {
            0 => Ok(record),
            VERSION if features == 0 => match record.load::<AtomicU16>(DESCRIPTORS) {
                there if there == descriptors => Ok(record),
                there => Err(RecordError::Descriptors {
                    there,
                    expected: descriptors,
                }),
            },
            version => Err(RecordError::Version { version, features }),
        }
    }

    /// Makes the record one of a ring of `size` descriptors whose used ring is at `used_idx`, and
    /// returns what is in flight, in the order in which it was taken.
    fn recover(&self, size: u16, used_idx: u16) -> Recovered {
        if self.load::<AtomicU16>(VERSION_AT) == VERSION {
            self.strike_off_last_batch(used_idx);
        } else {
            self.clear();
        }
        self.store::<AtomicU16>(USED_IDX, used_idx, Ordering::Release);
        let mut chains: Vec<(u64, u16)> = (0..size.min(self.descriptors))
            .filter(|&head| self.load::<AtomicU8>(self.entry(head, IN_FLIGHT)) != 0)
            .map(|head| (self.load::<AtomicU64>(self.entry(head, COUNTER)), head))
            .collect();
        chains.sort_unstable();
        Recovered {
            next_counter: chains.last().map_or(0, |(last, _)| last.wrapping_add(1)),
            heads: chains.into_iter().map(|(_, head)| head).collect(),
        }
    }

    /// Notes that the chain at `head` was taken, as number `counter`.
    fn note(&self, head: u16, counter: u64) {
        self.store::<AtomicU64>(self.entry(head, COUNTER), counter, Ordering::Relaxed);
        // Release: who sees the mark sees the number.
        self.store::<AtomicU8>(self.entry(head, IN_FLIGHT), 1, Ordering::Release);
    }

    /// Puts the chain at `head` before the one at `last` in the list of what is about to be given
    /// back.
    pub(crate) fn link(&self, head: u16, last: u16) {
        self.store::<AtomicU16>(self.entry(head, NEXT), last, Ordering::Relaxed);
        self.store::<AtomicU16>(LAST_BATCH_HEAD, head, Ordering::Release);
    }

    /// Strikes off chains that were given back, up to entry `used_idx` of the used ring.
    pub(crate) fn strike_off(&self, heads: impl Iterator<Item = u16>, used_idx: u16) {
        for head in heads {
            // Release: not before the driver was given it.
            self.store::<AtomicU8>(self.entry(head, IN_FLIGHT), 0, Ordering::Release);
        }
        self.store::<AtomicU16>(USED_IDX, used_idx, Ordering::Release);
    }

    /// What was given back, but not struck off any more: as many as the used ring is ahead.
    fn strike_off_last_batch(&self, used_idx: u16) {
        let given_back = used_idx.wrapping_sub(self.load::<AtomicU16>(USED_IDX));
        let mut head = self.load::<AtomicU16>(LAST_BATCH_HEAD);
        // The list may be anything, and need not end.
        for _ in 0..given_back.min(self.descriptors) {
            if head >= self.descriptors {
                break;
            }
            self.store::<AtomicU8>(self.entry(head, IN_FLIGHT), 0, Ordering::Relaxed);
            head = self.load::<AtomicU16>(self.entry(head, NEXT));
        }
    }

    /// Writes a record of nothing; its version last, so that it is one when it is done.
    fn clear(&self) {
        for head in 0..self.descriptors {
            self.store::<AtomicU8>(self.entry(head, IN_FLIGHT), 0, Ordering::Relaxed);
        }
        self.store::<AtomicU64>(FEATURES, 0, Ordering::Relaxed);
        self.store::<AtomicU16>(DESCRIPTORS, self.descriptors, Ordering::Relaxed);
        self.store::<AtomicU16>(VERSION_AT, VERSION, Ordering::Release);
    }

    /// Offset of a field of the entry of descriptor `head`.
    fn entry(&self, head: u16, field: usize) -> usize {
        usize::from(head)
            .saturating_mul(ENTRY_LEN)
            .saturating_add(HEADER_LEN)
            .saturating_add(field)
    }

    fn load<A: AtomicInteger<V: Default>>(&self, offset: usize) -> A::V {
        let field = self.field::<A>(offset);
        field.map_or_else(A::V::default, |field| field.load(Ordering::Acquire))
    }

    fn store<A: AtomicInteger>(&self, offset: usize, value: A::V, order: Ordering) {
        if let Some(field) = self.field::<A>(offset) {
            field.store(value, order);
        }
    }

    /// The field at `offset`; `None` where there is no such descriptor, of which a ring never is.
    fn field<A: AtomicInteger>(&self, offset: usize) -> Option<&A> {
        let at = self.start.checked_add(offset)?;
        self.memory.get_atomic_ref(at).ok()
    }
}

/// What a record tells of the time before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Recovered {
    /// The chains that were not given back, the first that was taken first.
    heads: VecDeque<u16>,
    /// What the next chain counts as.
    next_counter: u64,
}

/// The end of a record at which chains are taken.
#[derive(Debug)]
pub(crate) struct Notes {
    record: InFlightRecord,
    recovered: Recovered,
}

impl Notes {
    /// Makes `record` one of a ring of `size` descriptors whose used ring is at `used_idx`.
    pub(crate) fn new(
        record: InFlightRecord,
        size: u16,
        used_idx: u16,
    ) -> Result<Self, StartError> {
        let room = record.descriptors;
        if size > room {
            return Err(StartError::Record { size, room });
        }
        let recovered = record.recover(size, used_idx);
        Ok(Self { record, recovered })
    }

    /// How many chains were in flight and were not served again yet.
    pub(crate) fn unfinished(&self) -> u16 {
        // No more than there are descriptors.
        u16::try_from(self.recovered.heads.len()).unwrap_or(u16::MAX)
    }

    /// The next of them, to be served now.
    pub(crate) fn next_unfinished(&mut self) -> Option<u16> {
        self.recovered.heads.pop_front()
    }

    /// Notes that the chain at `head` was taken.
    pub(crate) fn take(&mut self, head: u16) {
        let counter = self.recovered.next_counter;
        self.recovered.next_counter = counter.wrapping_add(1);
        self.record.note(head, counter);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::*;

    const SIZE: u16 = 8;

    fn memory() -> Arc<MmapRegion> {
        Arc::new(MmapRegion::new(0x1000).unwrap())
    }

    fn record(memory: &Arc<MmapRegion>) -> InFlightRecord {
        InFlightRecord::new(Arc::clone(memory), 64, SIZE).unwrap()
    }

    /// What is in flight for the next one, where `used_idx` chains were given back.
    fn unfinished(record: &InFlightRecord, used_idx: u16) -> Vec<u16> {
        record.recover(SIZE, used_idx).heads.into()
    }

    /// A record of chains that were taken in this order.
    fn taken(heads: &[u16]) -> InFlightRecord {
        let record = record(&memory());
        let mut notes = Notes::new(record.clone(), SIZE, 0).unwrap();
        for head in heads {
            notes.take(*head);
        }
        record
    }

    #[test]
    fn what_was_taken_is_in_flight_in_that_order() {
        let record = taken(&[5, 0, 7, 2]);
        assert_eq!(unfinished(&record, 0), [5, 0, 7, 2]);
        // The next ones come behind.
        let mut notes = Notes::new(record.clone(), SIZE, 0).unwrap();
        notes.take(1);
        assert_eq!(unfinished(&record, 0), [5, 0, 7, 2, 1]);
    }

    #[test]
    fn what_was_given_back_is_not() {
        let record = taken(&[5, 0, 7, 2]);
        for (last, head) in [(0, 7), (7, 5)] {
            record.link(head, last);
        }
        // Not given back yet.
        assert_eq!(unfinished(&record, 0), [5, 0, 7, 2]);
        // Given back, but not struck off, or not all of it; and once it is.
        record.strike_off([7].into_iter(), 0);
        assert_eq!(unfinished(&record, 2), [0, 2]);
        assert_eq!(unfinished(&record, 2), [0, 2]);
        record.link(2, 5);
        record.strike_off([2].into_iter(), 3);
        assert_eq!(unfinished(&record, 3), [0]);
    }

    #[test]
    fn a_batch_that_was_never_given_back_does_not_matter_to_the_next_one() {
        let record = taken(&[3, 4]);
        record.link(3, 0);
        record.link(4, 3);
        assert_eq!(unfinished(&record, 0), [3, 4]);
        // The one after it gives back the first alone; the list is a loop then.
        record.link(3, 0);
        record.link(3, 3);
        assert_eq!(unfinished(&record, 1), [4]);
    }

    #[test]
    fn the_used_ring_wraps_around() {
        let record = record(&memory());
        let mut notes = Notes::new(record.clone(), SIZE, 65535).unwrap();
        for head in [1, 2, 3] {
            notes.take(head);
        }
        record.link(1, 0);
        record.link(3, 1);
        assert_eq!(unfinished(&record, 1), [2]);
    }

    #[test]
    fn records_lie_side_by_side() {
        let memory = memory();
        let len = InFlightRecord::len_for(SIZE);
        assert_eq!((len, InFlightRecord::len_for(1024)), (192, 16448));
        let all = [0, 1, 2].map(|n| {
            InFlightRecord::new(Arc::clone(&memory), n * len, SIZE)
                .map(|record| Notes::new(record, SIZE, 0).unwrap())
                .unwrap()
        });
        for (mut notes, head) in all.into_iter().zip([0, SIZE - 1, 1]) {
            notes.take(head);
            assert_eq!(unfinished(&notes.record, 0), [head]);
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let memory = memory();
        let new = |start, size| InFlightRecord::new(Arc::clone(&memory), start, size);
        for (start, size) in [
            (1, 1),
            (32, 1),
            (0x1000, 1),
            (0xfc0, 8),
            (usize::MAX - 63, 8),
        ] {
            assert!(matches!(new(start, size), Err(RecordError::Place { .. })));
        }
        record(&memory).recover(SIZE, 0);
        assert!(new(64, SIZE).is_ok());
        assert!(matches!(new(64, 16), Err(RecordError::Descriptors { .. })));
        let found = Notes::new(record(&memory), 2 * SIZE, 0);
        assert_eq!(found.unwrap_err(), StartError::Record { size: 16, room: 8 });
        memory.as_volatile_slice().write_obj(1u64, 64).unwrap();
        assert!(matches!(new(64, SIZE), Err(RecordError::Version { .. })));
        memory.as_volatile_slice().write_obj(0u64, 64).unwrap();
        memory.as_volatile_slice().write_obj(2u16, 72).unwrap();
        assert!(matches!(new(64, SIZE), Err(RecordError::Version { .. })));
    }

    proptest! {
        /// Others can write to the memory, before and after it was looked at.
        #[test]
        fn whatever_is_there_no_more_is_served_than_there_are_descriptors(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 192),
            version in prop_oneof![Just(VERSION), any::<u16>()],
            used_idx: u16,
            size in 1..=SIZE,
        ) {
            let memory = memory();
            let record = record(&memory);
            memory.as_volatile_slice().write_slice(&bytes, 64).unwrap();
            memory.as_volatile_slice().write_obj(version, 72).unwrap();
            let mut heads = unfinished(&record, used_idx);
            prop_assert!(heads.iter().all(|&head| head < SIZE));
            heads.sort_unstable();
            heads.dedup();
            let mut notes = Notes::new(record, size, used_idx).unwrap();
            prop_assert!(notes.unfinished() <= size.min(heads.len() as u16));
            notes.take(0);
            // What lies around it was not touched.
            let mut around = vec![0; 0x1000];
            memory.as_volatile_slice().read_slice(&mut around, 0).unwrap();
            around.drain(64..64 + 192);
            prop_assert!(around.iter().all(|&byte| byte == 0));
        }
    }
}
