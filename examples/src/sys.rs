//! What takes a descriptor's bare number, ioctl(2), and mallopt(3).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

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

/// Makes `device`, which is `/dev/fuse` freshly opened, another way to the mount behind `mounted`
/// (`FUSE_DEV_IOC_CLONE`).
///
/// # Errors
/// EINVAL where `mounted` is no device with a mount, ENOTTY where the kernel does not know how.
pub(crate) fn clone_fuse_device(device: BorrowedFd<'_>, mounted: BorrowedFd<'_>) -> io::Result<()> {
    const CLONE: Opcode = opcode::read::<u32>(229, 0);
    let number = mounted.as_raw_fd().cast_unsigned();
    // SAFETY: the argument of this command is a pointer to a u32, which the kernel only reads; the
    // setter passes a pointer to the `number` that it holds. The kernel looks the descriptor up
    // during the call, for which `mounted` keeps it open.
    unsafe { ioctl(device, Setter::<CLONE, u32>::new(number)) }?;
    Ok(())
}

/// Has all threads that this process will have take their memory from one heap, as far as the C
/// library has a choice.
///
/// By default each thread has its own, and what start-up left free in the first one is of no use to
/// the others. A daemon allocates next to nothing while it serves: the lock of the one heap is free.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes no pointers, and is said to be safe for any thread to call (mallopt(3)).
        let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        if done == 0 {
            tracing::warn!("cannot have all threads share one heap; they take more memory so");
        }
    }
}
