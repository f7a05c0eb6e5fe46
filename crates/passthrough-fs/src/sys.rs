//! The system calls that have no safe wrapper.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Opcode, opcode};
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

/// `struct fsxattr` (`linux/fs.h`): five words and eight bytes of padding, of which only the kernel
/// knows what they mean.
pub(crate) type FsXattr = [u8; 28];

/// The flags of an inode (ioctl_iflags(2)).
pub(crate) fn inode_flags(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut flags: libc::c_int = 0;
    // SAFETY: FS_IOC_GETFLAGS writes one int, though its name says long, to where `flags` is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    done(result).map(|()| flags.cast_unsigned())
}

/// Sets the flags of an inode (ioctl_iflags(2)).
pub(crate) fn set_inode_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    let flags: libc::c_int = flags.cast_signed();
    // SAFETY: FS_IOC_SETFLAGS reads one int, though its name says long, from where `flags` is.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) })
}

/// The extended flags and the project of an inode (ioctl_xfs_fsgetxattr(2)).
pub(crate) fn fsxattr(fd: BorrowedFd<'_>) -> Result<FsXattr> {
    const FS_IOC_FSGETXATTR: Opcode = opcode::read::<FsXattr>(b'X', 31);
    let mut fsxattr = [0; size_of::<FsXattr>()];
    // SAFETY: the command says how much it writes: a `struct fsxattr`, for which any bytes are
    // valid and `fsxattr` has room. It is copied there whatever its alignment.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            FS_IOC_FSGETXATTR.into(),
            fsxattr.as_mut_ptr(),
        )
    };
    done(result).map(|()| fsxattr)
}

/// Sets the extended flags and the project of an inode (ioctl_xfs_fsgetxattr(2)).
pub(crate) fn set_fsxattr(fd: BorrowedFd<'_>, fsxattr: &FsXattr) -> Result<()> {
    const FS_IOC_FSSETXATTR: Opcode = opcode::write::<FsXattr>(b'X', 32);
    // SAFETY: the command says how much it reads: a `struct fsxattr`, which is there.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSSETXATTR.into(), fsxattr.as_ptr()) })
}

fn done(result: libc::c_int) -> Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    let raw = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(raw.unwrap_or(libc::EIO))
}
