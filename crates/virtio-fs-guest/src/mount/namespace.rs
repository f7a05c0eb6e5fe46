use std::ffi::CStr;

use fuse_wire::abi::{
    AccessIn, AttrOut, EntryOut, ForgetIn, GetattrIn, Kstatfs, LinkIn, MkdirIn, MknodIn, Rename2In,
    RenameIn, SetattrIn, SyncfsIn,
};
use fuse_wire::flags::{GetattrFlags, RenameFlags};
use fuse_wire::{Handle, LookupName, NodeId, Operation, Reply, SymlinkTarget};

use super::{Mount, name, reply};
use crate::{Error, Payload};

/// Names and inodes.
#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl Mount {
    /// LOOKUP: finds `name` in `parent` and counts one lookup of its node. A negative entry is
    /// told as ENOENT is.
    pub fn lookup(&mut self, parent: NodeId, name: &CStr) -> Result<EntryOut, Error> {
        let name = LookupName::new(name).map_err(super::bad_name)?;
        let entry = self.entry(parent, Operation::Lookup { name })?;
        if entry.nodeid == NodeId::NEGATIVE {
            return Err(Error::Errno(fuse_wire::Errno::ENOENT));
        }
        Ok(entry)
    }

    /// FORGET, on the hiprio queue: takes `nlookup` lookups of `node` back. Waits until the
    /// device has used the request.
    pub fn forget(&mut self, node: NodeId, nlookup: u64) -> Result<(), Error> {
        let operation = Operation::Forget(ForgetIn { nlookup });
        let queue = self.connection.hiprio();
        queue.call(node, operation, Payload::None)?.result()?;
        Ok(())
    }

    /// GETATTR, of an open file where `handle` is given.
    pub fn getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<AttrOut, Error> {
        let args = GetattrIn {
            getattr_flags: handle.map_or(GetattrFlags::empty(), |_| GetattrFlags::FH),
            dummy: 0,
            fh: handle.unwrap_or_default(),
        };
        self.reply(
            node,
            Operation::GetAttr(args),
            reply!(Reply::Attr(out) => out),
        )
    }

    /// SETATTR: `args.valid` says what to change.
    pub fn setattr(&mut self, node: NodeId, args: SetattrIn) -> Result<AttrOut, Error> {
        self.reply(
            node,
            Operation::SetAttr(args),
            reply!(Reply::Attr(out) => out),
        )
    }

    /// READLINK.
    pub fn readlink(&mut self, node: NodeId) -> Result<Vec<u8>, Error> {
        self.reply(
            node,
            Operation::ReadLink,
            reply!(Reply::Data(target) => target.to_vec()),
        )
    }

    /// SYMLINK: makes `link` in `parent`, which points to `target`.
    pub fn symlink(
        &mut self,
        parent: NodeId,
        link: &CStr,
        target: &CStr,
    ) -> Result<EntryOut, Error> {
        let operation = Operation::Symlink {
            name: name(link)?,
            target: SymlinkTarget::new(target).map_err(super::bad_name)?,
        };
        self.entry(parent, operation)
    }

    /// MKNOD: `mode` has the type, `rdev` is in the kernel's 32-bit encoding.
    pub fn mknod(
        &mut self,
        parent: NodeId,
        new: &CStr,
        mode: u32,
        rdev: u32,
    ) -> Result<EntryOut, Error> {
        let args = MknodIn {
            mode,
            rdev,
            umask: 0,
            padding: 0,
        };
        let name = name(new)?;
        self.entry(parent, Operation::MkNod { args, name })
    }

    /// MKDIR.
    pub fn mkdir(&mut self, parent: NodeId, new: &CStr, mode: u32) -> Result<EntryOut, Error> {
        let args = MkdirIn { mode, umask: 0 };
        let name = name(new)?;
        self.entry(parent, Operation::MkDir { args, name })
    }

    /// UNLINK.
    pub fn unlink(&mut self, parent: NodeId, old: &CStr) -> Result<(), Error> {
        self.empty(parent, Operation::Unlink { name: name(old)? })
    }

    /// RMDIR.
    pub fn rmdir(&mut self, parent: NodeId, old: &CStr) -> Result<(), Error> {
        self.empty(parent, Operation::RmDir { name: name(old)? })
    }

    /// RENAME without flags, else RENAME2.
    pub fn rename(
        &mut self,
        (parent, old): (NodeId, &CStr),
        (new_parent, new): (NodeId, &CStr),
        flags: RenameFlags,
    ) -> Result<(), Error> {
        let newdir = new_parent;
        let (name, new_name) = (name(old)?, name(new)?);
        let operation = if flags.is_empty() {
            let args = RenameIn { newdir };
            Operation::Rename {
                args,
                name,
                new_name,
            }
        } else {
            let args = Rename2In {
                newdir,
                flags,
                padding: 0,
            };
            Operation::Rename2 {
                args,
                name,
                new_name,
            }
        };
        self.empty(parent, operation)
    }

    /// LINK: makes `new` in `parent` another name of `node`.
    pub fn link(&mut self, node: NodeId, parent: NodeId, new: &CStr) -> Result<EntryOut, Error> {
        let args = LinkIn { oldnodeid: node };
        let name = name(new)?;
        self.entry(parent, Operation::Link { args, name })
    }

    /// ACCESS: `mask` as of access(2).
    pub fn access(&mut self, node: NodeId, mask: u32) -> Result<(), Error> {
        self.empty(node, Operation::Access(AccessIn { mask, padding: 0 }))
    }

    /// STATFS.
    pub fn statfs(&mut self, node: NodeId) -> Result<Kstatfs, Error> {
        self.reply(node, Operation::StatFs, reply!(Reply::StatFs(out) => out))
    }

    /// SYNCFS.
    pub fn syncfs(&mut self, node: NodeId) -> Result<(), Error> {
        self.empty(node, Operation::SyncFs(SyncfsIn { padding: 0 }))
    }

    fn entry(&mut self, parent: NodeId, operation: Operation<'_>) -> Result<EntryOut, Error> {
        self.reply(parent, operation, reply!(Reply::Entry(out) => out))
    }
}
