use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

/// The DAX window of a device (virtio 1.x, section 5.11.6): memory into which parts of files are
/// mapped, which the guest reads and writes without a request.
///
/// The transport implements this, and a [`Session`](crate::Session) that was given it calls it. What
/// it is asked lies within the window and is of whole pages of this host; more is up to the transport,
/// such as what becomes of mappings when the guest is gone.
///
/// Calls may wait for whoever has the window, for a bounded time.
pub trait DaxWindow: Send + Sync + fmt::Debug {
    /// Bytes; 0 while there is none, as with a front-end that knows of no such window.
    fn size(&self) -> u64;

    /// Maps a part of `file`, a regular one, in the place of whatever is mapped there.
    ///
    /// # Errors
    /// It cannot be mapped, and nothing may be there any more.
    fn map(&self, file: BorrowedFd<'_>, mapping: Mapping) -> io::Result<()>;

    /// Has nothing mapped in `len` bytes from `offset` on; there may be nothing already.
    ///
    /// # Errors
    /// Something is there still.
    fn unmap(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Has nothing mapped at all: the session ended. Waits for no answer.
    fn clear(&self);
}

/// A part of a file, and where it goes in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Bytes from the start of the window.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Bytes from the start of the file. The part may go beyond its end.
    pub file_offset: u64,
    /// Whether the guest may write.
    pub writable: bool,
}
