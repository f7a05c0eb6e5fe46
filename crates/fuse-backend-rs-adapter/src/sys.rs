//! Memory that fuse-backend-rs reads or writes behind the compiler's back.

#![allow(unsafe_code, reason = "fuse-backend-rs has no safe way from a slice")]

use fuse_backend_rs::file_buf::FileVolatileSlice;

/// `buffer` in the form that [`FileReadWriteVolatile`] takes.
///
/// [`FileReadWriteVolatile`]: fuse_backend_rs::file_traits::FileReadWriteVolatile
pub(crate) fn volatile(buffer: &mut [u8]) -> FileVolatileSlice<'_> {
    // SAFETY: the function asks that everybody else accesses the memory by volatile accesses only.
    // There is nobody else: the memory is borrowed exclusively for as long as the result, and all
    // copies of it, can be used.
    unsafe { FileVolatileSlice::from_mut_slice(buffer) }
}
