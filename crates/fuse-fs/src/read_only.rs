use std::os::fd::BorrowedFd;

use fuse_wire::abi::{
    AccessIn, CopyFileRangeIn, CreateIn, FallocateIn, FileLock, FlushIn, FsyncIn, IoctlIn,
    IoctlOut, Kstatfs, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, PollIn, ReadIn, ReleaseIn,
    SetattrIn, SetupmappingIn, StatxIn, WriteIn,
};
use fuse_wire::flags::{RenameFlags, SetxattrFlags};
use fuse_wire::{
    DirentPlusWriter, DirentWriter, Errno, Handle, Name, NodeId, Operation, SymlinkTarget,
    XattrName,
};

use crate::policy::changes_something;
use crate::{
    Attributes, Context, Entry, FileSystem, Negotiation, Opened, PayloadSink, PayloadSource,
    Result, State, StatxAttributes,
};

/// A filesystem that nobody can change by way of this: every operation that could is EROFS and does
/// not reach it.
///
/// What a session with [`Access::ReadOnly`](crate::Access::ReadOnly) refuses, this does, by the
/// same rules; it also works where a filesystem is used without a session, or is one of several
/// ([`Exports`](crate::Exports)).
///
/// ```
/// use fuse_fs::{MemFs, ReadOnly, Session};
///
/// let session = Session::new(ReadOnly::new(MemFs::new()));
/// ```
#[derive(Debug, Default)]
pub struct ReadOnly<F> {
    inner: F,
}

impl<F> ReadOnly<F> {
    /// Shows `inner` as it is.
    #[must_use]
    pub const fn new(inner: F) -> Self {
        Self { inner }
    }

    /// The filesystem, which can be changed.
    #[must_use]
    pub const fn inner(&self) -> &F {
        &self.inner
    }

    /// The filesystem, for its owner to change.
    pub const fn inner_mut(&mut self) -> &mut F {
        &mut self.inner
    }
}

/// Refuses an operation that could change something.
fn check(operation: &Operation<'_>) -> Result<()> {
    match changes_something(operation) {
        true => Err(Errno::EROFS.into()),
        false => Ok(()),
    }
}

/// Methods that read, and reach the filesystem.
macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        fn $name(
            &self,
            cx: &Context<'_>,
            node: NodeId,
            $($argument: $type),*
        ) -> Result<$result> {
            self.inner.$name(cx, node, $($argument),*)
        }
    )*};
}

/// Methods that change something.
macro_rules! refuse {
    ($($name:ident($($type:ty),*) -> $result:ty;)*) => {$(
        fn $name(&self, _: &Context<'_>, _: NodeId, $(_: $type),*) -> Result<$result> {
            Err(Errno::EROFS.into())
        }
    )*};
}

impl<F: FileSystem> FileSystem for ReadOnly<F> {
    forward! {
        lookup(name: Name<'_>) -> Entry;
        lookup_self() -> Entry;
        lookup_parent() -> Entry;
        getattr(handle: Option<Handle>) -> Attributes;
        statx(args: &StatxIn) -> StatxAttributes;
        readlink(buffer: &mut [u8]) -> usize;
        read(args: &ReadIn, sink: &mut dyn PayloadSink) -> usize;
        flush(args: &FlushIn) -> ();
        release(args: &ReleaseIn) -> ();
        fsync(args: &FsyncIn) -> ();
        readdir(args: &ReadIn, entries: &mut DirentWriter<'_>) -> ();
        readdirplus(args: &ReadIn, entries: &mut DirentPlusWriter<'_>) -> ();
        releasedir(args: &ReleaseIn) -> ();
        fsyncdir(args: &FsyncIn) -> ();
        statfs() -> Kstatfs;
        syncfs() -> ();
        getxattr(name: XattrName<'_>, buffer: &mut [u8]) -> usize;
        listxattr(buffer: &mut [u8]) -> usize;
        lseek(args: &LseekIn) -> u64;
        getlk(args: &LkIn) -> FileLock;
        setlk(args: &LkIn, wait: bool) -> ();
        poll(args: &PollIn) -> u32;
        bmap(block: u64, blocksize: u32) -> u64;
    }

    refuse! {
        setattr(&SetattrIn) -> Attributes;
        symlink(Name<'_>, SymlinkTarget<'_>) -> Entry;
        mknod(Name<'_>, &MknodIn) -> Entry;
        mkdir(Name<'_>, &MkdirIn) -> Entry;
        unlink(Name<'_>) -> ();
        rmdir(Name<'_>) -> ();
        rename(Name<'_>, NodeId, Name<'_>, RenameFlags) -> ();
        link(NodeId, Name<'_>) -> Entry;
        create(Name<'_>, &CreateIn) -> (Entry, Opened);
        tmpfile(&CreateIn) -> (Entry, Opened);
        write(&WriteIn, &mut dyn PayloadSource) -> usize;
        setxattr(XattrName<'_>, &[u8], u32, SetxattrFlags) -> ();
        removexattr(XattrName<'_>) -> ();
        fallocate(&FallocateIn) -> ();
        copy_file_range(&CopyFileRangeIn) -> u64;
    }

    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        self.inner.init(negotiation)
    }

    fn destroy(&self) {
        self.inner.destroy();
    }

    fn forget(&self, node: NodeId, nlookup: u64) {
        self.inner.forget(node, nlookup);
    }

    fn open(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        check(&Operation::Open(*args))?;
        self.inner.open(cx, node, args)
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        check(&Operation::OpenDir(*args))?;
        self.inner.opendir(cx, node, args)
    }

    fn access(&self, cx: &Context<'_>, node: NodeId, args: &AccessIn) -> Result<()> {
        check(&Operation::Access(*args))?;
        self.inner.access(cx, node, args)
    }

    fn ioctl(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &IoctlIn,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<(IoctlOut, usize)> {
        check(&Operation::Ioctl { args: *args, data })?;
        self.inner.ioctl(cx, node, args, data, buffer)
    }

    fn setup_mapping(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &SetupmappingIn,
        map: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        check(&Operation::SetupMapping(*args))?;
        self.inner.setup_mapping(cx, node, args, map)
    }

    fn interrupt(&self, unique: u64) {
        self.inner.interrupt(unique);
    }

    fn cancel_waits(&self) {
        self.inner.cancel_waits();
    }

    fn state(&self) -> Option<&dyn State> {
        self.inner.state()
    }
}
