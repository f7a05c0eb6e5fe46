use std::sync::Arc;

use fuse_fs::flags::AttrFlags;
use fuse_fs::{Blocking, Context, Entry, Errno, Error, Name, NodeId, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno as SysErrno;

use crate::PassthroughFs;
use crate::attr::{identity, kind, stat_fd, stat_name};
use crate::budget::Permit;
use crate::inode_table::{Inode, Kind, Pinned};

/// A name has one component, and nothing that it leads to can be outside of its directory. The
/// flags say the same once more to the kernel. Mount points below the root are crossed.
pub(crate) const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

/// A guess of whether the guest knows what a name stands for. Only speed depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    /// It does: one system call tells the attributes and so the identity.
    Known,
    /// It does not: a descriptor of it will be needed.
    Unknown,
}

impl PassthroughFs {
    pub(crate) fn do_lookup(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let dir = self.directory_inode(cx, parent)?;
        let guess = self.names.guess(parent, name);
        match self.find(&dir, name, guess, cx.blocking) {
            Ok((node, stat)) => {
                self.names.remember(parent, name);
                Ok(self.entry(&dir, node, &stat))
            }
            Err(Error::Errno(Errno::ENOENT)) if !self.negative_timeout.is_zero() => {
                Ok(Entry::negative(self.negative_timeout))
            }
            Err(error) => Err(error),
        }
    }

    /// The node that `name` stands for in `dir`, with a lookup counted, and its attributes.
    pub(crate) fn find(
        &self,
        dir: &Pinned,
        name: Name<'_>,
        guess: Guess,
        blocking: Blocking,
    ) -> Result<(NodeId, Statx)> {
        let name = name.as_c_str();
        if guess == Guess::Known {
            let before = self.inodes.now();
            let stat = stat_name(dir, name)?;
            if let Some(node) = self.inodes.claim(&identity(&stat), before) {
                return Ok((node, stat));
            }
        }
        let mut resolve = RESOLVE;
        if blocking == Blocking::Forbidden && self.resolves_cached && !dir.volume.is_in_memory() {
            resolve |= ResolveFlags::CACHED;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve).map_err(|errno| {
                match errno {
                    SysErrno::AGAIN if resolve.contains(ResolveFlags::CACHED) => Error::WouldBlock,
                    errno => errno.into(),
                }
            })?;
        let stat = stat_fd(&fd)?;
        let node = self.adopt(dir, fd, &stat)?;
        Ok((node, stat))
    }

    /// The node of the file that `fd` was opened on with O_PATH, somewhere in `dir`, with a lookup
    /// counted.
    pub(crate) fn adopt(
        &self,
        dir: &Inode,
        fd: std::os::fd::OwnedFd,
        stat: &Statx,
    ) -> Result<NodeId> {
        let identity = identity(stat);
        let volume = if dir.volume.is_on(identity.dev) {
            Arc::clone(&dir.volume)
        } else {
            self.volumes.find(identity.dev, &fd)
        };
        // What the guest knows already needs none. The descriptor holds the inode, so that whoever
        // has its identity now is it.
        let permit = match self.permit() {
            Ok(permit) => permit,
            Err(error) => return self.inodes.claim(&identity, self.inodes.now()).ok_or(error),
        };
        let inode = Inode::new(fd, identity, kind(stat), volume, Some(permit));
        let node = self.inodes.claim_or_insert(inode);
        node.map_err(|_full| Errno::ENFILE.into())
    }

    /// The right to keep a descriptor open for the guest.
    pub(crate) fn permit(&self) -> Result<Permit> {
        self.descriptors.take().ok_or(Errno::ENFILE.into())
    }

    /// What the guest is told of a node that it finds in `dir`.
    pub(crate) fn entry(&self, dir: &Inode, node: NodeId, stat: &Statx) -> Entry {
        let mut attr = self.attr(stat);
        let here = &dir.identity;
        let there = identity(stat);
        let elsewhere = (here.dev, here.mount) != (there.dev, there.mount);
        if elsewhere && kind(stat) == Kind::Directory && self.announces_submounts() {
            attr.flags |= AttrFlags::SUBMOUNT;
        }
        Entry {
            node,
            generation: 0,
            attr,
            attr_valid: self.timeout,
            entry_valid: self.timeout,
        }
    }

    /// The inode of `node`, with a descriptor of it. Where it is on another machine, whatever is
    /// done with it may wait.
    pub(crate) fn inode(&self, cx: &Context<'_>, node: NodeId) -> Result<Pinned> {
        let inode = self.inodes.get(node).ok_or(Errno::ESTALE)?;
        inode.volume.check_reachable(cx)?;
        Ok(inode.pin())
    }

    /// The inode of the directory `node`.
    pub(crate) fn directory_inode(&self, cx: &Context<'_>, node: NodeId) -> Result<Pinned> {
        let inode = self.inode(cx, node)?;
        match inode.kind {
            Kind::Directory => Ok(inode),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }
}
