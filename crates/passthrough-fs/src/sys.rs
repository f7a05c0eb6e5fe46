//! The system calls that have no safe wrapper.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// Reads entries of the directory `fd` from its position on to the front of `buffer`, laid out as
/// getdents64(2) says, and returns how many bytes those are: 0 at the end.
pub(crate) fn getdents64(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, which is writable and
    // outlives the call; any bytes are valid for it.
    let len = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    usize::try_from(len).map_err(|_| last_errno())
}

/// Closes `fd` and tells what close(2) says, which is how some network filesystems report that
/// data was lost.
pub(crate) fn close(fd: OwnedFd) -> Result<()> {
    // SAFETY: the descriptor is owned, is given up here, and is closed once whatever the result.
    if unsafe { libc::close(fd.into_raw_fd()) } == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Gives the calling thread a umask and a working directory of its own, which until then it shared
/// with all threads of the process (unshare(2), CLONE_FS).
pub(crate) fn unshare_umask_and_cwd() -> Result<()> {
    // SAFETY: only CLONE_FILES could take file descriptors away from other threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

fn last_errno() -> Errno {
    let raw = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(raw.unwrap_or(libc::EIO))
}
