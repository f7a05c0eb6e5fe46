//! A filesystem in memory.

mod budget;
mod data;
mod directory;
mod file;
mod inode;
mod listing;
mod namespace;
mod state;
mod time;
mod xattr;

use std::sync::{Mutex, MutexGuard, PoisonError};

use fuse_wire::abi::{
    CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, FsyncIn, Kstatfs, LseekIn, MkdirIn, MknodIn,
    OpenIn, ReadIn, ReleaseIn, SetattrIn, StatxIn, WriteIn,
};
use fuse_wire::flags::{AttrFlags, InitFlags, RenameFlags, SetxattrFlags};
use fuse_wire::{
    DirentPlusWriter, DirentWriter, Errno, Handle, Name, NodeId, SymlinkTarget, XattrName,
};
use rustix::fs::{FileType, OFlags};

use self::data::FileData;
use self::inode::Contents;
use self::namespace::{Removing, empty_directory};
use self::state::{State, VALID};
use crate::{
    Attributes, Context, Entry, FileSystem, Negotiation, Opened, PayloadSink, PayloadSource,
    Result, StatxAttributes,
};

/// A filesystem in memory, small and complete: the reference for what
/// [`FileSystem`] asks of an implementation, and a double for tests.
///
/// It does what Linux filesystems do: hard and symbolic links, special files, files that live on
/// while they are open, sparse data, extended attributes, every flag of rename but `WHITEOUT`
/// (EINVAL). Listings of directories go on where they were, whatever happens to the entries. The
/// counts of lookups are exact, and an inode is gone with its last name, lookup and handle.
///
/// Permissions are left to the guest's kernel (`default_permissions`), as are locks and POSIX ACLs
/// (attributes in `system.` are EOPNOTSUPP).
///
/// Contents outlive a session; [`FileSystem::destroy`] takes back lookups and handles only. It has no
/// state that could be saved and restored: a device with it can be paused, and not moved.
#[derive(Debug)]
pub struct MemFs {
    state: Mutex<State>,
}

impl MemFs {
    /// Bytes that [`new`](Self::new) allows: 1 GiB.
    pub const DEFAULT_LIMIT: u64 = 1 << 30;

    /// An empty filesystem that holds up to [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT) bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(Self::DEFAULT_LIMIT)
    }

    /// An empty filesystem that takes up to `limit` bytes of memory, more or less: data, names,
    /// inodes and attributes. What would exceed that is ENOSPC.
    #[must_use]
    pub fn with_limit(limit: u64) -> Self {
        Self {
            state: Mutex::new(State::new(limit)),
        }
    }

    /// Number of inodes, the root and those that live on without a name included.
    #[must_use]
    pub fn inode_count(&self) -> usize {
        self.state().inodes.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each operation checks before it changes anything, and what changes cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemFs {
    fn default() -> Self {
        Self::new()
    }
}

impl FileSystem for MemFs {
    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        negotiation.enable(
            InitFlags::EXPORT_SUPPORT
                | InitFlags::DO_READDIRPLUS
                | InitFlags::READDIRPLUS_AUTO
                | InitFlags::CACHE_SYMLINKS,
        );
        Ok(())
    }

    fn destroy(&self) {
        self.state().forget_all();
    }

    fn lookup(&self, _cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        let mut state = self.state();
        let node = state.find(parent, name.as_bytes())?;
        Ok(state.entry(node)?)
    }

    fn lookup_self(&self, _cx: &Context<'_>, node: NodeId) -> Result<Entry> {
        Ok(self.state().entry(node)?)
    }

    fn lookup_parent(&self, _cx: &Context<'_>, node: NodeId) -> Result<Entry> {
        let mut state = self.state();
        let parent = state.directory(node)?.parent;
        Ok(state.entry(parent)?)
    }

    fn forget(&self, node: NodeId, nlookup: u64) {
        self.state().forget(node, nlookup);
    }

    fn getattr(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        _handle: Option<Handle>,
    ) -> Result<Attributes> {
        let state = self.state();
        Ok(Attributes {
            attr: state.inode(node)?.attr(node),
            valid: VALID,
        })
    }

    fn statx(&self, _cx: &Context<'_>, node: NodeId, _args: &StatxIn) -> Result<StatxAttributes> {
        let state = self.state();
        Ok(StatxAttributes {
            stat: state.inode(node)?.statx(node),
            flags: AttrFlags::empty(),
            valid: VALID,
        })
    }

    fn setattr(&self, _cx: &Context<'_>, node: NodeId, args: &SetattrIn) -> Result<Attributes> {
        let mut state = self.state();
        state.setattr(node, args)?;
        Ok(Attributes {
            attr: state.inode(node)?.attr(node),
            valid: VALID,
        })
    }

    fn readlink(&self, _cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        let state = self.state();
        let Contents::Symlink(target) = &state.inode(node)?.contents else {
            return Err(Errno::EINVAL.into());
        };
        let len = target.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(target) {
            *to = *from;
        }
        Ok(len)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
    ) -> Result<Entry> {
        let contents = Contents::Symlink(target.as_bytes().into());
        self.make(cx, parent, name, contents, 0o777, 0)
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MknodIn,
    ) -> Result<Entry> {
        let contents = match FileType::from_raw_mode(args.mode) {
            FileType::RegularFile => Contents::File(FileData::default()),
            special @ (FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice) => Contents::Special(special),
            _ => return Err(Errno::EINVAL.into()),
        };
        let rdev = match contents {
            Contents::Special(FileType::CharacterDevice | FileType::BlockDevice) => args.rdev,
            _ => 0,
        };
        self.make(cx, parent, name, contents, args.mode, rdev)
    }

    fn mkdir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MkdirIn,
    ) -> Result<Entry> {
        self.make(cx, parent, name, empty_directory(parent), args.mode, 0)
    }

    fn unlink(&self, _cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        Ok(self
            .state()
            .remove(parent, name.as_bytes(), Removing::File)?)
    }

    fn rmdir(&self, _cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        Ok(self
            .state()
            .remove(parent, name.as_bytes(), Removing::Directory)?)
    }

    fn rename(
        &self,
        _cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL.into());
        }
        let from = (parent, name.as_bytes());
        let to = (new_parent, new_name.as_bytes());
        Ok(self.state().rename(from, to, flags)?)
    }

    fn link(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let mut state = self.state();
        state.link(node, parent, name.as_bytes())?;
        Ok(state.entry(node)?)
    }

    fn open(&self, _cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        Ok(self.state().open_file(node, args.flags)?)
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let mut state = self.state();
        let name = name.as_bytes();
        let (node, is_new) = match state.find(parent, name) {
            Ok(_) if OFlags::from_bits_retain(args.flags).contains(OFlags::EXCL) => {
                return Err(Errno::EEXIST.into());
            }
            Ok(node) => (node, false),
            Err(Errno::ENOENT) => {
                let contents = Contents::File(FileData::default());
                let node = state.make(cx, parent, name, contents, args.mode, 0)?;
                (node, true)
            }
            Err(error) => return Err(error.into()),
        };
        match state.open_file(node, args.flags) {
            Ok(opened) => Ok((state.entry(node)?, opened)),
            Err(error) => {
                if is_new {
                    state.remove(parent, name, Removing::File)?;
                }
                Err(error.into())
            }
        }
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let mut state = self.state();
        state.check_alive(parent)?;
        let contents = Contents::File(FileData::default());
        let mut inode = state.new_inode(cx, parent, contents, args.mode)?;
        inode.linkable = !OFlags::from_bits_retain(args.flags).contains(OFlags::EXCL);
        let node = state.adopt(inode)?;
        let entry = state.entry(node)?;
        match state.open_file(node, args.flags) {
            Ok(opened) => Ok((entry, opened)),
            Err(error) => {
                state.forget(node, 1);
                Err(error.into())
            }
        }
    }

    fn read(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        Ok(self.state().read(node, args, sink)?)
    }

    fn write(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize> {
        Ok(self.state().write(node, args, source)?)
    }

    fn flush(&self, _cx: &Context<'_>, node: NodeId, args: &FlushIn) -> Result<()> {
        self.state().access_of(node, args.fh)?;
        Ok(())
    }

    fn release(&self, _cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        Ok(self.state().close(node, args.fh)?)
    }

    fn fsync(&self, _cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        self.state().access_of(node, args.fh)?;
        Ok(())
    }

    fn opendir(&self, _cx: &Context<'_>, node: NodeId, _args: &OpenIn) -> Result<Opened> {
        Ok(self.state().open_directory(node)?)
    }

    fn readdir(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()> {
        Ok(self.state().list(node, args.fh, args.offset, entries)?)
    }

    fn readdirplus(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        Ok(self
            .state()
            .list_plus(node, args.fh, args.offset, entries)?)
    }

    fn releasedir(&self, cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        self.release(cx, node, args)
    }

    fn fsyncdir(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        self.fsync(cx, node, args)
    }

    fn statfs(&self, _cx: &Context<'_>, _node: NodeId) -> Result<Kstatfs> {
        Ok(self.state().statfs())
    }

    fn syncfs(&self, _cx: &Context<'_>, _node: NodeId) -> Result<()> {
        Ok(())
    }

    fn setxattr(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        _how: SetxattrFlags,
    ) -> Result<()> {
        let mut state = self.state();
        let (inode, budget) = state.inode_and_budget(node)?;
        inode.xattrs.set(name.as_bytes(), value, flags, budget)?;
        inode.changed();
        Ok(())
    }

    fn getxattr(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let state = self.state();
        Ok(state.inode(node)?.xattrs.read(name.as_bytes(), buffer)?)
    }

    fn listxattr(&self, _cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.state().inode(node)?.xattrs.list(buffer)?)
    }

    fn removexattr(&self, _cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        let mut state = self.state();
        let (inode, budget) = state.inode_and_budget(node)?;
        inode.xattrs.remove(name.as_bytes(), budget)?;
        inode.changed();
        Ok(())
    }

    fn lseek(&self, _cx: &Context<'_>, node: NodeId, args: &LseekIn) -> Result<u64> {
        Ok(self.state().seek(node, args)?)
    }

    fn fallocate(&self, _cx: &Context<'_>, node: NodeId, args: &FallocateIn) -> Result<()> {
        Ok(self.state().fallocate(node, args)?)
    }

    fn copy_file_range(
        &self,
        _cx: &Context<'_>,
        node: NodeId,
        args: &CopyFileRangeIn,
    ) -> Result<u64> {
        Ok(self.state().copy(node, args)?)
    }
}

impl MemFs {
    fn make(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        contents: Contents,
        permissions: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let mut state = self.state();
        let node = state.make(cx, parent, name.as_bytes(), contents, permissions, rdev)?;
        Ok(state.entry(node)?)
    }
}
