//! The DAX window: shared memory of the device into which files are mapped (virtio 1.x, section
//! 5.11.6, "Device Operation: DAX window").

mod mappings;
mod patience;
mod reserved;
#[allow(unsafe_code)]
mod sys;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{fcntl_get_seals, fstatfs};
use rustix::io::Errno;

pub(crate) use mappings::{Mappings, Refusal};
pub use patience::Patience;
pub use reserved::ReservedWindow;

/// Memory that a VMM has set aside for the DAX window, and what maps files there.
#[derive(Clone)]
pub struct Window {
    /// Bytes: a number of whole pages.
    pub size: u64,
    /// Maps files there: a [`ReservedWindow`], or something of the VMM's own.
    pub mapper: Arc<dyn WindowMapper>,
}

/// Maps files into the window, for the guest.
///
/// It is called from any thread, one call at a time. What it is asked has been checked: offsets and
/// lengths are those of whole pages of this host, within the window, and a range that is mapped is
/// never mapped again before it was unmapped. What was mapped is unmapped before the device is gone.
pub trait WindowMapper: Send + Sync {
    /// Maps a part of a file, shared, so that the guest finds it in the window.
    ///
    /// The file is one that the daemon chose. It can be cut short at any time: whoever touches what
    /// is not there any more gets a SIGBUS (`mmap(2)`), and so does the VMM's own thread if it does.
    /// Its file system can refuse to be mapped, which with `MAP_FIXED` leaves a gap in what the VMM set
    /// aside: the guest would share what the VMM maps there next. [`ReservedWindow`] avoids that.
    ///
    /// # Errors
    /// Nothing is mapped; the guest is told that it cannot be.
    fn map(&self, mapping: FileMapping<'_>) -> io::Result<()>;

    /// Takes a mapping away: `offset` and `len` are those of one that [`map`](Self::map) made.
    ///
    /// What the guest finds there afterwards is up to the mapper. No guest that behaves looks.
    ///
    /// # Errors
    /// It is still there.
    fn unmap(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// A part of a file, and where in the window it goes.
#[derive(Debug, Clone, Copy)]
pub struct FileMapping<'a> {
    /// Bytes from the start of the window.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// A regular file, and not on hugetlbfs. The descriptor is closed after the call.
    pub file: BorrowedFd<'a>,
    /// Bytes from the start of the file; the mapping may go beyond its end.
    pub file_offset: u64,
    /// Whether the guest may write.
    pub writable: bool,
}

/// How a device's window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStatus {
    /// Bytes, as the guest sees it.
    pub size: u64,
    /// How many parts of files are mapped now.
    pub mappings: usize,
}

/// Whether the kernel maps `file` in larger pages than this host's (hugetlbfs(5)): whole ones only,
/// whatever length it is asked for, and so over what is mapped behind.
///
/// Only file systems in memory have seals (fcntl(2)), those of larger pages among them. They can be
/// asked what they are: others might never answer.
pub(crate) fn has_larger_pages(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    /// `HUGETLBFS_MAGIC` (statfs(2)).
    const HUGETLBFS: u32 = 0x9584_58f6;
    match fcntl_get_seals(file) {
        Ok(_) => Ok(fstatfs(file)?.f_type as u32 == HUGETLBFS),
        Err(Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether so many bytes are whole pages of this host.
pub(crate) fn is_of_pages(bytes: u64) -> bool {
    bytes.is_multiple_of(rustix::param::page_size() as u64)
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
