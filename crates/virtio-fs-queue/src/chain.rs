use std::sync::atomic::Ordering;

use vm_memory::bitmap::{BitmapSlice, MS};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, VolatileSlice};

use crate::ChainError;
use crate::ring::Ring;
use crate::segment::{self, Cursor, Range, Segment};
use crate::storage::Storage;

/// Most descriptors in a chain, that of an indirect table not counted.
///
/// The specification allows as many as the queue has; Linux uses up to 260 (256 pages, headers and
/// arguments). 1024 is the largest ring in use with this device, and `IOV_MAX`: as no chain becomes
/// more segments than that, each transfer is one system call.
pub(crate) const MAX_DESCRIPTORS: usize = 1024;
/// Most bytes in a chain (virtio 1.x, section 2.7.4: no longer than 2^32 bytes in total).
const MAX_BYTES: u64 = 1 << 32;

/// `VIRTQ_DESC_F_NEXT`.
const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`.
const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`.
const INDIRECT: u16 = 4;
/// Bytes of a descriptor.
const DESCRIPTOR_LEN: usize = 16;

/// The buffers of one descriptor chain, found in memory: first what the device may read, then what
/// it may write. Storage for one after the other.
#[derive(Debug)]
pub(crate) struct Chain<'m, R> {
    /// At most [`MAX_DESCRIPTORS`].
    segments: Vec<Segment<'m, R>>,
    /// How many of the segments are readable.
    readable: usize,
    /// The region of the buffer that was found last: that of the next one, as a rule.
    recent: Option<&'m R>,
}

/// A descriptor, copied out once, so that what is checked is what is used.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    address: GuestAddress,
    len: u32,
    flags: u16,
    next: u16,
}

impl<'m, R: GuestMemoryRegion> Chain<'m, R> {
    /// A chain of nothing, with room in `storage`.
    pub(crate) fn new(storage: Storage) -> Self {
        Self {
            segments: storage.into_list(),
            readable: 0,
            recent: None,
        }
    }

    pub(crate) fn into_storage(self) -> Storage {
        Storage::of(self.segments)
    }

    /// What the device may read: the request.
    pub(crate) fn readable(&self) -> Cursor<'_, 'm, R> {
        let readable = self.segments.get(..self.readable);
        Cursor::new(readable.unwrap_or_default())
    }

    /// What the device may write: room for the reply.
    pub(crate) fn writable(&self) -> Cursor<'_, 'm, R> {
        let writable = self.segments.get(self.readable..);
        Cursor::new(writable.unwrap_or_default())
    }

    /// Walks the chain that starts at descriptor `head`.
    ///
    /// Where a buffer is [outside](ChainError::Outside) of memory, the chain has what comes before the
    /// first such buffer, of those to read and of those to write.
    pub(crate) fn walk<M: GuestMemoryBackend<R = R>>(
        &mut self,
        memory: &'m M,
        ring: &Ring<'m, MS<'m, M>>,
        head: u16,
    ) -> Result<(), ChainError> {
        self.clear();
        let mut bytes = 0u64;
        let mut writable = false;
        let mut indirect = None;
        let mut outside = None;
        let mut index = head;
        for _ in 0..=MAX_DESCRIPTORS {
            let table = indirect.as_ref().unwrap_or(ring.descriptors());
            let descriptor = read_descriptor(table, index)?;
            if descriptor.flags & INDIRECT != 0 {
                if indirect.is_some() {
                    return Err(ChainError::IndirectNested);
                }
                if !ring.config().indirect {
                    return Err(ChainError::IndirectNotNegotiated);
                }
                indirect = Some(find_table(memory, descriptor)?);
                index = 0;
                continue;
            }
            if descriptor.flags & WRITE != 0 {
                writable = true;
            } else if writable {
                return Err(ChainError::ReadableAfterWritable);
            }
            bytes = bytes.saturating_add(u64::from(descriptor.len));
            if bytes > MAX_BYTES {
                return Err(ChainError::TooLong);
            }
            let behind = outside.is_some_and(|(_, of_writable)| of_writable == writable);
            if !behind && let Err(error) = self.add(memory, descriptor) {
                if !matches!(error, ChainError::Outside { .. }) {
                    return Err(error);
                }
                outside = Some((outside.map_or(error, |(first, _)| first), writable));
            }
            if descriptor.flags & NEXT == 0 {
                return outside.map_or(Ok(()), |(error, _)| Err(error));
            }
            index = descriptor.next;
        }
        Err(ChainError::TooManyDescriptors)
    }

    /// Makes a chain of buffers that were kept by address. Returns `None` where one of them is not
    /// in memory any more.
    pub(crate) fn restore<M: GuestMemoryBackend<R = R>>(
        &mut self,
        memory: &'m M,
        readable: &[Range],
        writable: &[Range],
    ) -> Option<()> {
        self.clear();
        let mut recent = None;
        for range in readable {
            segment::find(memory, &mut recent, *range, |found| self.push(found, false))?;
        }
        for range in writable {
            segment::find(memory, &mut recent, *range, |found| self.push(found, true))?;
        }
        Some(())
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.readable = 0;
    }

    fn add<M: GuestMemoryBackend<R = R>>(
        &mut self,
        memory: &'m M,
        descriptor: Descriptor,
    ) -> Result<(), ChainError> {
        let Descriptor { address, len, .. } = descriptor;
        let outside = ChainError::Outside {
            address: address.0,
            len,
        };
        let range = Range {
            address,
            len: usize::try_from(len).map_err(|_| outside)?,
        };
        let writable = descriptor.flags & WRITE != 0;
        let mut full = false;
        let mut recent = self.recent;
        let found = segment::find(memory, &mut recent, range, |found| {
            let pushed = self.push(found, writable);
            full = pushed.is_none();
            pushed
        });
        self.recent = recent;
        match found {
            Some(()) => Ok(()),
            None if full => Err(ChainError::TooManyDescriptors),
            None => Err(outside),
        }
    }

    /// Appends a segment, to the last one where the two are adjacent.
    fn push(&mut self, segment: Segment<'m, R>, writable: bool) -> Option<()> {
        let first_of_its_kind = writable && self.segments.len() == self.readable;
        if !first_of_its_kind
            && let Some(last) = self.segments.last_mut()
            && let Some(merged) = last.merged(&segment)
        {
            *last = merged;
            return Some(());
        }
        if self.segments.len() >= MAX_DESCRIPTORS {
            return None;
        }
        self.segments.push(segment);
        if !writable {
            self.readable = self.segments.len();
        }
        Some(())
    }
}

fn find_table<'m, M: GuestMemoryBackend>(
    memory: &'m M,
    descriptor: Descriptor,
) -> Result<VolatileSlice<'m, MS<'m, M>>, ChainError> {
    let Descriptor { address, len, .. } = descriptor;
    // The descriptor's WRITE flag means nothing here (virtio 1.x, section 2.7.5.3.2).
    if descriptor.flags & NEXT != 0 {
        return Err(ChainError::IndirectWithNext);
    }
    let table_len = usize::try_from(len).map_err(|_| ChainError::IndirectLen(len))?;
    if table_len == 0
        || !table_len.is_multiple_of(DESCRIPTOR_LEN)
        || table_len > MAX_DESCRIPTORS.saturating_mul(DESCRIPTOR_LEN)
    {
        return Err(ChainError::IndirectLen(len));
    }
    memory
        .get_slice(address, table_len)
        .map_err(|_| ChainError::Outside {
            address: address.0,
            len,
        })
}

fn read_descriptor<B: BitmapSlice>(
    table: &VolatileSlice<'_, B>,
    index: u16,
) -> Result<Descriptor, ChainError> {
    let offset = usize::from(index).saturating_mul(DESCRIPTOR_LEN);
    let words = load_word(table, offset).zip(load_word(table, offset.saturating_add(8)));
    let (address, rest) = words.ok_or(ChainError::Next {
        next: index,
        size: table.len().div_euclid(DESCRIPTOR_LEN),
    })?;
    let [l0, l1, l2, l3, f0, f1, n0, n1] = rest;
    Ok(Descriptor {
        address: GuestAddress(u64::from_le_bytes(address)),
        len: u32::from_le_bytes([l0, l1, l2, l3]),
        flags: u16::from_le_bytes([f0, f1]),
        next: u16::from_le_bytes([n0, n1]),
    })
}

/// Eight bytes in one load, if they are aligned: an indirect table need not be.
fn load_word<B: BitmapSlice>(table: &VolatileSlice<'_, B>, offset: usize) -> Option<[u8; 8]> {
    table
        .load::<u64>(offset, Ordering::Relaxed)
        .map(u64::to_ne_bytes)
        .or_else(|_| table.read_obj(offset))
        .ok()
}
