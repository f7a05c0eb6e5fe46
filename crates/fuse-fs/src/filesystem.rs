use std::os::fd::BorrowedFd;

use fuse_wire::abi::{
    AccessIn, CopyFileRangeIn, CreateIn, FallocateIn, FileLock, FlushIn, FsyncIn, IoctlIn,
    IoctlOut, Kstatfs, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, PollIn, ReadIn, ReleaseIn,
    SetattrIn, SetupmappingIn, StatxIn, WriteIn,
};
use fuse_wire::flags::{RenameFlags, SetxattrFlags};
use fuse_wire::{DirentWriter, Errno, Handle, Name, NodeId, SymlinkTarget, XattrName};

use crate::{
    Attributes, Context, DirentPlusWriter, Entry, Negotiation, Opened, PayloadSink, PayloadSource,
    Result, State, StatxAttributes,
};

/// A filesystem, as a guest's kernel asks for it.
///
/// Methods are called from several threads at once. Node ids and handles come from the guest and
/// may be anything: one that is not known is ESTALE or EBADF, never a panic. Names are checked
/// ([`Name`]): they can be joined to a directory without leaving it. A read-only session never
/// calls what changes something.
///
/// **Counting.** Each [`Entry`] that is returned with a node id counts as one lookup of that node;
/// the guest gives lookups back with [`forget`](Self::forget), and may use the node until none is
/// left. [`NodeId::ROOT`] is there from [`init`](Self::init) on and is never forgotten.
///
/// **Waiting.** Where [`Context::may_block`] is false and the operation would have to wait, it
/// returns [`Error::WouldBlock`](crate::Error::WouldBlock) before it has changed anything.
///
/// What is not implemented is ENOSYS, which a Linux guest takes as the answer for the rest of the
/// session. Where only some files cannot do it, the answer is EOPNOTSUPP.
///
/// Sizes and offsets are in bytes throughout.
pub trait FileSystem: Send + Sync {
    /// A session begins. The filesystem says what it wants of what the guest offers.
    ///
    /// # Errors
    /// Refuses the session; the guest's mount fails.
    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        let _ = negotiation;
        Ok(())
    }

    /// The session ended: every lookup and every handle is given back. Called also before a second
    /// INIT and when the transport is reset; operations of the old session may still be under way.
    fn destroy(&self) {}

    /// Finds `name` in `parent` and counts a lookup.
    ///
    /// # Errors
    /// ENOENT where there is none; or [`Entry::negative`], which the guest may cache.
    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Entry>;

    /// Finds `node` again, whose lookups the guest may have given back (LOOKUP of `.`), and counts
    /// a lookup. Only asked where EXPORT_SUPPORT was agreed on.
    ///
    /// # Errors
    /// ESTALE where the node is not known any more.
    fn lookup_self(&self, cx: &Context<'_>, node: NodeId) -> Result<Entry> {
        let _ = (cx, node);
        Err(Errno::ESTALE.into())
    }

    /// Finds the directory that holds `node` (LOOKUP of `..`) and counts a lookup. Only asked where
    /// EXPORT_SUPPORT was agreed on.
    ///
    /// # Errors
    /// ESTALE where the node is not known any more.
    fn lookup_parent(&self, cx: &Context<'_>, node: NodeId) -> Result<Entry> {
        let _ = (cx, node);
        Err(Errno::ESTALE.into())
    }

    /// Takes back `nlookup` lookups of `node`; more than it has count as all.
    fn forget(&self, node: NodeId, nlookup: u64) {
        let _ = (node, nlookup);
    }

    /// Tells the attributes of `node`, by way of `handle` where the guest has one at hand.
    ///
    /// # Errors
    /// As fstat(2).
    fn getattr(&self, cx: &Context<'_>, node: NodeId, handle: Option<Handle>)
    -> Result<Attributes>;

    /// Tells the attributes of `node`, birth time and all.
    ///
    /// # Errors
    /// As statx(2).
    fn statx(&self, cx: &Context<'_>, node: NodeId, args: &StatxIn) -> Result<StatxAttributes> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Changes those attributes of `node` that `args.valid` names, and tells them all.
    ///
    /// # Errors
    /// As chmod(2), chown(2), truncate(2), utimensat(2).
    fn setattr(&self, cx: &Context<'_>, node: NodeId, args: &SetattrIn) -> Result<Attributes> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Writes the target of the symbolic link `node` to `buffer`, cut off where it is too long, and
    /// returns its length.
    ///
    /// # Errors
    /// As readlink(2).
    fn readlink(&self, cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        let _ = (cx, node, buffer);
        Err(Errno::ENOSYS.into())
    }

    /// Makes the symbolic link `name` in `parent`.
    ///
    /// # Errors
    /// As symlink(2).
    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
    ) -> Result<Entry> {
        let _ = (cx, parent, name, target);
        Err(Errno::ENOSYS.into())
    }

    /// Makes the file or special file `name` in `parent`.
    ///
    /// # Errors
    /// As mknod(2).
    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MknodIn,
    ) -> Result<Entry> {
        let _ = (cx, parent, name, args);
        Err(Errno::ENOSYS.into())
    }

    /// Makes the directory `name` in `parent`.
    ///
    /// # Errors
    /// As mkdir(2).
    fn mkdir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MkdirIn,
    ) -> Result<Entry> {
        let _ = (cx, parent, name, args);
        Err(Errno::ENOSYS.into())
    }

    /// Removes `name` from `parent`.
    ///
    /// # Errors
    /// As unlink(2).
    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        let _ = (cx, parent, name);
        Err(Errno::ENOSYS.into())
    }

    /// Removes the empty directory `name` from `parent`.
    ///
    /// # Errors
    /// As rmdir(2).
    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        let _ = (cx, parent, name);
        Err(Errno::ENOSYS.into())
    }

    /// Renames `name` in `parent` to `new_name` in `new_parent`.
    ///
    /// # Errors
    /// As renameat2(2).
    fn rename(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let _ = (cx, parent, name, new_parent, new_name, flags);
        Err(Errno::ENOSYS.into())
    }

    /// Makes `name` in `parent` another name of `node`.
    ///
    /// # Errors
    /// As link(2).
    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let _ = (cx, node, parent, name);
        Err(Errno::ENOSYS.into())
    }

    /// Opens the file `node`.
    ///
    /// # Errors
    /// As open(2). ENOSYS, where NO_OPEN_SUPPORT was agreed on, means that handles are not needed.
    ///
    /// O_TRUNC comes as SETATTR after the open, unless ATOMIC_O_TRUNC was agreed on. That takes a
    /// request less, and truncates programs that are running: a Linux guest then asks before it
    /// has checked for those (ETXTBSY).
    fn open(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened>;

    /// Creates and opens the file `name` in `parent`.
    ///
    /// # Errors
    /// As open(2) with O_CREAT. With ENOSYS the guest uses MKNOD and OPEN.
    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let _ = (cx, parent, name, args);
        Err(Errno::ENOSYS.into())
    }

    /// Creates and opens a file without a name on the filesystem of the directory `parent`. What the
    /// entry says of how long its name is valid is not used.
    ///
    /// # Errors
    /// As open(2) with O_TMPFILE.
    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let _ = (cx, parent, args);
        Err(Errno::ENOSYS.into())
    }

    /// Reads up to `args.size` bytes, which the sink has room for, and returns how many those were.
    /// Fewer than asked for are the end of the file to the guest.
    ///
    /// # Errors
    /// As pread(2).
    fn read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize>;

    /// Writes the `args.size` bytes of the source and returns how many were written.
    ///
    /// # Errors
    /// As pwrite(2).
    fn write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize> {
        let _ = (cx, node, args, source);
        Err(Errno::ENOSYS.into())
    }

    /// One of the descriptors of an open file was closed.
    ///
    /// # Errors
    /// As close(2); the caller sees it.
    fn flush(&self, cx: &Context<'_>, node: NodeId, args: &FlushIn) -> Result<()> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Closes a file for good.
    ///
    /// # Errors
    /// EBADF.
    fn release(&self, cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        let _ = (cx, node, args);
        Ok(())
    }

    /// Brings a file to stable storage.
    ///
    /// # Errors
    /// As fsync(2).
    fn fsync(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Opens the directory `node`.
    ///
    /// # Errors
    /// As open(2) with O_DIRECTORY. ENOSYS, where NO_OPENDIR_SUPPORT was agreed on, means that
    /// handles are not needed.
    fn opendir(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened>;

    /// Lists a directory from the cookie `args.offset` on, until the writer is full or the
    /// directory ends. `.` and `..` are part of the list.
    ///
    /// # Errors
    /// As getdents(2): EINVAL where not even one entry fits, as an empty list is the end of the
    /// directory. No error after something was written: the rest is asked for again.
    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()>;

    /// Lists a directory as [`readdir`](Self::readdir) does, with the same cookies, and looks each
    /// entry up as [`lookup`](Self::lookup) does.
    ///
    /// # Errors
    /// As `readdir`.
    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        let _ = (cx, node, args, entries);
        Err(Errno::ENOSYS.into())
    }

    /// Closes a directory for good.
    ///
    /// # Errors
    /// EBADF.
    fn releasedir(&self, cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        let _ = (cx, node, args);
        Ok(())
    }

    /// Brings a directory to stable storage.
    ///
    /// # Errors
    /// As fsync(2).
    fn fsyncdir(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Tells the space of the filesystem that holds `node`.
    ///
    /// # Errors
    /// As statvfs(3).
    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<Kstatfs>;

    /// Brings the whole filesystem to stable storage.
    ///
    /// # Errors
    /// As syncfs(2).
    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        let _ = (cx, node);
        Err(Errno::ENOSYS.into())
    }

    /// Checks whether the caller may access `node`.
    ///
    /// # Errors
    /// As access(2).
    fn access(&self, cx: &Context<'_>, node: NodeId, args: &AccessIn) -> Result<()> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Sets an extended attribute; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// As setxattr(2).
    fn setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        how: SetxattrFlags,
    ) -> Result<()> {
        let _ = (cx, node, name, value, flags, how);
        Err(Errno::ENOSYS.into())
    }

    /// Writes the value of an extended attribute to `buffer` and returns its length; with an empty
    /// buffer only returns the length.
    ///
    /// # Errors
    /// As getxattr(2): ERANGE where the buffer is too short.
    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let _ = (cx, node, name, buffer);
        Err(Errno::ENOSYS.into())
    }

    /// Writes the names of the extended attributes, each with its NUL, to `buffer` and returns
    /// their length; with an empty buffer only returns the length.
    ///
    /// # Errors
    /// As listxattr(2): ERANGE where the buffer is too short.
    fn listxattr(&self, cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        let _ = (cx, node, buffer);
        Err(Errno::ENOSYS.into())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As removexattr(2).
    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        let _ = (cx, node, name);
        Err(Errno::ENOSYS.into())
    }

    /// Finds data or a hole and returns where.
    ///
    /// # Errors
    /// As lseek(2).
    fn lseek(&self, cx: &Context<'_>, node: NodeId, args: &LseekIn) -> Result<u64> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Allocates, punches or zeroes a range of a file.
    ///
    /// # Errors
    /// As fallocate(2).
    fn fallocate(&self, cx: &Context<'_>, node: NodeId, args: &FallocateIn) -> Result<()> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Copies from `node` to another file and returns how much was copied.
    ///
    /// # Errors
    /// As copy_file_range(2). With ENOSYS the guest copies itself.
    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &CopyFileRangeIn,
    ) -> Result<u64> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Finds a lock that stands in the way of `args.lk`.
    ///
    /// # Errors
    /// As fcntl(2) with F_GETLK.
    fn getlk(&self, cx: &Context<'_>, node: NodeId, args: &LkIn) -> Result<FileLock> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Sets or drops a lock; with `wait` it waits until it can.
    ///
    /// That may take for ever: the wait ends with EINTR where the request is
    /// [interrupted](Self::interrupt), with ENOLCK where waits are [cancelled](Self::cancel_waits).
    ///
    /// # Errors
    /// As fcntl(2) with F_SETLK or F_SETLKW, or flock(2).
    fn setlk(&self, cx: &Context<'_>, node: NodeId, args: &LkIn, wait: bool) -> Result<()> {
        let _ = (cx, node, args, wait);
        Err(Errno::ENOSYS.into())
    }

    /// Does `args.cmd` with the input `data`, writes the output to `buffer` and returns the result
    /// and the length of the output.
    ///
    /// # Errors
    /// ENOTTY for a command that is not known.
    fn ioctl(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &IoctlIn,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<(IoctlOut, usize)> {
        let _ = (cx, node, args, data, buffer);
        Err(Errno::ENOSYS.into())
    }

    /// Tells which of the events asked for are there.
    ///
    /// # Errors
    /// ENOSYS: the guest takes files as always ready.
    fn poll(&self, cx: &Context<'_>, node: NodeId, args: &PollIn) -> Result<u32> {
        let _ = (cx, node, args);
        Err(Errno::ENOSYS.into())
    }

    /// Tells where a block of a file lies on the device.
    ///
    /// # Errors
    /// ENOSYS where there is no device.
    fn bmap(&self, cx: &Context<'_>, node: NodeId, block: u64, blocksize: u32) -> Result<u64> {
        let _ = (cx, node, block, blocksize);
        Err(Errno::ENOSYS.into())
    }

    /// Calls `map` with the file from which a part of `node` is mapped into the DAX window, open for
    /// what `args.flags` asks: for reading, and for writing where those contain WRITE. Where
    /// `args.fh` is [`Handle::NONE`], as Linux has it, the inode is meant and no open file. Only
    /// called where waiting is allowed and MAP_ALIGNMENT was agreed on, which is only offered where
    /// there is a [`DaxWindow`](crate::DaxWindow).
    ///
    /// The guest sees and changes the file from then on without asking, until it has the mapping
    /// removed: the filesystem is not told.
    ///
    /// # Errors
    /// EACCES for what `args.fh` was not opened for, as mmap(2); or that of `map`.
    fn setup_mapping(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &SetupmappingIn,
        map: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let _ = (cx, node, args, map);
        Err(Errno::ENOSYS.into())
    }

    /// The guest no longer waits for the request `unique`, which may be answered with EINTR. It may
    /// be one that is done, or that has yet to be served.
    fn interrupt(&self, unique: u64) {
        let _ = unique;
    }

    /// Makes all [`setlk`](Self::setlk) that wait at this moment fail with ENOLCK. Not EINTR, which
    /// a Linux guest whose caller got no signal would show as an unknown error.
    fn cancel_waits(&self) {}

    /// What the guest holds, if that can be saved and loaded: node ids with their lookups, handles,
    /// locks. It is loaded into a filesystem whose [`init`](Self::init) has agreed to what the guest
    /// was told, and that has served nothing since.
    fn state(&self) -> Option<&dyn State> {
        None
    }
}
