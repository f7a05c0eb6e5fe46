//! What takes a descriptor's bare number.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// Makes a descriptor of one's own of the open file behind `fd`, a number that whoever started
/// this process names. The inherited one stays open.
///
/// # Errors
/// EBADF where no file is open there.
pub(crate) fn duplicate_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(
            rustix::io::Errno::BADF.raw_os_error(),
        ));
    }
    // SAFETY: it is not -1. Nothing is closed and no memory is touched by way of it: it is only
    // duplicated, within this function, and the kernel says EBADF where no file is open there.
    let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(inherited, 3)?)
}
