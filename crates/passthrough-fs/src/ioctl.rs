//! Attributes of files that are read and set by ioctl(2) (ioctl_iflags(2), ioctl_xfs_fsgetxattr(2)).
//!
//! The guest's kernel opens the file to do that, and sends what chattr(1) and lsattr(1) call for
//! as one of four commands. It has checked that the caller owns the file, but not whether it may
//! make one immutable (CAP_LINUX_IMMUTABLE), which it leaves to the filesystem: only root may here.
//! Whether this process may is up to the host.

use std::os::fd::{AsFd, BorrowedFd};

use fuse_fs::abi::{IoctlIn, IoctlOut};
use fuse_fs::flags::IoctlFlags;
use fuse_fs::{Context, Errno, NodeId, Result};

use crate::fsetid::SuidSgid;
use crate::sys::FsXattr;
use crate::{PassthroughFs, sys};

/// Commands as they travel: those of the generic layout, which x86 and Arm have (`linux/fs.h`). The
/// form for 32-bit programs says another size, but carries the same.
const GETFLAGS: u32 = 0x8008_6601;
const GETFLAGS_32: u32 = 0x8004_6601;
const SETFLAGS: u32 = 0x4008_6602;
const SETFLAGS_32: u32 = 0x4004_6602;
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;

/// `FS_APPEND_FL` and `FS_IMMUTABLE_FL`.
const PROTECTING_FLAGS: u32 = 0x20 | 0x10;
/// `FS_XFLAG_APPEND` and `FS_XFLAG_IMMUTABLE`.
const PROTECTING_XFLAGS: u32 = 0x10 | 0x08;

/// What a command does.
#[derive(Debug, Clone, Copy)]
enum Command {
    Get(Attributes),
    Set(Attributes),
}

/// Which of the two kinds of attributes it is about.
#[derive(Debug, Clone, Copy)]
enum Attributes {
    /// One word of flags.
    Flags,
    /// `struct fsxattr`: flags, extent size and project id.
    Extended,
}

impl PassthroughFs {
    pub(crate) fn do_ioctl(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &IoctlIn,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<(IoctlOut, usize)> {
        let command = Command::known(args.cmd)?;
        let len = if args.flags.contains(IoctlFlags::DIR) {
            let directory = self.open_directory(args.fh, node)?;
            directory.volume.check_may_wait(cx)?;
            command.run(cx, directory.fd.as_fd(), data, buffer)?
        } else {
            let file = self.file(args.fh, node)?;
            file.volume.check_may_wait(cx)?;
            command.run(cx, file.fd.as_fd(), data, buffer)?
        };
        Ok((IoctlOut::default(), len))
    }
}

impl Command {
    /// # Errors
    /// ENOTTY for all others: what they do and how much of the caller's memory they take is not
    /// known.
    fn known(command: u32) -> Result<Self> {
        match command {
            GETFLAGS | GETFLAGS_32 => Ok(Self::Get(Attributes::Flags)),
            SETFLAGS | SETFLAGS_32 => Ok(Self::Set(Attributes::Flags)),
            FSGETXATTR => Ok(Self::Get(Attributes::Extended)),
            FSSETXATTR => Ok(Self::Set(Attributes::Extended)),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    /// Returns how many bytes of `buffer` are output.
    ///
    /// # Errors
    /// EINVAL where the input or the room for the output has another size than the attributes.
    fn run(
        self,
        cx: &Context<'_>,
        fd: BorrowedFd<'_>,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize> {
        match self {
            Self::Get(Attributes::Flags) => put(&sys::inode_flags(fd)?.to_ne_bytes(), buffer),
            Self::Get(Attributes::Extended) => put(&sys::fsxattr(fd)?, buffer),
            Self::Set(Attributes::Flags) => {
                let new = u32::from_ne_bytes(taken(data)?);
                check_protection(cx, new, PROTECTING_FLAGS, || sys::inode_flags(fd))?;
                SuidSgid::of(cx).apply()?;
                sys::set_inode_flags(fd, new)?;
                Ok(0)
            }
            Self::Set(Attributes::Extended) => {
                let new: FsXattr = taken(data)?;
                let xflags = |fsxattr: FsXattr| {
                    let flags = fsxattr.first_chunk().copied().unwrap_or_default();
                    u32::from_ne_bytes(flags)
                };
                let old = || sys::fsxattr(fd).map(xflags);
                check_protection(cx, xflags(new), PROTECTING_XFLAGS, old)?;
                SuidSgid::of(cx).apply()?;
                sys::set_fsxattr(fd, &new)?;
                Ok(0)
            }
        }
    }
}

/// Refuses a change of the flags that protect a file, unless root in the guest makes it.
fn check_protection(
    cx: &Context<'_>,
    new: u32,
    protecting: u32,
    old: impl FnOnce() -> rustix::io::Result<u32>,
) -> Result<()> {
    if cx.uid != 0 && (old()? ^ new) & protecting != 0 {
        return Err(Errno::EPERM.into());
    }
    Ok(())
}

fn put(output: &[u8], buffer: &mut [u8]) -> Result<usize> {
    if buffer.len() != output.len() {
        return Err(Errno::EINVAL.into());
    }
    buffer.copy_from_slice(output);
    Ok(output.len())
}

fn taken<const N: usize>(data: &[u8]) -> Result<[u8; N]> {
    data.try_into().map_err(|_| Errno::EINVAL.into())
}
