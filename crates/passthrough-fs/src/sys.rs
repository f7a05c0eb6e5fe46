//! The system calls that have no safe wrapper.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, XattrFlags};
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
    length(len)
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

/// Most bytes of a file handle (`MAX_HANDLE_SZ`, name_to_handle_at(2)).
pub(crate) const MAX_HANDLE: usize = 128;

/// `struct file_handle` with room for the largest (name_to_handle_at(2)).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RawHandle {
    pub(crate) len: u32,
    pub(crate) kind: i32,
    pub(crate) bytes: [u8; MAX_HANDLE],
}

/// The file handle of what `name` names in `dir` (name_to_handle_at(2)).
pub(crate) fn name_to_handle_at(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: AtFlags,
) -> Result<RawHandle> {
    let mut handle = RawHandle {
        len: MAX_HANDLE as u32,
        kind: 0,
        bytes: [0; MAX_HANDLE],
    };
    let mut mount: libc::c_int = 0;
    // SAFETY: `name` ends with a NUL. The kernel reads `handle.len`, which is the size of
    // `handle.bytes`, and writes at most that many bytes there; any bytes are valid for the fields.
    // `mount` is writable. All of them outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            flags.bits() as libc::c_int,
        )
    };
    if result == 0 {
        Ok(handle)
    } else {
        Err(last_errno())
    }
}

/// Opens the file of `handle` on the mount on which `mount` was opened, for more than O_PATH
/// (open_by_handle_at(2)).
pub(crate) fn open_by_handle_at(
    mount: BorrowedFd<'_>,
    handle: &RawHandle,
    flags: OFlags,
) -> Result<OwnedFd> {
    // SAFETY: the kernel reads the two numbers and as many bytes after them as the first says, or
    // fails where that is more than MAX_HANDLE, which is how many there are. It writes nothing.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            std::ptr::from_ref(handle),
            flags.bits() as libc::c_int,
        )
    };
    let fd = libc::c_int::try_from(fd).map_err(|_| Errno::BADF)?;
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the descriptor was just opened, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the mode of what `path` names in `dir`, or of `dir` itself (fchmodat2(2)).
pub(crate) fn fchmodat2(dir: impl AsFd, path: &CStr, mode: u32, flags: AtFlags) -> Result<()> {
    // SAFETY: `path` ends with a NUL and outlives the call, which writes to no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            mode,
            flags.bits(),
        )
    };
    length(result).map(drop)
}

/// Calls of Linux 6.13. Those that are this young have their numbers in the same order on all
/// architectures, 463 to 466 on most, of which libc does not know them yet.
const SYS_SETXATTRAT: libc::c_long = libc::SYS_fchmodat2 + 11;
const SYS_GETXATTRAT: libc::c_long = libc::SYS_fchmodat2 + 12;
const SYS_LISTXATTRAT: libc::c_long = libc::SYS_fchmodat2 + 13;
const SYS_REMOVEXATTRAT: libc::c_long = libc::SYS_fchmodat2 + 14;

/// `struct xattr_args` (`linux/xattr.h`).
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// An extended attribute of what `path` names in `dir` (getxattrat(2)): as getxattr(2).
pub(crate) fn getxattrat(
    dir: impl AsFd,
    path: &CStr,
    flags: AtFlags,
    name: &CStr,
    value: &mut [u8],
) -> Result<usize> {
    let args = XattrArgs {
        value: value.as_mut_ptr() as u64,
        size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: `path` and `name` end with a NUL, `args` is as large as is said, and `args.value`
    // has room for `args.size` bytes, which the kernel writes at most; any bytes are valid for it.
    // All of them outlive the call.
    let result = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags.bits(),
            name.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    length(result)
}

/// Sets an extended attribute of what `path` names in `dir` (setxattrat(2)): as setxattr(2).
pub(crate) fn setxattrat(
    dir: impl AsFd,
    path: &CStr,
    name: &CStr,
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    let args = XattrArgs {
        value: value.as_ptr() as u64,
        size: u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?,
        flags: flags.bits(),
    };
    // SAFETY: `path` and `name` end with a NUL, `args` is as large as is said, and `args.value`
    // has `args.size` bytes, which the kernel reads. All of them outlive the call, which writes to
    // no memory.
    let result = unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            AtFlags::empty().bits(),
            name.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    length(result).map(drop)
}

/// The names of the extended attributes of what `path` names in `dir` (listxattrat(2)): as
/// listxattr(2).
pub(crate) fn listxattrat(dir: impl AsFd, path: &CStr, list: &mut [u8]) -> Result<usize> {
    // SAFETY: `path` ends with a NUL. The kernel writes at most `list.len()` bytes to `list`, for
    // which any bytes are valid. Both outlive the call.
    let result = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            AtFlags::empty().bits(),
            list.as_mut_ptr(),
            list.len(),
        )
    };
    length(result)
}

/// Removes an extended attribute of what `path` names in `dir` (removexattrat(2)).
pub(crate) fn removexattrat(dir: impl AsFd, path: &CStr, name: &CStr) -> Result<()> {
    // SAFETY: `path` and `name` end with a NUL and outlive the call, which writes to no memory.
    let result = unsafe {
        libc::syscall(
            SYS_REMOVEXATTRAT,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            AtFlags::empty().bits(),
            name.as_ptr(),
        )
    };
    length(result).map(drop)
}

/// What a call returns that tells a length, or that it failed.
fn length(result: libc::c_long) -> Result<usize> {
    usize::try_from(result).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    let raw = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(raw.unwrap_or(libc::EIO))
}
