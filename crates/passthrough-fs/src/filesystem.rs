//! [`FileSystem`], each method of which leads to the file about it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use fuse_fs::abi::{
    AccessIn, CopyFileRangeIn, CreateIn, FallocateIn, FileLock, FlushIn, FsyncIn, IoctlIn,
    IoctlOut, Kstatfs, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, SetattrIn,
    SetupmappingIn, StatxIn, WriteIn,
};
use fuse_fs::flags::{InitFlags, RenameFlags, SetxattrFlags};
use fuse_fs::{
    Attributes, Context, DirentPlusWriter, DirentWriter, Entry, FileSystem, Handle, Name,
    Negotiation, NodeId, Opened, PayloadSink, PayloadSource, Result, State, StatxAttributes,
    SymlinkTarget, XattrName,
};

use crate::{Killpriv, PassthroughFs, Xattr};

impl FileSystem for PassthroughFs {
    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        // Not ATOMIC_O_TRUNC: with that, O_TRUNC comes before the guest's kernel has seen that it
        // may not truncate, and a program that runs would lose its text to an open that fails.
        negotiation.enable(InitFlags::HAS_IOCTL_DIR);
        let maps = negotiation.enable(InitFlags::MAP_ALIGNMENT);
        self.negotiate_extras(negotiation);
        negotiation.enable(InitFlags::CREATE_SUPP_GROUP);
        let submounts = self.announce_submounts && negotiation.enable(InitFlags::SUBMOUNTS);
        // Without it the guest clears SUID and SGID by itself, for which it reads an attribute
        // before each write, if it can. Where it cannot, it is the cheaper way. With it, it also leaves
        // those of files alone that it writes in the DAX window, which nobody here sees.
        let kills_privileges = (self.xattr == Xattr::On || self.killpriv == Killpriv::Always)
            && !maps
            && negotiation.enable(InitFlags::HANDLE_KILLPRIV_V2);
        // With ACLs, the umask is for the host, as a directory's ACL takes its place.
        let acls = InitFlags::POSIX_ACL | InitFlags::DONT_MASK;
        let heeds_acls = self.posix_acl.negotiate(negotiation, acls, "POSIX ACLs")?;
        let labels = InitFlags::SECURITY_CTX;
        self.security_labels
            .negotiate(negotiation, labels, "security labels")?;
        self.heeds_acls.store(heeds_acls, Ordering::Relaxed);
        self.submounts.store(submounts, Ordering::Relaxed);
        self.kills_privileges
            .store(kills_privileges, Ordering::Relaxed);
        Ok(())
    }

    fn destroy(&self) {
        self.forget_all();
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.do_lookup(cx, parent, name)
    }

    fn forget(&self, node: NodeId, nlookup: u64) {
        self.inodes.forget(node, nlookup);
    }

    /// While there is a handle, the node has a descriptor, so that the handle is of no use here.
    fn getattr(&self, cx: &Context<'_>, node: NodeId, _: Option<Handle>) -> Result<Attributes> {
        self.do_getattr(cx, node)
    }

    fn statx(&self, cx: &Context<'_>, node: NodeId, _: &StatxIn) -> Result<StatxAttributes> {
        self.do_statx(cx, node)
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, args: &SetattrIn) -> Result<Attributes> {
        self.do_setattr(cx, node, args)
    }

    fn readlink(&self, cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        self.do_readlink(cx, node, buffer)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
    ) -> Result<Entry> {
        self.do_symlink(cx, parent, name, target)
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MknodIn,
    ) -> Result<Entry> {
        self.do_mknod(cx, parent, name, args)
    }

    fn mkdir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MkdirIn,
    ) -> Result<Entry> {
        self.do_mkdir(cx, parent, name, args)
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.do_unlink(cx, parent, name)
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.do_rmdir(cx, parent, name)
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
        self.do_rename(cx, (parent, name), (new_parent, new_name), flags)
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        self.do_link(cx, node, parent, name)
    }

    fn open(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        self.do_open(cx, node, args)
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        self.do_create(cx, parent, name, args)
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        self.do_tmpfile(cx, parent, args)
    }

    fn read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        self.do_read(cx, node, args, sink)
    }

    fn write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize> {
        self.do_write(cx, node, args, source)
    }

    fn flush(&self, cx: &Context<'_>, node: NodeId, args: &FlushIn) -> Result<()> {
        self.do_flush(cx, node, args)
    }

    fn release(&self, cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        self.do_release(cx, node, args)
    }

    fn fsync(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        self.do_fsync(cx, node, args)
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, _: &OpenIn) -> Result<Opened> {
        self.do_opendir(cx, node)
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()> {
        self.do_readdir(cx, node, args, entries)
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        self.do_readdirplus(cx, node, args, entries)
    }

    fn releasedir(&self, _: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        self.do_releasedir(node, args)
    }

    fn fsyncdir(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        self.do_fsyncdir(cx, node, args)
    }

    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<Kstatfs> {
        self.do_statfs(cx, node)
    }

    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        self.do_syncfs(cx, node)
    }

    fn access(&self, cx: &Context<'_>, node: NodeId, args: &AccessIn) -> Result<()> {
        self.do_access(cx, node, args)
    }

    fn setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        how: SetxattrFlags,
    ) -> Result<()> {
        self.do_setxattr(cx, node, name, value, flags, how)
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        self.do_getxattr(cx, node, name, buffer)
    }

    fn listxattr(&self, cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        self.do_listxattr(cx, node, buffer)
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.do_removexattr(cx, node, name)
    }

    fn lseek(&self, _: &Context<'_>, node: NodeId, args: &LseekIn) -> Result<u64> {
        self.do_lseek(node, args)
    }

    fn fallocate(&self, cx: &Context<'_>, node: NodeId, args: &FallocateIn) -> Result<()> {
        self.do_fallocate(cx, node, args)
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &CopyFileRangeIn,
    ) -> Result<u64> {
        self.do_copy_file_range(cx, node, args)
    }

    fn getlk(&self, cx: &Context<'_>, node: NodeId, args: &LkIn) -> Result<FileLock> {
        self.do_getlk(cx, node, args)
    }

    fn setlk(&self, cx: &Context<'_>, node: NodeId, args: &LkIn, wait: bool) -> Result<()> {
        self.do_setlk(cx, node, args, wait)
    }

    fn setup_mapping(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &SetupmappingIn,
        map: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        self.do_setup_mapping(cx, node, args, map)
    }

    fn interrupt(&self, unique: u64) {
        self.locks.waits.interrupt(unique);
    }

    fn cancel_waits(&self) {
        self.locks.waits.cancel();
    }

    fn ioctl(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &IoctlIn,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<(IoctlOut, usize)> {
        self.do_ioctl(cx, node, args, data, buffer)
    }

    fn state(&self) -> Option<&dyn State> {
        Some(self)
    }
}

impl PassthroughFs {
    /// Gives back all that the guest holds.
    pub(crate) fn forget_all(&self) {
        self.handles.clear();
        self.locks.clear();
        self.inodes.clear();
    }
}
