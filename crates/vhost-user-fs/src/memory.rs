use std::fs::File;
use std::sync::{Arc, PoisonError};

use vhost::vhost_user::Error as VhostUserError;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap,
};

/// Most regions, each of which is a mapping of its own: QEMU has at most as many, the slots of KVM
/// without those that KVM itself uses.
pub const MAX_REGIONS: usize = 509;

/// Guest memory as it is mapped at one time.
pub type Memory = GuestMemoryMmap<()>;
/// Guest memory whose map can change while it is in use: whoever looked it up keeps what was mapped
/// then, until it is done.
pub type SharedMemory = GuestMemoryAtomic<Memory>;

/// Why memory cannot be as the front-end says.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A region cannot be mapped.
    #[error("cannot map a region of guest memory at {guest:#x}: {source}")]
    Map {
        /// Its guest address.
        guest: u64,
        /// Why not.
        source: VhostUserError,
    },
    /// Touching what is not in the file would end the process.
    #[error("the region of guest memory at {guest:#x} is longer than the file that it is in")]
    Short {
        /// The region's guest address.
        guest: u64,
    },
    /// They overlap, or there is none.
    #[error("the regions of guest memory cannot be: {0}")]
    Regions(#[from] vm_memory::GuestRegionCollectionError),
    /// More than can be mapped.
    #[error("there are more than {MAX_REGIONS} regions of guest memory")]
    TooMany,
    /// What is to be taken away is not there.
    #[error("there is no region of {size:#x} bytes at {guest:#x}")]
    NoRegion {
        /// Its guest address.
        guest: u64,
        /// Its size in bytes.
        size: u64,
    },
}

/// The guest's memory, and where the front-end has mapped it: by these addresses it names rings.
pub struct MemoryTable {
    shared: SharedMemory,
    places: Vec<Place>,
}

/// What is to be a guest's memory next: see [`MemoryTable::apply`].
pub struct Change {
    memory: Memory,
    places: Vec<Place>,
}

impl Change {
    pub(crate) const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The guest address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        end_of(&self.memory)
    }
}

/// A region as the front-end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    user: u64,
    guest: u64,
    size: u64,
}

impl Default for MemoryTable {
    /// There is none yet.
    fn default() -> Self {
        Self {
            shared: SharedMemory::new(Memory::new()),
            places: Vec::new(),
        }
    }
}

impl MemoryTable {
    /// The guest address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        end_of(&self.shared.memory())
    }

    /// What the queues work on.
    #[must_use]
    pub const fn shared(&self) -> &SharedMemory {
        &self.shared
    }

    /// `regions` in the place of all that there are, each in its file.
    ///
    /// # Errors
    /// Says what cannot be.
    pub fn replaced(
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
    ) -> Result<Change, MemoryError> {
        let mut mapped = regions
            .iter()
            .zip(files)
            .map(|(region, file)| map(region, file))
            .collect::<Result<Vec<_>, _>>()?;
        // The specification asks for no order.
        mapped.sort_by_key(|region| region.start_addr());
        Ok(Change {
            memory: Memory::from_arc_regions(mapped)?,
            places: regions.iter().map(Place::of).collect(),
        })
    }

    /// One region more.
    ///
    /// # Errors
    /// Says what cannot be.
    pub fn with(&self, region: &VhostUserMemoryRegion, file: File) -> Result<Change, MemoryError> {
        if self.places.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let memory = self.shared.memory().insert_region(map(region, file)?)?;
        let place = Place::of(region);
        let places = self.places.iter().copied().chain([place]).collect();
        Ok(Change { memory, places })
    }

    /// One region less: the one of that guest address and size.
    ///
    /// # Errors
    /// There is none.
    pub fn without(&self, region: &VhostUserMemoryRegion) -> Result<Change, MemoryError> {
        let Place { guest, size, .. } = Place::of(region);
        let (memory, _) = self
            .shared
            .memory()
            .remove_region(GuestAddress(guest), size)
            .map_err(|_| MemoryError::NoRegion { guest, size })?;
        let mut places = self.places.clone();
        places.retain(|place| place.guest != guest);
        Ok(Change { memory, places })
    }

    /// From now on this is the guest's memory.
    pub fn apply(&mut self, change: Change) {
        let Change { memory, places } = change;
        let guard = self.shared.lock();
        guard
            .unwrap_or_else(PoisonError::into_inner)
            .replace(memory);
        self.places = places;
    }

    /// The guest's address of what the front-end has at `user`; `None` where it is in no region.
    #[must_use]
    pub fn guest_address(&self, user: u64) -> Option<GuestAddress> {
        self.places.iter().find_map(|place| place.translate(user))
    }
}

fn end_of(memory: &Memory) -> u64 {
    memory.last_addr().0.saturating_add(1)
}

impl Place {
    /// The address and size of a region; the message checks that nothing overflows.
    fn of(region: &VhostUserMemoryRegion) -> Self {
        Self {
            user: region.user_addr,
            guest: region.guest_phys_addr,
            size: region.memory_size,
        }
    }

    fn translate(&self, user: u64) -> Option<GuestAddress> {
        let offset = user.checked_sub(self.user)?;
        let guest = self.guest.checked_add(offset)?;
        (offset < self.size).then_some(GuestAddress(guest))
    }
}

/// Fails where the file is shorter than the region, as nobody survives touching what is not there.
/// A front-end that makes it shorter later ends the back-end of its own machine.
fn map(
    region: &VhostUserMemoryRegion,
    file: File,
) -> Result<Arc<GuestRegionMmap<()>>, MemoryError> {
    let guest = region.guest_phys_addr;
    let failed = |source| MemoryError::Map { guest, source };
    let invalid = || failed(VhostUserError::InvalidParam);
    let metadata = file
        .metadata()
        .map_err(|error| failed(VhostUserError::ReqHandlerError(error)))?;
    let end = region.mmap_offset.checked_add(region.memory_size);
    if metadata.is_file() && end.is_none_or(|end| end > metadata.len()) {
        return Err(MemoryError::Short { guest });
    }
    let mapping = region.mmap_region(file).map_err(failed)?;
    GuestRegionMmap::new(mapping, GuestAddress(guest))
        .map(Arc::new)
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 0x1000;

    fn region(guest: u64, user: u64) -> (VhostUserMemoryRegion, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        (VhostUserMemoryRegion::new(guest, SIZE, user, 0), file)
    }

    fn table(places: &[(u64, u64)]) -> MemoryTable {
        let mut table = MemoryTable::default();
        let (regions, files): (Vec<_>, Vec<_>) = places
            .iter()
            .map(|&(guest, user)| region(guest, user))
            .unzip();
        table.apply(MemoryTable::replaced(&regions, files).unwrap());
        table
    }

    #[test]
    fn regions_come_in_any_order() {
        let table = table(&[(0x8000, 0x10_0000), (0, 0x20_0000)]);
        assert_eq!(table.shared().memory().num_regions(), 2);
        assert_eq!(
            table.guest_address(0x10_0fff),
            Some(GuestAddress(0x8fff)),
            "the last byte"
        );
        assert_eq!(table.guest_address(0x20_0000), Some(GuestAddress(0)));
        for nowhere in [0, 0x0f_ffff, 0x10_1000, 0x20_1000, u64::MAX] {
            assert_eq!(table.guest_address(nowhere), None);
        }
    }

    #[test]
    fn what_was_looked_up_stays_mapped() {
        use vm_memory::Bytes;
        let mut table = table(&[(0, 0x10_0000)]);
        let before = table.shared().memory();
        let (more, file) = region(0x1000, 0x20_0000);
        table.apply(table.with(&more, file).unwrap());
        let (first, _) = region(0, 0x10_0000);
        table.apply(table.without(&first).unwrap());
        before.write_obj(7u8, GuestAddress(0)).unwrap();
        let after = table.shared().memory();
        after.write_obj(7u8, GuestAddress(0x1000)).unwrap();
        after.write_obj(7u8, GuestAddress(0)).unwrap_err();
        assert_eq!(table.guest_address(0x10_0000), None);
    }

    #[test]
    fn what_cannot_be_changes_nothing() {
        let table = table(&[(0, 0x10_0000)]);
        let (overlapping, file) = region(0x800, 0x20_0000);
        assert!(table.with(&overlapping, file).is_err());
        let (short, file) = region(0x8000, 0x20_0000);
        file.set_len(SIZE - 1).unwrap();
        assert!(table.with(&short, file).is_err());
        assert!(table.without(&short).is_err());
        assert_eq!(table.shared().memory().num_regions(), 1);
        assert_eq!(table.guest_address(0x20_0000), None);
    }

    #[test]
    fn the_number_of_regions_is_bounded() {
        let mut table = table(&[(0, 0)]);
        let mut at = |n: u64| {
            let (region, file) = region(n * SIZE, n * SIZE);
            table.with(&region, file).map(|change| table.apply(change))
        };
        for n in 1..MAX_REGIONS as u64 {
            at(n).unwrap();
        }
        assert!(matches!(at(MAX_REGIONS as u64), Err(MemoryError::TooMany)));
    }
}
