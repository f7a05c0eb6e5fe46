use std::collections::HashMap;

use fuse_wire::abi::{Kstatfs, SetattrIn};
use fuse_wire::flags::SetattrValid;
use fuse_wire::{Errno, Handle, NodeId};

use super::budget::Budget;
use super::data::{BLOCK, FileData};
use super::directory::Directory;
use super::inode::{Contents, Inode, PERMISSIONS};
use super::time::Timestamp;
use crate::Entry;

/// How long the guest may believe what it is told. It is alone in changing things, but may have
/// been told by way of several mounts.
pub(super) const VALID: std::time::Duration = std::time::Duration::from_secs(1);
/// Most handles that may be open, each a few words of memory.
const MAX_HANDLES: usize = 1 << 16;
/// Longest name in bytes (`NAME_MAX`).
const NAME_MAX: u32 = 255;
/// About what the smallest file takes up, for the count of inodes that statfs(2) tells.
const LEAST_FILE: u64 = 1024;

/// All of the filesystem: its inodes, and what the guest holds of them.
#[derive(Debug)]
pub(super) struct State {
    pub(super) inodes: HashMap<NodeId, Inode>,
    handles: HashMap<Handle, OpenFile>,
    pub(super) budget: Budget,
    last_node: u64,
    last_handle: u64,
}

/// What a handle stands for.
#[derive(Debug, Clone, Copy)]
struct OpenFile {
    node: NodeId,
    access: FileAccess,
}

/// What a handle may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileAccess {
    Read,
    Write,
    ReadWrite,
}

impl FileAccess {
    pub(super) const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

impl State {
    /// A filesystem with an empty root directory.
    pub(super) fn new(limit: u64) -> Self {
        let mut root = Inode::new(
            Contents::Directory(Directory::new(NodeId::ROOT)),
            0o755,
            0,
            0,
        );
        root.nlink = 2;
        Self {
            inodes: HashMap::from([(NodeId::ROOT, root)]),
            handles: HashMap::new(),
            budget: Budget::new(limit),
            last_node: NodeId::ROOT.0,
            last_handle: 0,
        }
    }

    /// The inode that the guest calls `node`.
    ///
    /// # Errors
    /// ESTALE.
    pub(super) fn inode(&self, node: NodeId) -> Result<&Inode, Errno> {
        self.inodes.get(&node).ok_or(Errno::ESTALE)
    }

    /// As [`inode`](Self::inode), to change it.
    ///
    /// # Errors
    /// ESTALE.
    pub(super) fn inode_mut(&mut self, node: NodeId) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&node).ok_or(Errno::ESTALE)
    }

    /// An inode and the budget that what it holds draws on.
    ///
    /// # Errors
    /// ESTALE.
    pub(super) fn inode_and_budget(
        &mut self,
        node: NodeId,
    ) -> Result<(&mut Inode, &mut Budget), Errno> {
        let inode = self.inodes.get_mut(&node).ok_or(Errno::ESTALE)?;
        Ok((inode, &mut self.budget))
    }

    /// # Errors
    /// ESTALE; ENOTDIR where it is no directory.
    pub(super) fn directory(&self, node: NodeId) -> Result<&Directory, Errno> {
        match &self.inode(node)?.contents {
            Contents::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The data of a file and the budget that it draws on.
    ///
    /// # Errors
    /// ESTALE; EISDIR or EINVAL where it is no file with data.
    pub(super) fn data_mut(&mut self, node: NodeId) -> Result<(&mut FileData, &mut Budget), Errno> {
        let (inode, budget) = self.inode_and_budget(node)?;
        match &mut inode.contents {
            Contents::File(data) => Ok((data, budget)),
            Contents::Directory(_) => Err(Errno::EISDIR),
            Contents::Symlink(_) | Contents::Special(_) => Err(Errno::EINVAL),
        }
    }

    /// Takes `inode` in and names it.
    ///
    /// # Errors
    /// ENOSPC.
    pub(super) fn adopt(&mut self, inode: Inode) -> Result<NodeId, Errno> {
        self.budget.take(inode.allocated())?;
        self.last_node = self.last_node.saturating_add(1);
        let node = NodeId(self.last_node);
        self.inodes.insert(node, inode);
        Ok(node)
    }

    /// Tells of an inode, and counts a lookup.
    ///
    /// # Errors
    /// ESTALE.
    pub(super) fn entry(&mut self, node: NodeId) -> Result<Entry, Errno> {
        self.count_lookup(node)?;
        self.peek(node)
    }

    /// Tells of an inode. The lookup is to be counted if the guest gets to see it.
    ///
    /// # Errors
    /// ESTALE.
    pub(super) fn peek(&self, node: NodeId) -> Result<Entry, Errno> {
        Ok(Entry {
            node,
            generation: 0,
            attr: self.inode(node)?.attr(node),
            attr_valid: VALID,
            entry_valid: VALID,
        })
    }

    /// # Errors
    /// ESTALE.
    pub(super) fn count_lookup(&mut self, node: NodeId) -> Result<(), Errno> {
        let inode = self.inode_mut(node)?;
        inode.lookups = inode.lookups.saturating_add(1);
        Ok(())
    }

    pub(super) fn forget(&mut self, node: NodeId, nlookup: u64) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.lookups = inode.lookups.saturating_sub(nlookup);
            self.drop_if_unused(node);
        }
    }

    /// Takes back every lookup and handle.
    pub(super) fn forget_all(&mut self) {
        self.handles.clear();
        let budget = &mut self.budget;
        self.inodes.retain(|&node, inode| {
            inode.lookups = 0;
            inode.handles = 0;
            let keep = node == NodeId::ROOT || !inode.is_unused();
            if !keep {
                budget.give_back(inode.allocated());
            }
            keep
        });
    }

    /// Gives up an inode that has no name, no lookup and no handle left.
    pub(super) fn drop_if_unused(&mut self, node: NodeId) {
        if node != NodeId::ROOT
            && self.inodes.get(&node).is_some_and(Inode::is_unused)
            && let Some(inode) = self.inodes.remove(&node)
        {
            self.budget.give_back(inode.allocated());
        }
    }

    /// # Errors
    /// ESTALE; ENFILE where too many are open.
    pub(super) fn open(&mut self, node: NodeId, access: FileAccess) -> Result<Handle, Errno> {
        if self.handles.len() >= MAX_HANDLES {
            return Err(Errno::ENFILE);
        }
        let inode = self.inode_mut(node)?;
        inode.handles = inode.handles.saturating_add(1);
        self.last_handle = self.last_handle.saturating_add(1);
        let handle = Handle(self.last_handle);
        self.handles.insert(handle, OpenFile { node, access });
        Ok(handle)
    }

    /// What `handle` may be used for.
    ///
    /// # Errors
    /// EBADF where it is not a handle of `node`.
    pub(super) fn access_of(&self, node: NodeId, handle: Handle) -> Result<FileAccess, Errno> {
        match self.handles.get(&handle) {
            Some(file) if file.node == node => Ok(file.access),
            _ => Err(Errno::EBADF),
        }
    }

    /// # Errors
    /// EBADF where it is not a handle of `node`.
    pub(super) fn close(&mut self, node: NodeId, handle: Handle) -> Result<(), Errno> {
        self.access_of(node, handle)?;
        self.handles.remove(&handle);
        let inode = self.inode_mut(node)?;
        inode.handles = inode.handles.saturating_sub(1);
        self.drop_if_unused(node);
        Ok(())
    }

    /// # Errors
    /// ESTALE, EISDIR, EINVAL.
    pub(super) fn truncate(&mut self, node: NodeId, size: u64) -> Result<(), Errno> {
        let (data, budget) = self.data_mut(node)?;
        data.set_size(size, budget);
        self.inode_mut(node)?.modified();
        Ok(())
    }

    /// # Errors
    /// As [`truncate`](Self::truncate); EBADF.
    pub(super) fn setattr(&mut self, node: NodeId, args: &SetattrIn) -> Result<(), Errno> {
        let valid = args.valid;
        if valid.contains(SetattrValid::FH) {
            self.access_of(node, args.fh)?;
        }
        if valid.contains(SetattrValid::SIZE) {
            self.truncate(node, args.size)?;
        }
        let inode = self.inode_mut(node)?;
        inode.changed();
        let now = inode.ctime;
        if valid.contains(SetattrValid::MODE) {
            inode.permissions = args.mode & PERMISSIONS;
        }
        if valid.contains(SetattrValid::UID) {
            inode.uid = args.uid;
        }
        if valid.contains(SetattrValid::GID) {
            inode.gid = args.gid;
        }
        if valid.contains(SetattrValid::ATIME_NOW) {
            inode.atime = now;
        } else if valid.contains(SetattrValid::ATIME) {
            inode.atime = Timestamp::from_wire(args.atime, args.atimensec);
        }
        if valid.contains(SetattrValid::MTIME_NOW) {
            inode.mtime = now;
        } else if valid.contains(SetattrValid::MTIME) {
            inode.mtime = Timestamp::from_wire(args.mtime, args.mtimensec);
        }
        if valid.contains(SetattrValid::CTIME) {
            inode.ctime = Timestamp::from_wire(args.ctime, args.ctimensec);
        }
        Ok(())
    }

    pub(super) fn statfs(&self) -> Kstatfs {
        let per = |bytes: u64, unit: u64| bytes.checked_div(unit).unwrap_or(0);
        let (limit, left) = (self.budget.limit(), self.budget.left());
        Kstatfs {
            blocks: per(limit, BLOCK),
            bfree: per(left, BLOCK),
            bavail: per(left, BLOCK),
            files: per(limit, LEAST_FILE),
            ffree: per(left, LEAST_FILE),
            bsize: 4096,
            namelen: NAME_MAX,
            frsize: 4096,
            ..Default::default()
        }
    }
}
