use fuse_fs::abi::{FlushIn, FsyncIn};
use fuse_fs::flags::FsyncFlags;
use fuse_fs::{Context, Errno, NodeId, Result};
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;

use crate::inode_table::Kind;
use crate::volume::Storage;
use crate::{PassthroughFs, sys};

impl PassthroughFs {
    /// Closing a copy of the descriptor makes a network filesystem write back and tell of errors.
    /// Others have nothing to do at a close.
    pub(crate) fn do_flush(&self, cx: &Context<'_>, node: NodeId, args: &FlushIn) -> Result<()> {
        let file = self.file(args.fh, node)?;
        file.volume.check_reachable(cx)?;
        self.unlock_at_flush(node, args);
        if file.volume.storage != Storage::Remote {
            return Ok(());
        }
        Ok(sys::close(rustix::io::fcntl_dupfd_cloexec(&file.fd, 0)?)?)
    }

    pub(crate) fn do_fsync(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        let file = self.file(args.fh, node)?;
        file.volume.check_may_wait(cx)?;
        fsync(&file.fd, args)
    }

    pub(crate) fn do_fsyncdir(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        let directory = self.open_directory(args.fh, node)?;
        directory.volume.check_may_wait(cx)?;
        fsync(&directory.fd, args)
    }

    /// syncfs(2) takes no descriptor that was opened with O_PATH.
    pub(crate) fn do_syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        let inode = self.inode(cx, node)?;
        inode.volume.check_may_wait(cx)?;
        let flags = match inode.kind {
            Kind::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
            Kind::Regular => OFlags::RDONLY,
            Kind::Symlink | Kind::Special => return Err(Errno::EBADF.into()),
        };
        let fd = self.open_again(&inode, flags)?;
        Ok(rustix::fs::syncfs(&fd)?)
    }
}

fn fsync(fd: &OwnedFd, args: &FsyncIn) -> Result<()> {
    if args.fsync_flags.contains(FsyncFlags::FDATASYNC) {
        Ok(rustix::fs::fdatasync(fd)?)
    } else {
        Ok(rustix::fs::fsync(fd)?)
    }
}
