use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::wire::Message;
use crate::Error;

/// A region of guest memory, as a daemon is told of it.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) guest: u64,
    pub(super) size: u64,
    offset: u64,
    file: Arc<File>,
    /// Device and inode of the file: a VMM may have it open more than once.
    id: (u64, u64),
}

impl Region {
    /// The regions of `memory`.
    pub(super) fn all<M: GuestMemoryBackend>(memory: &M) -> Result<Vec<Self>, Error> {
        memory
            .iter()
            .map(|region| {
                let guest = region.start_addr().raw_value();
                let file = region.file_offset().ok_or(Error::NotShared(guest))?;
                let metadata = file.file().metadata();
                let metadata = metadata.map_err(Error::io("look at the file of guest memory"))?;
                Ok(Self {
                    guest,
                    size: region.len(),
                    offset: file.start(),
                    file: Arc::clone(file.arc()),
                    id: (metadata.dev(), metadata.ino()),
                })
            })
            .collect()
    }

    /// Whether the two are the same memory in the same place.
    pub(super) fn is(&self, other: &Self) -> bool {
        let key = |region: &Self| (region.guest, region.size, region.offset, region.id);
        key(self) == key(other)
    }

    /// Puts it at the end of `message`.
    ///
    /// The "user address" by which rings are named is whatever the front-end says that it is: the
    /// guest's own address does, and tells the daemon nothing of where things are in the VMM.
    pub(super) fn describe(&self, message: Message) -> Message {
        message
            .u64(self.guest)
            .u64(self.size)
            .u64(self.guest)
            .u64(self.offset)
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The first address behind it.
    pub(super) const fn end(&self) -> u64 {
        self.guest.saturating_add(self.size)
    }
}
