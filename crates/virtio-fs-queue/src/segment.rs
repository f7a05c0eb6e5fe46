use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress,
    VolatileSlice,
};

use crate::write_log::Log;

/// A contiguous run of guest memory, found in its region.
#[derive(Debug)]
pub(crate) struct Segment<'m, R> {
    region: &'m R,
    offset: MemoryRegionAddress,
    len: usize,
}

impl<R> Clone for Segment<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Segment<'_, R> {}

/// A run of guest memory by its address, to be kept over a change of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) address: GuestAddress,
    pub(crate) len: usize,
}

/// Finds `range` in `memory`, as one segment for each region that it touches, and hands them to
/// `each`. `recent` remembers the region, as buffers tend to lie in the same one.
///
/// Returns `None` where part of the range is in no region, or where `each` does.
pub(crate) fn find<'m, M: GuestMemoryBackend>(
    memory: &'m M,
    recent: &mut Option<&'m M::R>,
    range: Range,
    mut each: impl FnMut(Segment<'m, M::R>) -> Option<()>,
) -> Option<()> {
    let Range {
        mut address,
        len: mut left,
    } = range;
    while left > 0 {
        let region = match *recent {
            Some(region) if region.to_region_addr(address).is_some() => region,
            _ => memory.find_region(address)?,
        };
        *recent = Some(region);
        let offset = region.to_region_addr(address)?;
        let room = region.len().checked_sub(offset.raw_value())?;
        let len = left.min(usize::try_from(room).ok()?);
        each(Segment {
            region,
            offset,
            len,
        })?;
        left = left.checked_sub(len)?;
        if left > 0 {
            address = address.checked_add(u64::try_from(len).ok()?)?;
        }
    }
    Some(())
}

impl<'m, R: GuestMemoryRegion> Segment<'m, R> {
    /// This and `next` as one, where `next` follows immediately.
    pub(crate) fn merged(&self, next: &Self) -> Option<Self> {
        let end = self.offset.checked_add(u64::try_from(self.len).ok()?)?;
        let adjacent = std::ptr::eq(self.region, next.region) && end == next.offset;
        adjacent.then_some(Self {
            len: self.len.checked_add(next.len)?,
            ..*self
        })
    }

    pub(crate) fn range(&self) -> Range {
        Range {
            address: self.region.start_addr().unchecked_add(self.offset.0),
            len: self.len,
        }
    }

    /// The memory itself; `None` where the region cannot be accessed directly.
    pub(crate) fn slice(&self) -> Option<VolatileSlice<'m, BS<'m, R::B>>> {
        self.region.get_slice(self.offset, self.len).ok()
    }

    /// Notes that the memory was written to other than through [`slice`](Self::slice).
    fn mark_dirty(&self) {
        if let Ok(offset) = usize::try_from(self.offset.0) {
            self.region.bitmap().mark_dirty(offset, self.len);
        }
    }

    /// The part from `skip` on, of at most `len` bytes.
    fn part(&self, skip: usize, len: usize) -> Option<Self> {
        let left = self.len.checked_sub(skip)?;
        Some(Self {
            region: self.region,
            offset: self.offset.checked_add(u64::try_from(skip).ok()?)?,
            len: left.min(len),
        })
    }
}

/// Goes through the bytes of a list of segments from front to back, and can never go past its end.
#[derive(Debug)]
pub(crate) struct Cursor<'c, 'm, R> {
    /// What is left; the first `skip` bytes of it are done with.
    segments: &'c [Segment<'m, R>],
    skip: usize,
    remaining: usize,
}

impl<R> Clone for Cursor<'_, '_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Cursor<'_, '_, R> {}

impl<'c, 'm, R: GuestMemoryRegion> Cursor<'c, 'm, R> {
    /// `segments` from their start on.
    pub(crate) fn new(segments: &'c [Segment<'m, R>]) -> Self {
        Self {
            segments,
            skip: 0,
            remaining: segments
                .iter()
                .fold(0, |sum: usize, segment| sum.saturating_add(segment.len)),
        }
    }

    /// Bytes that are left.
    pub(crate) const fn remaining(&self) -> usize {
        self.remaining
    }

    /// What is left, as pieces, up to `len` bytes of it.
    pub(crate) fn pieces(
        &self,
        len: usize,
    ) -> impl Iterator<Item = Segment<'m, R>> + use<'c, 'm, R> {
        let mut skip = self.skip;
        let mut left = len.min(self.remaining);
        self.segments.iter().map_while(move |segment| {
            let piece = segment.part(std::mem::take(&mut skip), left)?;
            left = left.checked_sub(piece.len)?;
            (piece.len > 0).then_some(piece)
        })
    }

    /// What is left, by address.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.pieces(self.remaining).map(|piece| piece.range())
    }

    /// Goes on by `len` bytes, or to the end.
    pub(crate) fn advance(&mut self, len: usize) {
        let len = len.min(self.remaining);
        self.remaining = self.remaining.saturating_sub(len);
        self.skip = self.skip.saturating_add(len);
        while let Some((first, rest)) = self.segments.split_first() {
            let Some(skip) = self.skip.checked_sub(first.len) else {
                break;
            };
            self.skip = skip;
            self.segments = rest;
        }
    }

    /// Copies to `buffer` as much as it takes or is left, and returns how many bytes that was.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut free = &mut *buffer;
        for piece in self.pieces(free.len()) {
            let Some(slice) = piece.slice() else { break };
            let (now, later) = std::mem::take(&mut free)
                .split_at_mut_checked(slice.len())
                .unwrap_or_default();
            slice.copy_to(now);
            free = later;
        }
        let later = free.len();
        let len = buffer.len().saturating_sub(later);
        self.advance(len);
        len
    }

    /// Copies from `data` as much as there is room for, notes that in `log`, and returns how many
    /// bytes that was.
    pub(crate) fn write(&mut self, data: &[u8], log: Option<&Log>) -> usize {
        let mut left = data;
        for piece in self.pieces(data.len()) {
            let Some(slice) = piece.slice() else { break };
            let (now, later) = left.split_at_checked(slice.len()).unwrap_or_default();
            slice.copy_from(now);
            left = later;
        }
        let len = data.len().saturating_sub(left.len());
        self.note(len, log);
        self.advance(len);
        len
    }

    /// Notes that the next `len` bytes were written to by a system call, in `log`, too, and goes on
    /// behind them.
    pub(crate) fn advance_written(&mut self, len: usize, log: Option<&Log>) {
        for piece in self.pieces(len) {
            piece.mark_dirty();
        }
        self.note(len, log);
        self.advance(len);
    }

    /// Notes in `log` that the next `len` bytes were written to.
    fn note(&self, len: usize, log: Option<&Log>) {
        if let Some(log) = log.and_then(Log::if_on) {
            for piece in self.pieces(len) {
                let Range { address, len } = piece.range();
                log.wrote(address, len);
            }
        }
    }
}
