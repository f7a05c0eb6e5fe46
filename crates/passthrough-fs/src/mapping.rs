use std::os::fd::{AsFd, BorrowedFd};

use fuse_fs::abi::SetupmappingIn;
use fuse_fs::flags::MappingFlags;
use fuse_fs::{Context, Errno, Handle, NodeId, Result};
use rustix::fs::{OFlags, fcntl_getfl};

use crate::PassthroughFs;

impl PassthroughFs {
    /// An inode is opened for the mapping as OPEN would open it. The guest asks for it to be writable
    /// only when it writes there.
    pub(crate) fn do_setup_mapping(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &SetupmappingIn,
        map: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let writable = args.flags.contains(MappingFlags::WRITE);
        if args.fh != Handle::NONE {
            let file = self.file(args.fh, node)?;
            file.volume.check_reachable(cx)?;
            check_access(&file.fd, writable)?;
            return self.map_file(file.fd.as_fd(), writable, map);
        }
        let access = match writable {
            true => OFlags::RDWR,
            false => OFlags::RDONLY,
        };
        let inode = self.inode(cx, node)?;
        inode.volume.check_reachable(cx)?;
        let flags = self.host_flags(access.bits())?;
        let file = self.reopen_file(cx, &inode, flags)?;
        self.map_file(file.as_fd(), writable, map)
    }

    fn map_file(
        &self,
        file: BorrowedFd<'_>,
        writable: bool,
        map: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        if writable {
            self.drop_capabilities(file)?;
        }
        map(file)
    }
}

/// Checks that a file was opened for what mmap(2) takes: for reading always, and for both where it
/// is to be written to.
fn check_access(file: impl AsFd, writable: bool) -> Result<()> {
    let mode = fcntl_getfl(file)? & OFlags::RWMODE;
    match (mode == OFlags::RDWR, mode == OFlags::RDONLY && !writable) {
        (false, false) => Err(Errno::EACCES.into()),
        _ => Ok(()),
    }
}
