//! The operations: each finds out whose it is, translates what goes in and what comes out.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use fuse_wire::abi::{
    AccessIn, CopyFileRangeIn, CreateIn, EntryOut, FallocateIn, FileLock, FlushIn, FsyncIn,
    IoctlIn, IoctlOut, Kstatfs, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, PollIn, ReadIn, ReleaseIn,
    SetattrIn, SetupmappingIn, StatxIn, WriteIn,
};
use fuse_wire::flags::{
    AttrFlags, GetattrFlags, InitFlags, RenameFlags, SetattrValid, SetxattrFlags,
};
use fuse_wire::{
    DirentPlusWriter, DirentWriter, Errno, Handle, Name, NodeId, SymlinkTarget, XattrName,
};

use super::forward::{WithHandle, creating, of_node, of_open_file, of_open_file_if_any};
use super::nodes::{Full, Inner};
use super::root::{DOTS, DT_DIR};
use super::{Exports, ROOT, agree, or_nothing, statx, unless_missing};
use crate::{
    Attributes, Context, Entry, Error, FileSystem, Negotiation, Opened, PayloadSink, PayloadSource,
    Result, State, StatxAttributes,
};

/// What a file is ready for where nobody knows better (`DEFAULT_POLLMASK`): POLLIN, POLLOUT,
/// POLLRDNORM, POLLWRNORM.
const ALWAYS_READY: u32 = 0x001 | 0x004 | 0x040 | 0x100;

impl FileSystem for Exports {
    of_node! {
        readlink(buffer: &mut [u8]) -> usize, or EINVAL;
        unlink(name: Name<'_>) -> (), or EOPNOTSUPP;
        rmdir(name: Name<'_>) -> (), or EOPNOTSUPP;
        statfs() -> Kstatfs, or EOPNOTSUPP;
        setxattr(name: XattrName<'_>, value: &[u8], flags: u32, how: SetxattrFlags) -> (), or EOPNOTSUPP;
        getxattr(name: XattrName<'_>, buffer: &mut [u8]) -> usize, or EOPNOTSUPP;
        listxattr(buffer: &mut [u8]) -> usize, or EOPNOTSUPP;
        removexattr(name: XattrName<'_>) -> (), or EOPNOTSUPP;
        bmap(block: u64, blocksize: u32) -> u64, or EINVAL;
    }

    of_open_file! {
        read(ReadIn, sink: &mut dyn PayloadSink) -> usize, or EOPNOTSUPP;
        write(WriteIn, source: &mut dyn PayloadSource) -> usize, or EOPNOTSUPP;
        readdir(ReadIn, entries: &mut DirentWriter<'_>) -> (), or EOPNOTSUPP;
        lseek(LseekIn) -> u64, or EINVAL;
        fallocate(FallocateIn) -> (), or EOPNOTSUPP;
        getlk(LkIn) -> FileLock, or EOPNOTSUPP;
        setlk(LkIn, wait: bool) -> (), or EOPNOTSUPP;
        ioctl(IoctlIn, data: &[u8], buffer: &mut [u8]) -> (IoctlOut, usize), or ENOTTY;
    }

    of_open_file_if_any! {
        flush(FlushIn);
        fsync(FsyncIn);
        fsyncdir(FsyncIn);
    }

    creating! {
        symlink(name: Name<'_>, target: SymlinkTarget<'_>);
        mknod(name: Name<'_>, args: &MknodIn);
        mkdir(name: Name<'_>, args: &MkdirIn);
    }

    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        agree::agree(&self.members(), negotiation)?;
        let submounts = negotiation.enabled.contains(InitFlags::SUBMOUNTS);
        self.submounts.store(submounts, Ordering::Relaxed);
        Ok(())
    }

    fn destroy(&self) {
        self.handles.clear();
        self.nodes.clear();
        agree::destroy(&self.members());
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        let inner = self.inner(parent)?;
        if inner == ROOT {
            return self.export(cx, name.as_bytes());
        }
        let found = self.filesystem(inner).lookup(cx, inner.node, name);
        self.told(inner.member, unless_missing(found, Errno::EOPNOTSUPP)?)
    }

    fn forget(&self, node: NodeId, nlookup: u64) {
        if let Some((inner, nlookup)) = self.nodes.forget(node, nlookup) {
            self.filesystem(inner).forget(inner.node, nlookup);
        }
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Option<Handle>,
    ) -> Result<Attributes> {
        let inner = self.inner(node)?;
        let handle = handle.map(|handle| self.handle_of(inner, handle));
        let fs = self.filesystem(inner);
        let mut told = unless_missing(
            fs.getattr(cx, inner.node, handle.transpose()?),
            Errno::EOPNOTSUPP,
        )?;
        told.attr.flags |= self.mark_of(inner);
        Ok(told)
    }

    fn statx(&self, cx: &Context<'_>, node: NodeId, args: &StatxIn) -> Result<StatxAttributes> {
        let inner = self.inner(node)?;
        let mut args = *args;
        let has_handle = args.getattr_flags.contains(GetattrFlags::FH);
        if has_handle {
            args.fh = self.handle_of(inner, args.fh)?;
        }
        let fs = self.filesystem(inner);
        let mut told = match fs.statx(cx, inner.node, &args) {
            Err(Error::Errno(Errno::ENOSYS)) => {
                let handle = has_handle.then_some(args.fh);
                let attributes = fs.getattr(cx, inner.node, handle);
                statx::from_attributes(&unless_missing(attributes, Errno::EOPNOTSUPP)?)
            }
            told => told?,
        };
        told.flags |= self.mark_of(inner);
        Ok(told)
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, args: &SetattrIn) -> Result<Attributes> {
        let inner = self.inner(node)?;
        let mut args = *args;
        if args.valid.contains(SetattrValid::FH) {
            args.fh = self.handle_of(inner, args.fh)?;
        }
        let set = self.filesystem(inner).setattr(cx, inner.node, &args);
        let mut told = unless_missing(set, Errno::EOPNOTSUPP)?;
        told.attr.flags |= self.mark_of(inner);
        Ok(told)
    }

    fn rename(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = (self.inner(parent)?, self.inner(new_parent)?);
        check_same(from, to)?;
        let fs = self.filesystem(from);
        let renamed = fs.rename(cx, from.node, name, to.node, new_name, flags);
        // What it does not implement at all, and what it does not implement with these flags.
        let missing = if flags.is_empty() {
            Errno::EOPNOTSUPP
        } else {
            Errno::EINVAL
        };
        unless_missing(renamed, missing)
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let (file, parent) = (self.inner(node)?, self.inner(parent)?);
        check_same(file, parent)?;
        self.check_nodes()?;
        let fs = self.filesystem(file);
        let linked = fs.link(cx, file.node, parent.node, name);
        self.told(file.member, unless_missing(linked, Errno::EOPNOTSUPP)?)
    }

    fn open(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        let inner = self.inner(node)?;
        self.check_handles()?;
        let opened = self.filesystem(inner).open(cx, inner.node, args);
        Ok(self.told_opened(inner, unless_missing(opened, Errno::EOPNOTSUPP)?))
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        let inner = self.inner(node)?;
        self.check_handles()?;
        let opened = self.filesystem(inner).opendir(cx, inner.node, args);
        Ok(self.told_opened(inner, unless_missing(opened, Errno::EOPNOTSUPP)?))
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let parent = self.inner(parent)?;
        self.check_nodes()?;
        self.check_handles()?;
        let created = self.filesystem(parent).create(cx, parent.node, name, args);
        self.told_created(
            cx,
            parent.member,
            unless_missing(created, Errno::EOPNOTSUPP)?,
        )
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let parent = self.inner(parent)?;
        self.check_nodes()?;
        self.check_handles()?;
        let created = self.filesystem(parent).tmpfile(cx, parent.node, args);
        self.told_created(
            cx,
            parent.member,
            unless_missing(created, Errno::EOPNOTSUPP)?,
        )
    }

    fn release(&self, cx: &Context<'_>, _: NodeId, args: &ReleaseIn) -> Result<()> {
        self.close(args, |fs, node, args| fs.release(cx, node, args))
    }

    fn releasedir(&self, cx: &Context<'_>, _: NodeId, args: &ReleaseIn) -> Result<()> {
        self.close(args, |fs, node, args| fs.releasedir(cx, node, args))
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        let inner = self.inner(node)?;
        let fh = self.handle_of(inner, args.fh)?;
        if inner == ROOT {
            return self.list_exports(cx, args, entries);
        }
        let fs = self.filesystem(inner);
        unless_missing(
            fs.readdirplus(cx, inner.node, &args.clone_with_handle(fh), entries),
            Errno::EOPNOTSUPP,
        )?;
        entries.for_each(|entry| self.tell_listed(inner.member, entry));
        Ok(())
    }

    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        let inner = self.inner(node)?;
        if inner != ROOT {
            return or_nothing(self.filesystem(inner).syncfs(cx, inner.node));
        }
        // All, also where one fails.
        let synced = self
            .members
            .iter()
            .map(|fs| or_nothing(fs.syncfs(cx, NodeId::ROOT)));
        synced.fold(Ok(()), Result::and)
    }

    fn access(&self, cx: &Context<'_>, node: NodeId, args: &AccessIn) -> Result<()> {
        let (fs, node) = self.target(node)?;
        or_nothing(fs.access(cx, node, args))
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &CopyFileRangeIn,
    ) -> Result<u64> {
        let (from, to) = (self.inner(node)?, self.inner(args.nodeid_out)?);
        check_same(from, to)?;
        let args = CopyFileRangeIn {
            fh_in: self.handle_of(from, args.fh_in)?,
            fh_out: self.handle_of(to, args.fh_out)?,
            nodeid_out: to.node,
            ..*args
        };
        let copied = self.filesystem(from).copy_file_range(cx, from.node, &args);
        unless_missing(copied, Errno::EOPNOTSUPP)
    }

    fn poll(&self, cx: &Context<'_>, node: NodeId, args: &PollIn) -> Result<u32> {
        let (fs, node, fh) = self.open_target(node, args.fh)?;
        match fs.poll(cx, node, &args.clone_with_handle(fh)) {
            Err(Error::Errno(Errno::ENOSYS)) => Ok(args.events & ALWAYS_READY),
            other => other,
        }
    }

    fn setup_mapping(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &SetupmappingIn,
        map: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let (fs, node, fh) = match args.fh {
            Handle::NONE => {
                let (fs, node) = self.target(node)?;
                (fs, node, Handle::NONE)
            }
            fh => self.open_target(node, fh)?,
        };
        let args = args.clone_with_handle(fh);
        unless_missing(fs.setup_mapping(cx, node, &args, map), Errno::EOPNOTSUPP)
    }

    fn interrupt(&self, unique: u64) {
        // Which of them has it, nobody knows.
        for member in &self.members {
            member.interrupt(unique);
        }
    }

    fn cancel_waits(&self) {
        for member in &self.members {
            member.cancel_waits();
        }
    }

    fn state(&self) -> Option<&dyn State> {
        let all = self.members.iter().all(|member| member.state().is_some());
        all.then_some(self)
    }
}

/// What crosses from one filesystem to another is refused.
fn check_same(one: Inner, other: Inner) -> Result<()> {
    match one.member == other.member {
        true => Ok(()),
        false => Err(Errno::EXDEV.into()),
    }
}

impl Exports {
    /// What marks the roots of exports as mounts.
    fn mark_of(&self, inner: Inner) -> AttrFlags {
        let is_export = inner.node == NodeId::ROOT && inner != ROOT;
        match is_export && self.submounts.load(Ordering::Relaxed) {
            true => AttrFlags::SUBMOUNT,
            false => AttrFlags::empty(),
        }
    }

    /// What `member` created and opened, as the guest is told it.
    fn told_created(
        &self,
        cx: &Context<'_>,
        member: usize,
        (entry, opened): (Entry, Opened),
    ) -> Result<(Entry, Opened)> {
        let node = entry.node;
        let inner = Inner { member, node };
        match self.told(member, entry) {
            Ok(entry) => Ok((entry, self.told_opened(inner, opened))),
            Err(error) => {
                let args = ReleaseIn {
                    fh: opened.handle,
                    ..Default::default()
                };
                if let Err(error) = self.filesystem(inner).release(cx, node, &args) {
                    tracing::debug!("a file that was just created cannot be closed: {error}");
                }
                Err(error)
            }
        }
    }

    /// Closes the open file `args.fh`, even where the guest has forgotten its inode.
    fn close(
        &self,
        args: &ReleaseIn,
        call: impl FnOnce(&dyn FileSystem, NodeId, &ReleaseIn) -> Result<()>,
    ) -> Result<()> {
        // Before it is closed: what it is called there may then mean another file.
        let open = self.handles.remove(args.fh).ok_or(Errno::EBADF)?;
        let inner = open.inner;
        let inner_args = args.clone_with_handle(open.handle);
        let closed = call(self.filesystem(inner), inner.node, &inner_args);
        if closed == Err(Error::WouldBlock) {
            self.handles.put_back(args.fh, open);
        }
        or_nothing(closed)
    }

    /// READDIRPLUS of the root.
    fn list_exports(
        &self,
        cx: &Context<'_>,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        for (cookie, name) in self.root.inner().listing(args.offset) {
            // What cannot tell its attributes is listed nevertheless.
            let entry = match DOTS.contains(&name) {
                true => EntryOut::default(),
                false => self
                    .export(cx, name)
                    .map_or_else(|_| EntryOut::default(), EntryOut::from),
            };
            if !entries.push(entry, NodeId::ROOT.0, cookie, DT_DIR, name) {
                return match entries.is_empty() {
                    true => Err(Errno::EINVAL.into()),
                    false => Ok(()),
                };
            }
        }
        Ok(())
    }

    /// Translates an entry that `member` listed. The guest learns no more than the name of what there
    /// is no room for.
    fn tell_listed(&self, member: usize, entry: &mut EntryOut) {
        let node = entry.nodeid;
        if node == NodeId::NEGATIVE {
            return;
        }
        let inner = Inner { member, node };
        match self.nodes.count(inner) {
            Ok(id) => entry.nodeid = id,
            Err(Full) => {
                self.filesystem(inner).forget(node, 1);
                *entry = EntryOut::default();
            }
        }
    }
}
