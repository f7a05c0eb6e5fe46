//! What an open file holds: data, holes, and what only its kind knows.

use fuse_wire::abi::{
    CopyFileRangeIn, CopyFileRangeOut, FallocateIn, IoctlIn, IoctlOut, LseekIn, LseekOut, PollIn,
    PollOut, ReadIn, WriteIn, WriteOut,
};
use fuse_wire::{Errno, Reply};
use zerocopy::IntoBytes;

use super::{Answer, Call, Failure, Room, check_range, clamp, done, size_of_len};
use crate::{FileSystem, PayloadSource};

/// Most bytes that one READ returns: 256 pages, the most that Linux asks for, of 64 KiB, the
/// largest that it has. It does not depend on what WRITE may carry, as a guest whose pages are
/// large exceeds that, and would take a shorter reply for the end of the file.
const MAX_READ: usize = 256 * 64 * 1024;
/// Most bytes of an ioctl's output: as much as 14 bits of a command can announce, and then some.
const MAX_IOCTL_OUT: usize = 32 * 1024;
/// Most bytes that COPY_FILE_RANGE can report, in whole pages.
const MAX_COPY: u64 = 0xffff_f000;
/// `SEEK_DATA` and `SEEK_HOLE` of lseek(2), the only ones that need the filesystem.
const SEEK_DATA_OR_HOLE: [u32; 2] = [3, 4];

pub(super) fn read<F: FileSystem>(
    call: &Call<'_, F>,
    args: &ReadIn,
    room: &mut Room<'_>,
) -> Answer {
    let sink = room.sink();
    let before = sink.remaining();
    let max = clamp(args.size, before.min(MAX_READ));
    let args = ReadIn {
        size: size_of_len(max),
        ..*args
    };
    check_range(args.offset, u64::from(args.size), Errno::EINVAL)?;
    let read = call.fs.read(&call.cx, call.node, &args, sink)?;
    let written = before.saturating_sub(sink.remaining());
    // Less data than is announced would show the guest what its buffer held before.
    if read != written || read > max {
        return Err(Failure::Fault(
            "read: the count is not what was written to the sink",
        ));
    }
    Ok(room.payload(read))
}

pub(super) fn write<F: FileSystem>(
    call: &Call<'_, F>,
    args: &WriteIn,
    source: &mut dyn PayloadSource,
    room: &mut Room<'_>,
) -> Answer {
    if args.size > call.agreement.max_write() {
        return Err(Errno::EINVAL.into());
    }
    check_range(args.offset, u64::from(args.size), Errno::EFBIG)?;
    let written = call.fs.write(&call.cx, call.node, args, source)?;
    match u32::try_from(written) {
        Ok(size) if size <= args.size => room.reply(&Reply::Write(WriteOut { size, padding: 0 })),
        _ => Err(Failure::Fault("write: more was written than there is")),
    }
}

pub(super) fn lseek<F: FileSystem>(
    call: &Call<'_, F>,
    args: &LseekIn,
    room: &mut Room<'_>,
) -> Answer {
    if !SEEK_DATA_OR_HOLE.contains(&args.whence) {
        return Err(Errno::EINVAL.into());
    }
    check_range(args.offset, 0, Errno::EINVAL)?;
    let offset = call.fs.lseek(&call.cx, call.node, args)?;
    room.reply(&Reply::LSeek(LseekOut { offset }))
}

pub(super) fn fallocate<F: FileSystem>(
    call: &Call<'_, F>,
    args: &FallocateIn,
    room: &mut Room<'_>,
) -> Answer {
    if args.length == 0 {
        return Err(Errno::EINVAL.into());
    }
    check_range(args.offset, args.length, Errno::EFBIG)?;
    done(call.fs.fallocate(&call.cx, call.node, args), room)
}

pub(super) fn copy_file_range<F: FileSystem>(
    call: &Call<'_, F>,
    args: &CopyFileRangeIn,
    room: &mut Room<'_>,
) -> Answer {
    let args = CopyFileRangeIn {
        len: args.len.min(MAX_COPY),
        ..*args
    };
    let copied = copy(call, &args)?;
    let size = u32::try_from(copied).map_err(|_| Errno::EIO)?;
    room.reply(&Reply::Write(WriteOut { size, padding: 0 }))
}

pub(super) fn copy_file_range_64<F: FileSystem>(
    call: &Call<'_, F>,
    args: &CopyFileRangeIn,
    room: &mut Room<'_>,
) -> Answer {
    let bytes_copied = copy(call, args)?;
    room.reply(&Reply::CopyFileRange64(CopyFileRangeOut { bytes_copied }))
}

fn copy<F: FileSystem>(call: &Call<'_, F>, args: &CopyFileRangeIn) -> Result<u64, Failure> {
    if args.flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    check_range(args.off_in, args.len, Errno::EINVAL)?;
    check_range(args.off_out, args.len, Errno::EFBIG)?;
    let copied = call.fs.copy_file_range(&call.cx, call.node, args)?;
    if copied > args.len {
        return Err(Failure::Fault(
            "copy_file_range: more was copied than was asked for",
        ));
    }
    Ok(copied)
}

pub(super) fn ioctl<F: FileSystem>(
    call: &Call<'_, F>,
    args: &IoctlIn,
    data: &[u8],
    room: &mut Room<'_>,
) -> Answer {
    const HEAD: usize = size_of::<IoctlOut>();

    room.fill(HEAD.saturating_add(MAX_IOCTL_OUT), |body| {
        let (head, buffer) = body.split_first_chunk_mut::<HEAD>().ok_or(Errno::EINVAL)?;
        let max = clamp(args.out_size, buffer.len());
        let buffer = buffer.get_mut(..max).unwrap_or_default();
        let args = IoctlIn {
            out_size: size_of_len(max),
            ..*args
        };
        let (out, len) = call.fs.ioctl(&call.cx, call.node, &args, data, buffer)?;
        if len > max {
            return Err(Failure::Fault(
                "ioctl: the output is longer than its buffer",
            ));
        }
        head.copy_from_slice(out.as_bytes());
        Ok(HEAD.saturating_add(len))
    })
}

pub(super) fn poll<F: FileSystem>(
    call: &Call<'_, F>,
    args: &PollIn,
    room: &mut Room<'_>,
) -> Answer {
    let revents = call.fs.poll(&call.cx, call.node, args)?;
    room.reply(&Reply::Poll(PollOut {
        revents,
        padding: 0,
    }))
}
