use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::layout;

/// The guest's memory: a memfd, so that the back-end of a device can map it too.
pub(super) struct Memory {
    pub(super) file: Arc<File>,
    pub(super) mapped: GuestMemoryMmap,
}

impl Memory {
    /// Memory of `size` bytes, a multiple of the page size, all zero.
    pub(super) fn new(size: u64) -> io::Result<Self> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
        file.set_len(size)?;
        let file = Arc::new(file);
        let regions = Self::ranges(size).map(|(address, len, offset)| {
            let file = FileOffset::from_arc(Arc::clone(&file), offset);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            (GuestAddress(address), len, Some(file))
        });
        let mapped = GuestMemoryMmap::from_ranges_with_files(regions).map_err(io::Error::other)?;
        Ok(Self { file, mapped })
    }

    /// Makes all of it zero again.
    pub(super) fn erase(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, hole, 0, len)?)
    }

    /// Each region's address, length and offset in the file.
    pub(super) fn ranges(size: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let low = size.min(layout::HOLE);
        let regions = [(0, low, 0), (layout::HIGH_MEMORY, size - low, low)];
        regions.into_iter().filter(|(_, len, _)| *len > 0)
    }
}
