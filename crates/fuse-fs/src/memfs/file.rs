//! Open files: opening, reading, writing, and what else is done to their data.

use fuse_wire::abi::{CopyFileRangeIn, FallocateIn, LseekIn, ReadIn, WriteIn};
use fuse_wire::flags::WriteFlags;
use fuse_wire::{Errno, NodeId};
use rustix::fs::{FallocateFlags, OFlags};

use super::budget::bytes;
use super::inode::Contents;
use super::state::{FileAccess, State};
use crate::{Opened, PayloadSink, PayloadSource, flags::OpenOutFlags};

/// Most bytes that one call copies; the guest asks again for the rest.
const MAX_COPY: u64 = 1 << 20;
/// `SEEK_DATA` of lseek(2).
const SEEK_DATA: u32 = 3;
/// `SEEK_HOLE` of lseek(2).
const SEEK_HOLE: u32 = 4;
/// The largest offset that a file can have.
const MAX_OFFSET: u64 = i64::MAX as u64;

impl State {
    /// Opens a regular file with the flags of open(2).
    ///
    /// # Errors
    /// ESTALE, EISDIR, ELOOP, EINVAL, ENFILE; ENXIO for a special file.
    pub(super) fn open_file(&mut self, node: NodeId, flags: u32) -> Result<Opened, Errno> {
        match &self.inode(node)?.contents {
            Contents::File(_) => {}
            Contents::Directory(_) => return Err(Errno::EISDIR),
            Contents::Symlink(_) => return Err(Errno::ELOOP),
            Contents::Special(_) => return Err(Errno::ENXIO),
        }
        let flags = OFlags::from_bits_retain(flags);
        let access = match flags & OFlags::RWMODE {
            OFlags::RDONLY => FileAccess::Read,
            OFlags::WRONLY => FileAccess::Write,
            OFlags::RDWR => FileAccess::ReadWrite,
            _ => return Err(Errno::EINVAL),
        };
        let handle = self.open(node, access)?;
        if flags.contains(OFlags::TRUNC) {
            self.truncate(node, 0)?;
        }
        Ok(Opened {
            handle,
            flags: OpenOutFlags::NOFLUSH,
        })
    }

    /// # Errors
    /// EBADF, ESTALE, EISDIR.
    pub(super) fn read(
        &mut self,
        node: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize, Errno> {
        self.check_access(node, args.fh, FileAccess::reads)?;
        let len = usize::try_from(args.size).unwrap_or(usize::MAX);
        let (data, _) = self.data_mut(node)?;
        let read = data.read(args.offset, len, |piece| sink.write(piece));
        self.inode_mut(node)?.accessed();
        Ok(read)
    }

    /// # Errors
    /// EBADF, ESTALE, EISDIR, EFBIG, ENOSPC.
    pub(super) fn write(
        &mut self,
        node: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize, Errno> {
        self.check_access(node, args.fh, FileAccess::writes)?;
        let len = usize::try_from(args.size).map_or(0, |size| size.min(source.remaining()));
        let (data, budget) = self.data_mut(node)?;
        // The kernel has placed what comes from its cache.
        let appends = OFlags::from_bits_retain(args.flags).contains(OFlags::APPEND)
            && !args.write_flags.contains(WriteFlags::CACHE);
        let start = if appends { data.size() } else { args.offset };
        let end = range_end(start, bytes(len))?;
        if len == 0 {
            return Ok(0);
        }
        data.write(start..end, budget, |piece| {
            source.read(piece);
        })?;
        self.inode_mut(node)?.modified();
        Ok(len)
    }

    /// # Errors
    /// EBADF, ESTALE, EISDIR, ENXIO; EINVAL for another `whence`.
    pub(super) fn seek(&mut self, node: NodeId, args: &LseekIn) -> Result<u64, Errno> {
        self.access_of(node, args.fh)?;
        let (data, _) = self.data_mut(node)?;
        match args.whence {
            SEEK_DATA => data.seek_data(args.offset),
            SEEK_HOLE => data.seek_hole(args.offset),
            _ => Err(Errno::EINVAL),
        }
    }

    /// # Errors
    /// EBADF, ESTALE, EISDIR, EFBIG, ENOSPC; EOPNOTSUPP for another mode.
    pub(super) fn fallocate(&mut self, node: NodeId, args: &FallocateIn) -> Result<(), Errno> {
        self.check_access(node, args.fh, FileAccess::writes)?;
        let range = args.offset..range_end(args.offset, args.length)?;
        let mode = FallocateFlags::from_bits_retain(args.mode);
        let keeps_size = mode.contains(FallocateFlags::KEEP_SIZE);
        let (data, budget) = self.data_mut(node)?;
        match mode.difference(FallocateFlags::KEEP_SIZE) {
            FallocateFlags::PUNCH_HOLE if keeps_size => data.punch(range.clone(), budget),
            FallocateFlags::ZERO_RANGE => {
                data.allocate(range.clone(), budget)?;
                data.zero(range.clone());
            }
            mode if mode.is_empty() => data.allocate(range.clone(), budget)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !keeps_size {
            data.grow(range.end);
        }
        self.inode_mut(node)?.modified();
        Ok(())
    }

    /// # Errors
    /// EBADF, ESTALE, EISDIR, EFBIG, ENOSPC; EINVAL where the ranges overlap in one file.
    pub(super) fn copy(&mut self, node: NodeId, args: &CopyFileRangeIn) -> Result<u64, Errno> {
        self.check_access(node, args.fh_in, FileAccess::reads)?;
        self.check_access(args.nodeid_out, args.fh_out, FileAccess::writes)?;
        if args.nodeid_out == node && args.off_in.abs_diff(args.off_out) < args.len {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from(args.len.min(MAX_COPY)).unwrap_or_default();
        let mut copied = Vec::with_capacity(len);
        self.data_mut(node)?.0.read(args.off_in, len, |piece| {
            copied.extend_from_slice(piece);
            piece.len()
        });
        let len = bytes(copied.len());
        let range = args.off_out..range_end(args.off_out, len)?;
        let mut rest = copied.as_slice();
        let (data, budget) = self.data_mut(args.nodeid_out)?;
        if len > 0 {
            data.write(range, budget, |piece| {
                let (now, later) = rest.split_at_checked(piece.len()).unwrap_or_default();
                piece.copy_from_slice(now);
                rest = later;
            })?;
            self.inode_mut(args.nodeid_out)?.modified();
        }
        self.inode_mut(node)?.accessed();
        Ok(len)
    }

    fn check_access(
        &self,
        node: NodeId,
        handle: fuse_wire::Handle,
        may: fn(FileAccess) -> bool,
    ) -> Result<(), Errno> {
        if may(self.access_of(node, handle)?) {
            Ok(())
        } else {
            Err(Errno::EBADF)
        }
    }
}

/// # Errors
/// EFBIG where no file can be that large.
fn range_end(start: u64, len: u64) -> Result<u64, Errno> {
    start
        .checked_add(len)
        .filter(|&end| end <= MAX_OFFSET)
        .ok_or(Errno::EFBIG)
}
