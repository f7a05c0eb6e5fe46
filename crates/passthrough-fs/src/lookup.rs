use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fuse_fs::flags::AttrFlags;
use fuse_fs::{Blocking, Context, Entry, Errno, Error, Name, NodeId, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno as SysErrno;

use crate::PassthroughFs;
use crate::attr::{identity, kind, stat_fd, stat_name};
use crate::budget::Permit;
use crate::inode_table::{Inode, Kind, Known, Refused};
use crate::pin::{Descriptor, Pin, Pinned, Room};

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
            if let Some(known) = self.inodes.find_older(&identity(&stat), before)
                && known.inode.still_is(dir, name)
                && self.inodes.claim(known.node, &known.inode)
            {
                self.moves.seen(&known.inode, &dir.inode, name);
                return Ok((known.node, stat));
            }
        }
        let fd = self.open_path(dir, name, blocking)?;
        let stat = stat_fd(&fd)?;
        let (node, _) = self.adopt(dir, Some(name), fd, &stat)?;
        Ok((node, stat))
    }

    /// Opens what `name` stands for in `dir` with O_PATH.
    pub(crate) fn open_path(
        &self,
        dir: &Pinned,
        name: &CStr,
        blocking: Blocking,
    ) -> Result<OwnedFd> {
        let mut resolve = RESOLVE;
        if blocking == Blocking::Forbidden && self.resolves_cached && !dir.volume.is_in_memory() {
            resolve |= ResolveFlags::CACHED;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve);
        self.with_descriptor(open).map_err(|errno| match errno {
            SysErrno::AGAIN if resolve.contains(ResolveFlags::CACHED) => Error::WouldBlock,
            errno => errno.into(),
        })
    }

    /// Makes a system call that opens a descriptor. Where the process has too many of them, inodes
    /// give up theirs.
    pub(crate) fn with_descriptor<T>(
        &self,
        call: impl Fn() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        loop {
            match call() {
                Err(SysErrno::MFILE) if self.open_inodes.evict().is_some() => {}
                result => return result,
            }
        }
    }

    /// The node of the file that `fd` was opened on with O_PATH, somewhere in `dir`, as `name` if it
    /// has one, with a lookup counted. The descriptor that comes with it may be there only for as
    /// long as it is used: to ask for the inode once more may wait.
    pub(crate) fn adopt(
        &self,
        dir: &Pinned,
        name: Option<&CStr>,
        fd: OwnedFd,
        stat: &Statx,
    ) -> Result<(NodeId, Pinned)> {
        if let Some(known) = self.claim_same(&fd, stat)? {
            self.see(&known.inode, dir, name);
            return Ok((known.node, self.keep(known.inode, fd)));
        }
        let new = self.new_inode(dir, name, fd, stat)?;
        loop {
            match self.inodes.insert(&new.inode) {
                Ok(node) => {
                    self.open_inodes.enqueue(&new.inode);
                    return Ok((node, new));
                }
                Err(Refused::Full) => return Err(Errno::ENFILE.into()),
                Err(Refused::Known) => {}
            }
            // Another thread was faster, or the one that is known is on its way out.
            if let Some(known) = self.claim_same(&new, stat)? {
                self.see(&known.inode, dir, name);
                let Pinned { descriptor, .. } = new;
                let inode = known.inode;
                return Ok((known.node, Pinned { inode, descriptor }));
            }
        }
    }

    /// Counts a lookup of the node whose inode is the one that `fd` was opened on, if there is one.
    fn claim_same(&self, fd: impl AsFd, stat: &Statx) -> Result<Option<Known>> {
        let Some(known) = self.inodes.find(&identity(stat)) else {
            return Ok(None);
        };
        if !known.inode.is_same(fd, stat)? {
            // Its number is another's now.
            known.inode.pin.lose();
            return Ok(None);
        }
        let claimed = self.inodes.claim(known.node, &known.inode);
        Ok(claimed.then_some(known))
    }

    fn see(&self, inode: &Arc<Inode>, dir: &Pinned, name: Option<&CStr>) {
        if let Some(name) = name {
            self.moves.seen(inode, &dir.inode, name);
        }
    }

    /// An inode that is to be added to the table. Where there is no room for its descriptor, it is
    /// opened again when it is used. If it cannot be, its descriptor stays as one of a handle does,
    /// or that is ENFILE.
    fn new_inode(
        &self,
        dir: &Pinned,
        name: Option<&CStr>,
        fd: OwnedFd,
        stat: &Statx,
    ) -> Result<Pinned> {
        let arrival = self.inodes.arrival().ok_or(Errno::ENFILE)?;
        let volume = if dir.volume.has(&identity(stat)) {
            Arc::clone(&dir.volume)
        } else {
            self.volumes.find(&fd, stat, &self.proc)
        };
        let inode = Arc::new(Inode::new(Some(arrival), stat, volume, Pin::cold()));
        if let Some(name) = name
            && inode.volume.reopening.needs_places()
        {
            inode.places.add(&dir.inode, name);
        }
        self.hold_open(inode, fd)
    }

    /// Has `fd` as the descriptor of an inode that is new, where there is room for it.
    pub(crate) fn hold_open(&self, inode: Arc<Inode>, fd: OwnedFd) -> Result<Pinned> {
        let mut room = self.open_inodes.room();
        if room.is_none() && !inode.can_be_reopened(&fd) {
            room = Some(Room::new(None, self.permit()?));
        }
        let descriptor = inode.pin.install(Descriptor::new(fd, room));
        Ok(Pinned { inode, descriptor })
    }

    /// The right to keep a descriptor open for a handle.
    pub(crate) fn permit(&self) -> Result<Permit> {
        self.open_inodes.permit().ok_or(Errno::ENFILE.into())
    }

    /// Makes sure that there would be room for an inode that is made in `dir`.
    pub(crate) fn check_room(&self, dir: &Inode) -> Result<()> {
        if dir.volume.reopening.is_possible() {
            return Ok(());
        }
        self.permit().map(drop)
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
        self.pin(cx.blocking, inode)
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
