//! System calls on guest memory, and for memory.

#![allow(
    unsafe_code,
    reason = "the payload goes between file and guest memory without a copy"
)]

mod reply_buffer;
mod together;

pub(crate) use reply_buffer::ReplyBuffer;
pub(crate) use together::Together;

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use fuse_fs::IoFlags;
use rustix::io::ReadWriteFlags;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use crate::chain::MAX_DESCRIPTORS;
use crate::split::MAX_PARTS;

thread_local! {
    /// The memory of the list of this thread's last call, which is as long as that needed.
    static ENTRIES: Cell<Vec<libc::iovec>> = const { Cell::new(Vec::new()) };
}

/// Most entries: one for each descriptor, and one more for each cut between the parts of a READ.
const MAX_ENTRIES: usize = MAX_DESCRIPTORS + MAX_PARTS;

/// Runs of guest memory to be filled or written out in one system call.
///
/// Each entry points to memory that stays mapped for `'m`, of at least that length: it was taken
/// from a [`VolatileSlice`] of that lifetime, which promises just that.
pub(crate) struct Buffers<'m> {
    /// At most [`MAX_ENTRIES`].
    entries: Vec<libc::iovec>,
    memory: PhantomData<VolatileSlice<'m>>,
}

// SAFETY: what the entries point to is mapped for all threads of the process. None of them makes a
// reference to it; the kernel alone accesses it, and copes with others that do so at the same time,
// such as the guest.
unsafe impl Sync for Buffers<'_> {}

impl<'m> Buffers<'m> {
    pub(crate) fn new() -> Self {
        Self {
            // Where the thread is ending, it is made anew.
            entries: ENTRIES.try_with(Cell::take).unwrap_or_default(),
            memory: PhantomData,
        }
    }

    /// Appends a run; `None` where there are as many as ever needed.
    pub(crate) fn push<B: BitmapSlice>(&mut self, slice: &VolatileSlice<'m, B>) -> Option<()> {
        if self.entries.len() >= MAX_ENTRIES {
            return None;
        }
        let guard = slice.ptr_guard_mut();
        self.entries.push(libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        });
        Some(())
    }

    /// Fills the runs from `file` at `offset`; the caller notes that guest memory was written to.
    ///
    /// # Errors
    /// As preadv2(2), but not EINTR.
    pub(crate) fn fill_from(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        flags: IoFlags,
    ) -> io::Result<usize> {
        self.fill_some_from(0..self.count(), file, offset, flags)
    }

    /// As [`fill_from`](Self::fill_from), but only the runs with these numbers.
    pub(crate) fn fill_some_from(
        &self,
        runs: Range<usize>,
        file: BorrowedFd<'_>,
        offset: u64,
        flags: IoFlags,
    ) -> io::Result<usize> {
        let entries = self.entries.get(runs).unwrap_or_default();
        let (offset, flags) = (offset_of(offset)?, flags_of(flags));
        retry(|| {
            // SAFETY: `entries` has `len` entries or more. Each points to memory that is
            // mapped for `'m`, which outlives this call, and that is writable or makes the call
            // fail with EFAULT. It is the guest's: no Rust reference to it exists, and the kernel
            // alone accesses it here. `file` is open for the time of the borrow.
            unsafe {
                libc::preadv2(
                    file.as_raw_fd(),
                    entries.as_ptr(),
                    len_of(entries),
                    offset,
                    flags,
                )
            }
        })
    }

    /// Writes the runs to `file` at `offset`.
    ///
    /// # Errors
    /// As pwritev2(2), but not EINTR.
    pub(crate) fn write_to(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        flags: IoFlags,
    ) -> io::Result<usize> {
        let (offset, flags) = (offset_of(offset)?, flags_of(flags));
        retry(|| {
            // SAFETY: as in `fill_from`, except that the kernel only reads the memory.
            unsafe {
                libc::pwritev2(
                    file.as_raw_fd(),
                    self.entries.as_ptr(),
                    len_of(&self.entries),
                    offset,
                    flags,
                )
            }
        })
    }

    /// How many runs there are.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }
}

impl Drop for Buffers<'_> {
    fn drop(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        // Where the thread is ending, nobody needs it any more.
        let _ = ENTRIES.try_with(|kept| kept.set(entries));
    }
}

/// As many as one system call takes, which is at least those of a chain.
fn len_of(entries: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(entries.len().min(MAX_DESCRIPTORS)).unwrap_or(0)
}

fn offset_of(offset: u64) -> io::Result<libc::off_t> {
    // -1 would mean the file's own position; none of the negative ones may get there.
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn flags_of(flags: IoFlags) -> libc::c_int {
    ReadWriteFlags::from(flags).bits().cast_signed()
}

/// Repeats a system call until it is not interrupted by a signal.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        if let Ok(done) = usize::try_from(call()) {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
