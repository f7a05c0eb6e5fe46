//! Memory to read into and to write from by direct system calls.

use std::io;
use std::ptr::NonNull;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// A shared mapping of a memfd, as the memory of a driver is one.
#[derive(Debug)]
pub(crate) struct Buffer {
    start: NonNull<u8>,
    len: usize,
}

impl Buffer {
    /// So many bytes, more than 0.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(c"virtio-fs-compare", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing else is.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                &fd,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// All of it.
    pub(crate) const fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `start` is a mapping of `len` bytes that lives as long as `self`, is initialised
        // as a new file is with zeros, and cannot get shorter: nobody else has the memfd, which
        // `new` closed, and nobody else maps it. `self` is borrowed as long as the result.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: `new` made the mapping, and no borrow of it outlives `self`.
        // It fails for no mapping that is there.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
