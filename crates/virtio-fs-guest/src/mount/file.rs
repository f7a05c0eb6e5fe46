use std::ffi::CStr;

use fuse_wire::abi::{
    CopyFileRangeIn, CreateIn, EntryOut, FallocateIn, FileLock, FlushIn, FsyncIn, LkIn, LseekIn,
    OpenIn, OpenOut, ReadIn, ReleaseIn, WriteIn,
};
use fuse_wire::flags::{FsyncFlags, LkFlags, OpenInFlags, ReadFlags, ReleaseFlags, WriteFlags};
use fuse_wire::{Handle, NodeId, Operation, Reply};

use super::{FORM, Mount, name, reply};
use crate::{Error, Payload};

/// Open files.
#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl Mount {
    /// OPEN: `flags` as of open(2).
    pub fn open(&mut self, node: NodeId, flags: u32) -> Result<OpenOut, Error> {
        let args = OpenIn {
            flags,
            open_flags: OpenInFlags::empty(),
        };
        self.reply(node, Operation::Open(args), reply!(Reply::Open(out) => out))
    }

    /// CREATE: makes and opens `new` in `parent`.
    pub fn create(
        &mut self,
        parent: NodeId,
        new: &CStr,
        flags: u32,
        mode: u32,
    ) -> Result<(EntryOut, OpenOut), Error> {
        let args = CreateIn {
            flags,
            mode,
            umask: 0,
            open_flags: OpenInFlags::empty(),
        };
        let name = name(new)?;
        self.reply(
            parent,
            Operation::Create { args, name },
            reply!(Reply::Create(entry, open) => (entry, open)),
        )
    }

    /// TMPFILE: makes and opens a file without a name in the filesystem of `parent`.
    pub fn tmpfile(
        &mut self,
        parent: NodeId,
        flags: u32,
        mode: u32,
    ) -> Result<(EntryOut, OpenOut), Error> {
        let args = CreateIn {
            flags,
            mode,
            umask: 0,
            open_flags: OpenInFlags::empty(),
        };
        self.reply(
            parent,
            Operation::TmpFile(args),
            reply!(Reply::Create(entry, open) => (entry, open)),
        )
    }

    /// READ: one request, of as many bytes as `buffer` and
    /// [`Limits::max_read`](super::Limits::max_read) allow. Returns how many were read, 0 at the
    /// end of the file.
    pub fn read(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let args = ReadIn {
            fh: handle,
            offset,
            size: buffer.len().min(self.limits.max_read) as u32,
            read_flags: ReadFlags::empty(),
            lock_owner: 0,
            flags: 0,
            padding: 0,
        };
        let completion = self.call(node, Operation::Read(args), Payload::None)?;
        completion.result()?;
        Ok(completion.copy_to(0, buffer))
    }

    /// WRITE: one request, of as many bytes of `data` as
    /// [`Limits::max_write`](super::Limits::max_write) allows. Returns how many were written.
    pub fn write(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Error> {
        let data = &data[..data.len().min(self.limits.max_write)];
        let args = WriteIn {
            fh: handle,
            offset,
            size: data.len() as u32,
            write_flags: WriteFlags::empty(),
            lock_owner: 0,
            flags: 0,
            padding: 0,
        };
        let mut completion = self.call(node, Operation::Write(args), Payload::Copied(data))?;
        let Reply::Write(out) = completion.reply()? else {
            unreachable!("{FORM}")
        };
        Ok(out.size as usize)
    }

    /// FLUSH: a descriptor of the file was closed, and with it go the POSIX locks of
    /// `lock_owner`.
    pub fn flush(&mut self, node: NodeId, handle: Handle, lock_owner: u64) -> Result<(), Error> {
        let args = FlushIn {
            fh: handle,
            unused: 0,
            padding: 0,
            lock_owner,
        };
        self.empty(node, Operation::Flush(args))
    }

    /// RELEASE: closes `handle` for good.
    pub fn release(&mut self, node: NodeId, handle: Handle) -> Result<(), Error> {
        self.empty(node, Operation::Release(release_in(handle)))
    }

    /// FSYNC.
    pub fn fsync(&mut self, node: NodeId, handle: Handle, flags: FsyncFlags) -> Result<(), Error> {
        self.empty(node, Operation::FSync(fsync_in(handle, flags)))
    }

    /// LSEEK: `whence` is `SEEK_DATA` or `SEEK_HOLE`.
    pub fn lseek(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        whence: u32,
    ) -> Result<u64, Error> {
        let args = LseekIn {
            fh: handle,
            offset,
            whence,
            padding: 0,
        };
        self.reply(
            node,
            Operation::LSeek(args),
            reply!(Reply::LSeek(out) => out.offset),
        )
    }

    /// FALLOCATE: `mode` as of fallocate(2).
    pub fn fallocate(
        &mut self,
        node: NodeId,
        handle: Handle,
        range: std::ops::Range<u64>,
        mode: u32,
    ) -> Result<(), Error> {
        let args = FallocateIn {
            fh: handle,
            offset: range.start,
            length: range.end.saturating_sub(range.start),
            mode,
            padding: 0,
        };
        self.empty(node, Operation::FAllocate(args))
    }

    /// COPY_FILE_RANGE: copies from the file `node` to the one that `args` names. Returns how
    /// many bytes were copied.
    pub fn copy_file_range(&mut self, node: NodeId, args: CopyFileRangeIn) -> Result<u64, Error> {
        self.reply(
            node,
            Operation::CopyFileRange(args),
            reply!(Reply::Write(out) => u64::from(out.size)),
        )
    }

    /// GETLK: the lock that stands in the way of `lock`, or one of type `F_UNLCK`.
    pub fn getlk(
        &mut self,
        node: NodeId,
        handle: Handle,
        owner: u64,
        lock: FileLock,
    ) -> Result<FileLock, Error> {
        let args = lk_in(handle, owner, lock);
        self.reply(
            node,
            Operation::GetLk(args),
            reply!(Reply::Lk(out) => out.lk),
        )
    }

    /// SETLK: sets or drops a POSIX lock without waiting.
    pub fn setlk(
        &mut self,
        node: NodeId,
        handle: Handle,
        owner: u64,
        lock: FileLock,
    ) -> Result<(), Error> {
        self.empty(node, Operation::SetLk(lk_in(handle, owner, lock)))
    }
}

const fn lk_in(fh: Handle, owner: u64, lk: FileLock) -> LkIn {
    LkIn {
        fh,
        owner,
        lk,
        lk_flags: LkFlags::empty(),
        padding: 0,
    }
}

pub(super) const fn release_in(fh: Handle) -> ReleaseIn {
    ReleaseIn {
        fh,
        flags: 0,
        release_flags: ReleaseFlags::empty(),
        lock_owner: 0,
    }
}

pub(super) const fn fsync_in(fh: Handle, fsync_flags: FsyncFlags) -> FsyncIn {
    FsyncIn {
        fh,
        fsync_flags,
        padding: 0,
    }
}
