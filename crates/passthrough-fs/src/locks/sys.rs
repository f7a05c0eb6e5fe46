//! Locks of open file descriptions (fcntl(2), "Open file description locks").

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

use super::ranges::{Kind, Range};

/// Sets a lock on `range` of the description that `fd` is of, or drops what is there with `None`.
/// Does not wait: EAGAIN or EACCES where another one stands in the way.
pub(super) fn set(fd: BorrowedFd<'_>, range: Range, kind: Option<Kind>) -> Result<()> {
    let lock = to_host(range, kind);
    // SAFETY: the command reads one `struct flock` from where `lock` is.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// The first lock of another description, or of a process, that stands in the way of one of `kind`.
pub(super) fn conflict(
    fd: BorrowedFd<'_>,
    range: Range,
    kind: Kind,
) -> Result<Option<(Range, Kind)>> {
    let mut lock = to_host(range, Some(kind));
    // SAFETY: the command reads and writes one `struct flock` where `lock` is.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result == 0 {
        Ok(from_host(&lock))
    } else {
        Err(last_errno())
    }
}

fn to_host(range: Range, kind: Option<Kind>) -> libc::flock {
    // The numbers are small, and types of the system differ in size.
    let kind = match kind {
        Some(Kind::Read) => libc::F_RDLCK,
        Some(Kind::Write) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    let (start, len) = range.start_and_len();
    // SAFETY: it consists of numbers, all of which may be 0. There may be fields that have no name.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn from_host(lock: &libc::flock) -> Option<(Range, Kind)> {
    let kind = match libc::c_int::from(lock.l_type) {
        libc::F_RDLCK => Kind::Read,
        libc::F_WRLCK => Kind::Write,
        _ => return None,
    };
    let range = Range::from_start_and_len(lock.l_start, lock.l_len)?;
    Some((range, kind))
}

fn last_errno() -> Errno {
    let raw = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(raw.unwrap_or(libc::EIO))
}
