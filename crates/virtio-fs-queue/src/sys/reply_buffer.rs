use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

use fuse_fs::REPLY_BUFFER;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The `reply` buffer of [`fuse_fs::Serve::serve`].
///
/// It is a mapping of its own, of which a page takes memory from when it is written to: most of it
/// is there for the largest extended attributes only.
#[derive(Debug)]
pub(crate) struct ReplyBuffer(NonNull<u8>);

// SAFETY: it owns its mapping as a `Box<[u8]>` owns its memory, and gives access only as that does.
unsafe impl Send for ReplyBuffer {}

impl ReplyBuffer {
    /// A buffer of zeros.
    ///
    /// # Errors
    /// ENOMEM where the system has no memory left, or the process may have no more mappings.
    pub(crate) fn new() -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the address is up to the kernel, which takes one where nothing is mapped.
        let start = unsafe {
            mmap_anonymous(ptr::null_mut(), REPLY_BUFFER, protection, MapFlags::PRIVATE)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(start))
    }
}

impl Deref for ReplyBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `REPLY_BUFFER` bytes are mapped from there on until `self` is dropped, readable
        // and zeroed by the kernel; nobody else knows of them, so the borrow of `self` is theirs.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), REPLY_BUFFER) }
    }
}

impl DerefMut for ReplyBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the memory is writable, too, and the borrow of `self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.0.as_ptr(), REPLY_BUFFER) }
    }
}

impl Drop for ReplyBuffer {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, is unmapped nowhere else, and with `self` goes
        // the last that refers to it.
        if let Err(error) = unsafe { munmap(self.0.as_ptr().cast(), REPLY_BUFFER) } {
            tracing::error!(%error, "cannot unmap a buffer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_large_as_replies_become_and_writable() {
        let mut buffer = ReplyBuffer::new().unwrap();
        assert!(buffer.len() == REPLY_BUFFER && buffer.iter().all(|&byte| byte == 0));
        buffer.fill(1);
        assert_eq!(
            buffer.iter().map(|&byte| usize::from(byte)).sum::<usize>(),
            REPLY_BUFFER
        );
    }
}
