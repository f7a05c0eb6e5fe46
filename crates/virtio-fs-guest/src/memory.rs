use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use rustix::fs::MemfdFlags;
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::bitmap::BS;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileMemory,
    VolatileSlice,
};

use crate::{Backing, Error};

/// Size of a page of the guest in bytes.
pub const PAGE: usize = 4096;
/// Guest-physical address of the first byte. Above 4 GiB, so that no address survives being cut to
/// 32 bits, or being taken for an offset.
const BASE: u64 = 1 << 32;

/// The memory of the guest.
///
/// Both sides may write at any time, so it is never borrowed as a slice of bytes, only copied.
#[derive(Debug)]
pub struct Memory {
    map: Arc<MmapRegion<()>>,
    /// A memfd that the back-end maps too, where there is one.
    file: Option<FileOffset>,
}

/// A range of the memory that belongs to one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Segment {
    /// Bytes from the start of the memory.
    pub(crate) offset: usize,
    /// Bytes.
    pub(crate) len: usize,
}

impl Memory {
    pub(crate) fn new(size: usize, backing: Backing) -> Result<Self, Error> {
        match backing {
            Backing::Shared => Self::shared(size),
            Backing::Private => Self::private(size),
        }
    }

    fn private(size: usize) -> Result<Self, Error> {
        let map = MmapRegion::new(size)
            .map_err(io::Error::other)
            .map_err(Error::io("map the guest's memory"))?;
        Ok(Self {
            map: Arc::new(map),
            file: None,
        })
    }

    fn shared(size: usize) -> Result<Self, Error> {
        let create = || -> io::Result<File> {
            let fd = rustix::fs::memfd_create(c"virtio-fs-guest", MemfdFlags::CLOEXEC)?;
            let file = File::from(fd);
            file.set_len(size as u64)?;
            Ok(file)
        };
        let file = create().map_err(Error::io("create a memfd for the guest's memory"))?;
        let file = FileOffset::new(file, 0);
        let map = MmapRegion::from_file(file.clone(), size)
            .map_err(io::Error::other)
            .map_err(Error::io("map the guest's memory"))?;
        Ok(Self {
            map: Arc::new(map),
            file: Some(file),
        })
    }

    /// Guest-physical address of the first byte.
    #[must_use]
    pub const fn base(&self) -> u64 {
        BASE
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.map.size()
    }

    /// Guest-physical address of the first byte behind the memory.
    #[must_use]
    pub fn end(&self) -> u64 {
        BASE + self.size() as u64
    }

    /// Copies `bytes` to the guest-physical address `address`.
    ///
    /// # Panics
    /// The range is not in the memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.put(self.offset(address), bytes);
    }

    /// Copies from the guest-physical address `address` to `bytes`.
    ///
    /// # Panics
    /// The range is not in the memory.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        self.fetch(self.offset(address), bytes);
    }

    fn offset(&self, address: u64) -> usize {
        let offset = address.checked_sub(BASE).map(usize::try_from);
        match offset {
            Some(Ok(offset)) if offset <= self.size() => offset,
            _ => panic!("{address:#x} is not in the guest's memory"),
        }
    }

    pub(crate) const fn address(&self, offset: usize) -> u64 {
        BASE + offset as u64
    }

    /// The address of `offset` in this process, by which vhost-user names rings.
    pub(crate) fn user_address(&self, offset: usize) -> u64 {
        self.map.as_ptr() as u64 + offset as u64
    }

    /// The memory as regions that adjoin, for SET_MEM_TABLE; each starts at one of `starts` and
    /// ends at the next.
    pub(crate) fn regions(&self, starts: &[usize]) -> Vec<VhostUserMemoryRegionInfo> {
        let ends = starts.iter().skip(1).copied().chain([self.size()]);
        starts
            .iter()
            .zip(ends)
            .map(|(&start, end)| VhostUserMemoryRegionInfo {
                guest_phys_addr: self.address(start),
                memory_size: (end - start) as u64,
                userspace_addr: self.user_address(start),
                mmap_offset: start as u64,
                mmap_handle: self
                    .file
                    .as_ref()
                    .map_or(-1, |file| file.file().as_raw_fd()),
            })
            .collect()
    }

    /// The memory as a VMM has it: mapped once more, as regions that start as
    /// [`regions`](Self::regions) has them, or as the one mapping that there is.
    pub(crate) fn map_again(&self, starts: &[usize]) -> Result<GuestMemoryMmap, Error> {
        let Some(file) = &self.file else {
            let region = GuestRegionMmap::with_arc(Arc::clone(&self.map), GuestAddress(BASE));
            return GuestMemoryMmap::from_arc_regions(region.map(Arc::new).into_iter().collect())
                .map_err(io::Error::other)
                .map_err(Error::io("share the guest's memory with its device"));
        };
        let ranges = self.regions(starts).into_iter().map(|region| {
            let file = FileOffset::from_arc(Arc::clone(file.arc()), region.mmap_offset);
            let address = GuestAddress(region.guest_phys_addr);
            (address, region.memory_size as usize, Some(file))
        });
        GuestMemoryMmap::from_ranges_with_files(ranges)
            .map_err(io::Error::other)
            .map_err(Error::io("map the guest's memory once more"))
    }

    pub(crate) fn slice(&self, segment: Segment) -> VolatileSlice<'_, BS<'_, ()>> {
        self.map
            .get_slice(segment.offset, segment.len)
            .expect(IN_RANGE)
    }

    pub(crate) fn put(&self, offset: usize, bytes: &[u8]) {
        self.map
            .as_volatile_slice()
            .write_slice(bytes, offset)
            .expect(IN_RANGE);
    }

    pub(crate) fn fetch(&self, offset: usize, bytes: &mut [u8]) {
        self.map
            .as_volatile_slice()
            .read_slice(bytes, offset)
            .expect(IN_RANGE);
    }

    pub(crate) fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        let atomic: &AtomicU16 = self.map.get_atomic_ref(offset).expect(IN_RANGE);
        u16::from_le(atomic.load(order))
    }

    pub(crate) fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        let atomic: &AtomicU16 = self.map.get_atomic_ref(offset).expect(IN_RANGE);
        atomic.store(value.to_le(), order);
    }

    pub(crate) fn load_u32(&self, offset: usize) -> u32 {
        let atomic: &AtomicU32 = self.map.get_atomic_ref(offset).expect(IN_RANGE);
        u32::from_le(atomic.load(Ordering::Relaxed))
    }
}

/// Offsets come from the layout of this driver, never from the device.
const IN_RANGE: &str = "the range is in the guest's memory";
