use std::os::fd::{AsFd, BorrowedFd};

use fuse_fs::abi::{CopyFileRangeIn, FallocateIn, LseekIn, ReadIn, WriteIn};
use fuse_fs::flags::WriteFlags;
use fuse_fs::{Context, Errno, Error, IoFlags, NodeId, PayloadSink, PayloadSource, Result};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use crate::fsetid::SuidSgid;
use crate::handle_table::Durability;
use crate::volume::Volume;
use crate::{Extras, PassthroughFs};

/// Most bytes copied in one request, so that none takes for ever. The guest asks for the rest.
const MAX_COPY: u64 = 1 << 30;
/// What FALLOCATE may do: the modes that a guest's kernel knows how to keep its cache in step with.
const FALLOCATE_MODES: FallocateFlags = FallocateFlags::KEEP_SIZE
    .union(FallocateFlags::PUNCH_HOLE)
    .union(FallocateFlags::ZERO_RANGE);
/// `SEEK_DATA` and `SEEK_HOLE` (lseek(2)).
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// Part of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

impl Extent {
    /// Refuses what is no part of any file. To preadv2(2) and pwritev2(2) an offset of -1 means
    /// the file's own position.
    fn new(offset: u64, len: u32) -> Result<Self> {
        let end = offset.checked_add(u64::from(len));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Errno::EINVAL.into());
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(Self { offset, len })
    }

    /// What is left when the first `done` bytes are done.
    pub(crate) fn after(self, done: usize) -> Self {
        Self {
            offset: self.offset.saturating_add(done as u64),
            len: self.len.saturating_sub(done),
        }
    }
}

impl PassthroughFs {
    pub(crate) fn do_read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        let file = self.file(args.fh, node)?;
        let extent = Extent::new(args.offset, args.size)?;
        if file.durability == Durability::Direct {
            file.volume.check_may_wait(cx)?;
            return self.read_direct(&file, extent, sink);
        }
        if file.volume.check_may_wait(cx).is_ok() {
            return read_all(file.fd.as_fd(), extent, sink, IoFlags::empty());
        }
        let learned = &file.volume.reads_without_waiting;
        if !learned.holds() {
            return Err(Error::WouldBlock);
        }
        match read_all(file.fd.as_fd(), extent, sink, IoFlags::NOWAIT) {
            Err(Error::Errno(Errno::EOPNOTSUPP)) => {
                learned.refuted();
                Err(Error::WouldBlock)
            }
            Err(Error::Errno(Errno::EAGAIN)) => Err(Error::WouldBlock),
            result => result,
        }
    }

    pub(crate) fn do_write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize> {
        let file = self.file(args.fh, node)?;
        let extent = Extent::new(args.offset, args.size)?;
        file.volume.check_reachable(cx)?;
        // Pages that are written back have their places, and are followed by an FSYNC where they are to
        // be on storage; only the caller of write(2) appends, and says so for one write (pwritev2(2)).
        let cached = args.write_flags.contains(WriteFlags::CACHE);
        let flags = match cached {
            true => IoFlags::empty(),
            false => io_flags(OFlags::from_bits_retain(args.flags)),
        };
        if file.durability != Durability::Cached || flags.contains(IoFlags::DSYNC) {
            file.volume.check_may_wait(cx)?;
        }
        // Of what it caches, the guest's kernel has taken them away by itself, when it was written to.
        if !cached {
            self.drop_capabilities(&file.fd)?;
        }
        let kill = args.write_flags.contains(WriteFlags::KILL_SUIDGID);
        SuidSgid::cleared_if(kill).apply()?;
        match file.durability {
            Durability::Direct => self.write_direct(cx, &file, extent, source, flags),
            Durability::Cached | Durability::Synchronous => {
                write_all(cx, (file.fd.as_fd(), &file.volume), extent, source, flags)
            }
        }
    }

    /// What the guest has yet to write back would pass for holes, and be left out of a copy. Linux
    /// does not write it back before it asks. When it cannot ask, it takes all of a file for data.
    pub(crate) fn do_lseek(&self, node: NodeId, args: &LseekIn) -> Result<u64> {
        if self.agreed.contains(Extras::WRITEBACK) {
            return Err(Errno::ENOSYS.into());
        }
        let file = self.file(args.fh, node)?;
        let to = match args.whence {
            SEEK_DATA => SeekFrom::Data(args.offset),
            SEEK_HOLE => SeekFrom::Hole(args.offset),
            _ => return Err(Errno::EINVAL.into()),
        };
        Extent::new(args.offset, 0)?;
        Ok(rustix::fs::seek(&file.fd, to)?)
    }

    pub(crate) fn do_fallocate(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &FallocateIn,
    ) -> Result<()> {
        let file = self.file(args.fh, node)?;
        let mode = FallocateFlags::from_bits_retain(args.mode);
        if !FALLOCATE_MODES.contains(mode) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        file.volume.check_may_wait(cx)?;
        self.drop_capabilities(&file.fd)?;
        SuidSgid::of(cx).apply()?;
        Ok(rustix::fs::fallocate(
            &file.fd,
            mode,
            args.offset,
            args.length,
        )?)
    }

    pub(crate) fn do_copy_file_range(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &CopyFileRangeIn,
    ) -> Result<u64> {
        let source = self.file(args.fh_in, node)?;
        let destination = self.file(args.fh_out, args.nodeid_out)?;
        if args.flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        source.volume.check_may_wait(cx)?;
        destination.volume.check_may_wait(cx)?;
        let len = usize::try_from(args.len.min(MAX_COPY)).unwrap_or(usize::MAX);
        let (mut from, mut to) = (args.off_in, args.off_out);
        self.drop_capabilities(&destination.fd)?;
        SuidSgid::of(cx).apply()?;
        let copied = rustix::fs::copy_file_range(
            &source.fd,
            Some(&mut from),
            &destination.fd,
            Some(&mut to),
            len,
        )?;
        Ok(u64::try_from(copied).unwrap_or(u64::MAX))
    }
}

/// How a write is to be done of a description with these flags. Those of a single write are among
/// them, which its file need not have been opened with.
fn io_flags(flags: OFlags) -> IoFlags {
    let mut io = IoFlags::empty();
    io.set(IoFlags::APPEND, flags.contains(OFlags::APPEND));
    // O_SYNC has the bit of O_DSYNC.
    io.set(IoFlags::DSYNC, flags.contains(OFlags::DSYNC));
    io.set(IoFlags::SYNC, flags.contains(OFlags::SYNC));
    io
}

/// Reads until `size` bytes are there or the file ends: fewer than asked for are the end of the
/// file to the guest. Where the rest would have to be waited for, all of it is asked for again.
pub(crate) fn read_all(
    fd: BorrowedFd<'_>,
    extent: Extent,
    sink: &mut dyn PayloadSink,
    flags: IoFlags,
) -> Result<usize> {
    let mut done = 0_usize;
    while done < extent.len {
        let left = extent.after(done);
        match sink.write_from_file(fd, left.offset, left.len, flags) {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(error) => match Error::from(error) {
                Error::Errno(Errno::EINTR) => {}
                error => return Err(error),
            },
        }
    }
    Ok(done)
}

/// Writes all of the source. Where it must not wait, the first part is tried without; once a part
/// is written there is no way back, and the rest waits if it has to.
pub(crate) fn write_all(
    cx: &Context<'_>,
    (fd, volume): (BorrowedFd<'_>, &Volume),
    extent: Extent,
    source: &mut dyn PayloadSource,
    flags: IoFlags,
) -> Result<usize> {
    let learned = &volume.writes_without_waiting;
    let mut nowait = if volume.check_may_wait(cx).is_err() && learned.holds() {
        IoFlags::NOWAIT
    } else {
        IoFlags::empty()
    };
    let mut done = 0_usize;
    while done < extent.len {
        let left = extent.after(done);
        match source.read_to_file(fd, left.offset, left.len, flags | nowait) {
            Ok(0) => break,
            Ok(written) => {
                done = done.saturating_add(written);
                nowait = IoFlags::empty();
            }
            Err(error) => match Error::from(error) {
                Error::Errno(Errno::EINTR) => {}
                Error::Errno(Errno::EAGAIN) if !nowait.is_empty() => {
                    return Err(Error::WouldBlock);
                }
                // Few filesystems can tell for buffered writes. They rarely wait, as the data goes
                // to the page cache.
                Error::Errno(Errno::EOPNOTSUPP) if !nowait.is_empty() => {
                    learned.refuted();
                    nowait = IoFlags::empty();
                }
                // The guest learns of it when it writes the rest.
                _ if done > 0 => break,
                error => return Err(error),
            },
        }
    }
    Ok(done)
}
