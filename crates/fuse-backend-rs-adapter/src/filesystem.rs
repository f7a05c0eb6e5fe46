use std::io;

use fuse_backend_rs::api::filesystem::{
    self as theirs, FileSystem as Theirs, GetxattrReply, IoctlData, ListxattrReply,
};
use fuse_fs::abi::{
    AccessIn, CreateIn, FallocateIn, FileLock, FlushIn, FsyncIn, IoctlIn, IoctlOut, Kstatfs, LkIn,
    LseekIn, MkdirIn, MknodIn, OpenIn, PollIn, ReadIn, ReleaseIn, SetattrIn, WriteIn,
};
use fuse_fs::flags::{
    FsyncFlags, IoctlFlags, ReadFlags, ReleaseFlags, RenameFlags, SetxattrFlags, WriteFlags,
};
use fuse_fs::{
    Attributes, Context, DirentPlusWriter, DirentWriter, Entry, Errno, Error, FileSystem, Handle,
    Name, Negotiation, NodeId, Opened, PayloadSink, PayloadSource, Result, SymlinkTarget,
    XattrName,
};

use crate::payload::{Reader, Writer};
use crate::{Adapter, convert, listing, negotiate};

impl<F: Theirs> Adapter<F> {
    /// Does what is done wherever it arrives.
    fn at_once<T>(
        &self,
        cx: &Context<'_>,
        call: impl FnOnce(&F, &theirs::Context) -> io::Result<T>,
    ) -> Result<T> {
        let mut caller = convert::context(cx);
        self.fs
            .id_remap(&mut caller)
            .and_then(|()| call(&self.fs, &caller))
            .map_err(convert::error)
    }

    /// Does what may wait, where it may.
    fn waiting<T>(
        &self,
        cx: &Context<'_>,
        call: impl FnOnce(&F, &theirs::Context) -> io::Result<T>,
    ) -> Result<T> {
        if !cx.may_block() {
            return Err(Error::WouldBlock);
        }
        self.at_once(cx, call)
    }
}

fn inode<I: From<u64>>(node: NodeId) -> I {
    node.0.into()
}

fn handle<H: From<u64>>(handle: Handle) -> H {
    handle.0.into()
}

impl<F: Theirs + Send + Sync> FileSystem for Adapter<F> {
    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        negotiate::init(&self.fs, negotiation).map_err(convert::error)
    }

    fn destroy(&self) {
        self.fs.destroy();
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.at_once(cx, |fs, cx| fs.lookup(cx, inode(parent), name.as_c_str()))
            .map(convert::entry)
    }

    fn lookup_self(&self, cx: &Context<'_>, node: NodeId) -> Result<Entry> {
        self.at_once(cx, |fs, cx| fs.lookup(cx, inode(node), c"."))
            .map(convert::entry)
    }

    fn lookup_parent(&self, cx: &Context<'_>, node: NodeId) -> Result<Entry> {
        self.at_once(cx, |fs, cx| fs.lookup(cx, inode(node), c".."))
            .map(convert::entry)
    }

    fn forget(&self, node: NodeId, nlookup: u64) {
        // The guest's kernel forgets, on nobody's behalf.
        let cx = theirs::Context::new();
        self.fs.forget(&cx, inode(node), nlookup);
    }

    fn getattr(&self, cx: &Context<'_>, node: NodeId, fh: Option<Handle>) -> Result<Attributes> {
        self.at_once(cx, |fs, cx| fs.getattr(cx, inode(node), fh.map(handle)))
            .map(convert::attributes)
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, args: &SetattrIn) -> Result<Attributes> {
        self.waiting(cx, |fs, cx| {
            let (stat, valid) = convert::setattr_in(args);
            let fh = convert::setattr_handle(args).map(handle);
            fs.setattr(cx, inode(node), stat, fh, valid)
        })
        .map(convert::attributes)
    }

    fn readlink(&self, cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        let target = self.at_once(cx, |fs, cx| fs.readlink(cx, inode(node)))?;
        let target = target.get(..buffer.len()).unwrap_or(&target);
        copy_to(buffer, target)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
    ) -> Result<Entry> {
        self.waiting(cx, |fs, cx| {
            fs.symlink(cx, target.as_c_str(), inode(parent), name.as_c_str())
        })
        .map(convert::entry)
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MknodIn,
    ) -> Result<Entry> {
        let &MknodIn {
            mode, rdev, umask, ..
        } = args;
        self.waiting(cx, |fs, cx| {
            fs.mknod(cx, inode(parent), name.as_c_str(), mode, rdev, umask)
        })
        .map(convert::entry)
    }

    fn mkdir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MkdirIn,
    ) -> Result<Entry> {
        self.waiting(cx, |fs, cx| {
            fs.mkdir(cx, inode(parent), name.as_c_str(), args.mode, args.umask)
        })
        .map(convert::entry)
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.waiting(cx, |fs, cx| fs.unlink(cx, inode(parent), name.as_c_str()))
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.waiting(cx, |fs, cx| fs.rmdir(cx, inode(parent), name.as_c_str()))
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
        self.waiting(cx, |fs, cx| {
            fs.rename(
                cx,
                inode(parent),
                name.as_c_str(),
                inode(new_parent),
                new_name.as_c_str(),
                flags.bits(),
            )
        })
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        self.waiting(cx, |fs, cx| {
            fs.link(cx, inode(node), inode(parent), name.as_c_str())
        })
        .map(convert::entry)
    }

    fn open(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        let (fh, options, _passthrough) = self.waiting(cx, |fs, cx| {
            fs.open(cx, inode(node), args.flags, args.open_flags.bits())
        })?;
        Ok(convert::opened(fh, options))
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let (entry, fh, options, _passthrough) = self.waiting(cx, |fs, cx| {
            let args = convert::create_in(args);
            fs.create(cx, inode(parent), name.as_c_str(), args)
        })?;
        Ok((convert::entry(entry), convert::opened(fh, options)))
    }

    fn read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        let counts = args.read_flags.contains(ReadFlags::LOCKOWNER);
        let owner = counts.then_some(args.lock_owner);
        let &ReadIn {
            fh,
            offset,
            size,
            flags,
            ..
        } = args;
        self.waiting(cx, |fs, cx| {
            let max = usize::try_from(size).unwrap_or(usize::MAX);
            let mut writer = Writer::new(sink, max);
            let (node, fh) = (inode(node), handle(fh));
            fs.read(cx, node, fh, &mut writer, size, offset, owner, flags)
        })
    }

    fn write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize> {
        let counts = args.write_flags.contains(WriteFlags::LOCKOWNER);
        let owner = counts.then_some(args.lock_owner);
        let delayed = args.write_flags.contains(WriteFlags::CACHE);
        self.waiting(cx, |fs, cx| {
            fs.write(
                cx,
                inode(node),
                handle(args.fh),
                &mut Reader::new(source),
                args.size,
                args.offset,
                owner,
                delayed,
                args.flags,
                args.write_flags.bits(),
            )
        })
    }

    fn flush(&self, cx: &Context<'_>, node: NodeId, args: &FlushIn) -> Result<()> {
        self.waiting(cx, |fs, cx| {
            fs.flush(cx, inode(node), handle(args.fh), args.lock_owner)
        })
    }

    fn release(&self, cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        let flush = args.release_flags.contains(ReleaseFlags::FLUSH);
        let unlock = args.release_flags.contains(ReleaseFlags::FLOCK_UNLOCK);
        let owner = (flush || unlock).then_some(args.lock_owner);
        self.waiting(cx, |fs, cx| {
            let (node, fh) = (inode(node), handle(args.fh));
            fs.release(cx, node, args.flags, fh, flush, unlock, owner)
        })
    }

    fn fsync(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        let data_only = args.fsync_flags.contains(FsyncFlags::FDATASYNC);
        self.waiting(cx, |fs, cx| {
            fs.fsync(cx, inode(node), data_only, handle(args.fh))
        })
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        let (fh, options) = self.waiting(cx, |fs, cx| fs.opendir(cx, inode(node), args.flags))?;
        Ok(convert::opened(fh, options))
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()> {
        self.waiting(cx, |fs, cx| listing::readdir(fs, cx, node, args, entries))
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        self.waiting(cx, |fs, cx| {
            listing::readdirplus(fs, cx, node, args, entries)
        })
    }

    fn releasedir(&self, cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        self.waiting(cx, |fs, cx| {
            fs.releasedir(cx, inode(node), args.flags, handle(args.fh))
        })
    }

    fn fsyncdir(&self, cx: &Context<'_>, node: NodeId, args: &FsyncIn) -> Result<()> {
        let data_only = args.fsync_flags.contains(FsyncFlags::FDATASYNC);
        self.waiting(cx, |fs, cx| {
            fs.fsyncdir(cx, inode(node), data_only, handle(args.fh))
        })
    }

    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<Kstatfs> {
        let stat = self.waiting(cx, |fs, cx| fs.statfs(cx, inode(node)))?;
        Ok(convert::statfs(&stat))
    }

    fn access(&self, cx: &Context<'_>, node: NodeId, args: &AccessIn) -> Result<()> {
        self.at_once(cx, |fs, cx| fs.access(cx, inode(node), args.mask))
    }

    fn setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        _: SetxattrFlags,
    ) -> Result<()> {
        self.waiting(cx, |fs, cx| {
            fs.setxattr(cx, inode(node), name.as_c_str(), value, flags)
        })
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let size = size_of_buffer(buffer);
        let reply = self.waiting(cx, |fs, cx| {
            fs.getxattr(cx, inode(node), name.as_c_str(), size)
        })?;
        match reply {
            GetxattrReply::Value(value) => xattr(buffer, &value),
            GetxattrReply::Count(count) => xattr_size(buffer, count),
        }
    }

    fn listxattr(&self, cx: &Context<'_>, node: NodeId, buffer: &mut [u8]) -> Result<usize> {
        let size = size_of_buffer(buffer);
        let reply = self.waiting(cx, |fs, cx| fs.listxattr(cx, inode(node), size))?;
        match reply {
            ListxattrReply::Names(names) => xattr(buffer, &names),
            ListxattrReply::Count(count) => xattr_size(buffer, count),
        }
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.waiting(cx, |fs, cx| {
            fs.removexattr(cx, inode(node), name.as_c_str())
        })
    }

    fn lseek(&self, cx: &Context<'_>, node: NodeId, args: &LseekIn) -> Result<u64> {
        self.waiting(cx, |fs, cx| {
            fs.lseek(cx, inode(node), handle(args.fh), args.offset, args.whence)
        })
    }

    fn fallocate(&self, cx: &Context<'_>, node: NodeId, args: &FallocateIn) -> Result<()> {
        let &FallocateIn {
            fh,
            offset,
            length,
            mode,
            ..
        } = args;
        self.waiting(cx, |fs, cx| {
            fs.fallocate(cx, inode(node), handle(fh), mode, offset, length)
        })
    }

    fn getlk(&self, cx: &Context<'_>, node: NodeId, args: &LkIn) -> Result<FileLock> {
        let (lock, flags) = (convert::lock_in(&args.lk), args.lk_flags.bits());
        self.waiting(cx, |fs, cx| {
            fs.getlk(cx, inode(node), handle(args.fh), args.owner, lock, flags)
        })
        .map(convert::lock_out)
    }

    fn setlk(&self, cx: &Context<'_>, node: NodeId, args: &LkIn, wait: bool) -> Result<()> {
        let (lock, flags) = (convert::lock_in(&args.lk), args.lk_flags.bits());
        self.waiting(cx, |fs, cx| {
            let (node, fh) = (inode(node), handle(args.fh));
            if wait {
                fs.setlkw(cx, node, fh, args.owner, lock, flags)
            } else {
                fs.setlk(cx, node, fh, args.owner, lock, flags)
            }
        })
    }

    fn ioctl(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &IoctlIn,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<(IoctlOut, usize)> {
        let input = IoctlData {
            result: 0,
            data: (!data.is_empty()).then_some(data),
        };
        let (flags, cmd, size) = (args.flags.bits(), args.cmd, size_of_buffer(buffer));
        self.waiting(cx, |fs, cx| {
            let output = fs.ioctl(cx, inode(node), handle(args.fh), flags, cmd, input, size)?;
            let len = match copy_to(buffer, output.data.unwrap_or_default()) {
                Ok(len) => len,
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            };
            let out = IoctlOut {
                result: output.result,
                flags: IoctlFlags::empty(),
                in_iovs: 0,
                out_iovs: 0,
            };
            Ok((out, len))
        })
    }

    fn poll(&self, cx: &Context<'_>, node: NodeId, args: &PollIn) -> Result<u32> {
        let (fh, waiter) = (handle(args.fh), args.kh.into());
        self.at_once(cx, |fs, cx| {
            fs.poll(cx, inode(node), fh, waiter, args.flags.bits(), args.events)
        })
    }

    fn bmap(&self, cx: &Context<'_>, node: NodeId, block: u64, blocksize: u32) -> Result<u64> {
        self.waiting(cx, |fs, cx| fs.bmap(cx, inode(node), block, blocksize))
    }
}

/// What a filesystem is asked for. The session has cut the buffer to what the reply can hold.
fn size_of_buffer(buffer: &[u8]) -> u32 {
    u32::try_from(buffer.len()).unwrap_or(u32::MAX)
}

/// Answers with `value`, or with its length where that was asked for.
fn xattr(buffer: &mut [u8], value: &[u8]) -> Result<usize> {
    if buffer.is_empty() {
        return Ok(value.len());
    }
    copy_to(buffer, value)
}

/// Answers with a length. Where a value was asked for it is none.
fn xattr_size(buffer: &[u8], count: u32) -> Result<usize> {
    if !buffer.is_empty() {
        return Err(Errno::EIO.into());
    }
    usize::try_from(count).map_err(|_| Errno::E2BIG.into())
}

/// Puts `data` to the front of `buffer`.
///
/// # Errors
/// ERANGE where it is too long.
fn copy_to(buffer: &mut [u8], data: &[u8]) -> Result<usize> {
    let front = buffer.get_mut(..data.len()).ok_or(Errno::ERANGE)?;
    front.copy_from_slice(data);
    Ok(data.len())
}
