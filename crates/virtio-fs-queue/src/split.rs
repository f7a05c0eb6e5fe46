//! One large READ, by several threads at once.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use fuse_fs::IoFlags;
use vm_memory::GuestMemoryRegion;

use crate::Pool;
use crate::payload::gather;
use crate::segment::Cursor;
use crate::sys::{Buffers, Together};

/// Bytes from which on it pays: alone, a thread takes more than 100 us for them.
const LARGE: usize = 512 * 1024;
/// Least bytes of a part. The fewer, the shorter is the wait for the last one.
const PART: usize = 64 * 1024;
/// Most parts.
pub(crate) const MAX_PARTS: usize = 16;

/// The threads that may read along with a queue's own.
#[derive(Clone, Copy)]
pub(crate) struct Readers<'q> {
    pub(crate) pool: &'q Pool,
    pub(crate) together: &'q Arc<Together>,
}

/// A READ in parts.
pub(crate) struct Split {
    len: usize,
    part_len: usize,
    /// The next part to begin with, past the end where there is none.
    next: AtomicUsize,
    /// Bytes read of each, or the negative number of an error.
    results: [AtomicIsize; MAX_PARTS],
}

impl Readers<'_> {
    /// Reads as one preadv2(2) of `len` bytes into `free` does, by several threads. `None` where this
    /// one had better do it alone: there is little to do, or no processor is left.
    pub(crate) fn read<R: GuestMemoryRegion>(
        self,
        free: &Cursor<'_, '_, R>,
        file: BorrowedFd<'_>,
        (offset, len): (u64, usize),
        flags: IoFlags,
    ) -> Option<io::Result<Split>> {
        let len = len.min(free.remaining());
        if len < LARGE {
            return None;
        }
        let large = self.pool.begin_large();
        let _help = large.help()?;
        Some(self.share(Split::new(len), free, (file, offset), flags))
    }

    fn share<R: GuestMemoryRegion>(
        self,
        split: Split,
        free: &Cursor<'_, '_, R>,
        (file, offset): (BorrowedFd<'_>, u64),
        flags: IoFlags,
    ) -> io::Result<Split> {
        let mut buffers = Buffers::new();
        let mut entries = [const { 0..0 }; MAX_PARTS];
        for (entries, part) in entries.iter_mut().zip(split.parts()) {
            let mut free = *free;
            free.advance(part.start);
            let first = buffers.count();
            gather(&mut buffers, &free, part.len())?;
            *entries = first..buffers.count();
        }
        let read = |index: usize, part: Range<usize>| {
            let entries = entries.get(index).cloned().unwrap_or_default();
            let offset = offset.saturating_add(part.start as u64);
            buffers.fill_some_from(entries, file, offset, flags)
        };
        // Nobody is woken up before it is known that there is more than one part to be had at once.
        if split.do_next(read) {
            let work = || while split.do_next(read) {};
            self.together.share(&work, || self.pool.call(self.together));
        }
        Ok(split)
    }
}

impl Split {
    fn new(len: usize) -> Self {
        let part_len = len.div_ceil(MAX_PARTS);
        Self {
            len,
            part_len: part_len.checked_next_multiple_of(PART).unwrap_or(part_len),
            next: AtomicUsize::new(0),
            results: [const { AtomicIsize::new(0) }; MAX_PARTS],
        }
    }

    /// Where the parts are in what is read.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = (0..self.len).step_by(self.part_len);
        starts.map(|start| start..start.saturating_add(self.part_len).min(self.len))
    }

    /// Does the next part; `false` where there is none, or where those behind this one are void.
    fn do_next(&self, read: impl Fn(usize, Range<usize>) -> io::Result<usize>) -> bool {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let (Some(part), Some(result)) = (self.parts().nth(index), self.results.get(index)) else {
            return false;
        };
        let len = part.len();
        let (read, is_whole) = match read(index, part) {
            Ok(read) => (isize::try_from(read).unwrap_or(isize::MAX), read == len),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let errno = isize::try_from(errno).unwrap_or(isize::MAX);
                (errno.saturating_neg(), false)
            }
        };
        result.store(read, Ordering::Relaxed);
        if !is_whole {
            self.next.store(MAX_PARTS, Ordering::Relaxed);
        }
        is_whole
    }

    /// What of the room was written to: also what does not count, as it is behind the end.
    pub(crate) fn written(&self) -> impl Iterator<Item = Range<usize>> {
        self.outcomes().filter_map(|(part, result)| {
            let end = part.start.saturating_add(result.ok()?);
            Some(part.start..end)
        })
    }

    /// Bytes up to the first that is not there.
    ///
    /// # Errors
    /// That of the first part.
    pub(crate) fn result(&self) -> io::Result<usize> {
        let mut done = 0_usize;
        for (part, result) in self.outcomes() {
            match result {
                Ok(read) => {
                    done = done.saturating_add(read);
                    if read < part.len() {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn outcomes(&self) -> impl Iterator<Item = (Range<usize>, io::Result<usize>)> {
        self.parts().zip(&self.results).map(|(part, result)| {
            let result = result.load(Ordering::Relaxed);
            let read = usize::try_from(result).map_err(|_| {
                let errno = i32::try_from(result.saturating_neg()).unwrap_or(libc::EIO);
                io::Error::from_raw_os_error(errno)
            });
            (part, read)
        })
    }
}

#[cfg(test)]
mod tests;
