//! Address space that is replaced bit by bit.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mremap_fixed, munmap};

use super::{FileMapping, has_larger_pages};

/// A range of this process's address space that nothing else uses.
#[derive(Debug)]
pub(super) struct Reservation {
    address: NonNull<c_void>,
    size: usize,
}

// SAFETY: it is an address and a length; what is done there is done by system calls, which any
// thread may make at any time.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

/// What is neither read, written nor counted.
const NOTHING: ProtFlags = ProtFlags::empty();

impl Reservation {
    pub(super) fn new(size: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: nobody has the addresses that the kernel chooses.
        let address = unsafe { mmap_anonymous(std::ptr::null_mut(), size, NOTHING, flags)? };
        let address = NonNull::new(address).ok_or(Errno::NOMEM)?;
        Ok(Self { address, size })
    }

    pub(super) const fn address(&self) -> *mut u8 {
        self.address.as_ptr().cast()
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Replaces what is there by a part of a file.
    ///
    /// It is mapped elsewhere first, and then moved here. Were it mapped here at once, and its file
    /// system refused, there would be a gap, which the guest shares with whatever this process maps
    /// next: mmap(2) unmaps what is in the way before it asks.
    pub(super) fn map(&self, mapping: FileMapping<'_>) -> io::Result<()> {
        let (at, len) = self.part(mapping.offset, mapping.len)?;
        if has_larger_pages(mapping.file)? {
            return Err(Errno::OPNOTSUPP.into());
        }
        let access = match mapping.writable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        let (file, offset) = (mapping.file, mapping.file_offset);
        let anywhere = std::ptr::null_mut();
        // SAFETY: nobody has the addresses that the kernel chooses.
        let mapped = unsafe { mmap(anywhere, len, access, MapFlags::SHARED, file, offset)? };
        // SAFETY: `mapped` is known here only. `part` returns a part of this reservation, which holds no
        // object of this program: its address is given out as a bare pointer only. No more than `len`
        // bytes are replaced, as the pages are those of this host.
        let moved = unsafe { mremap_fixed(mapped, len, len, MremapFlags::MAYMOVE, at) };
        if let Err(errno) = moved {
            // SAFETY: as above; it was not moved.
            let unmapped = unsafe { munmap(mapped, len) };
            if let Err(error) = unmapped {
                tracing::error!(%error, "a file stays mapped that is not in the DAX window");
            }
            self.clear(mapping.offset, mapping.len)?;
            return Err(errno.into());
        }
        Ok(())
    }

    /// Replaces what is there by nothing.
    pub(super) fn clear(&self, offset: u64, len: u64) -> io::Result<()> {
        let (at, len) = self.part(offset, len)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: as in `map`.
        unsafe { mmap_anonymous(at, len, NOTHING, flags)? };
        Ok(())
    }

    fn part(&self, offset: u64, len: u64) -> io::Result<(*mut c_void, usize)> {
        let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = usize::try_from(offset).map_err(wrong)?;
        let len = usize::try_from(len).map_err(wrong)?;
        match offset.checked_add(len) {
            Some(end) if end <= self.size => {
                Ok((self.address.as_ptr().wrapping_byte_add(offset), len))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range is this reservation's, and whoever has its address was told that it
        // holds until now.
        let unmapped = unsafe { munmap(self.address.as_ptr(), self.size) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "cannot give address space back");
        }
    }
}

#[cfg(test)]
impl Reservation {
    pub(super) fn peek(&self, offset: usize) -> u8 {
        assert!(offset < self.size);
        // SAFETY: it is within the reservation, and mapped by the test.
        unsafe { self.address().add(offset).read_volatile() }
    }

    pub(super) fn poke(&self, offset: usize, byte: u8) {
        assert!(offset < self.size);
        // SAFETY: as in `peek`.
        unsafe { self.address().add(offset).write_volatile(byte) }
    }
}
