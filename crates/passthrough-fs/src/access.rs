use fuse_fs::abi::{AccessIn, Attr};
use fuse_fs::{Context, Errno, NodeId, Result};

use crate::PassthroughFs;
use crate::attr::{kind, stat_fd};
use crate::inode_table::Kind;

/// Bits of an access(2) mask, and of each part of a mode.
const READ_WRITE: u32 = 0o6;
const EXECUTE: u32 = 0o1;

impl PassthroughFs {
    /// Checks by the mode alone: neither ACLs nor the caller's other groups are known. Linux does
    /// not ask over virtio-fs, as its kernel checks permissions by itself.
    pub(crate) fn do_access(&self, cx: &Context<'_>, node: NodeId, args: &AccessIn) -> Result<()> {
        let stat = stat_fd(self.inode(cx, node)?)?;
        let Attr { mode, uid, gid, .. } = self.attr(&stat);
        let anyone_executes = mode & 0o111 != 0 || kind(&stat) == Kind::Directory;
        let granted = match cx.uid {
            0 if anyone_executes => READ_WRITE | EXECUTE,
            0 => READ_WRITE,
            caller if caller == uid => mode >> 6,
            _ if cx.gid == gid => mode >> 3,
            _ => mode,
        };
        if args.mask & (READ_WRITE | EXECUTE) & !granted == 0 {
            Ok(())
        } else {
            Err(Errno::EACCES.into())
        }
    }
}
