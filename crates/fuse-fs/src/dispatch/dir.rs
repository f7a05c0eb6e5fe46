//! Directories: their listings, and renames between them.

use fuse_wire::abi::ReadIn;
use fuse_wire::flags::RenameFlags;
use fuse_wire::{DirentPlusWriter, DirentWriter, Errno, Name};

use super::{Answer, Call, Room, clamp, done, size_of_len};
use crate::{FileSystem, NodeId};

/// What renameat2(2) defines.
const RENAME_FLAGS: RenameFlags = RenameFlags::NOREPLACE
    .union(RenameFlags::EXCHANGE)
    .union(RenameFlags::WHITEOUT);

/// Renames the first of `names` to the second. An unknown flag changes what the guest means, so it
/// is refused, never dropped.
pub(super) fn rename<F: FileSystem>(
    call: &Call<'_, F>,
    names: [Name<'_>; 2],
    new_parent: NodeId,
    flags: RenameFlags,
    room: &mut Room<'_>,
) -> Answer {
    let exchange_and_more = flags.contains(RenameFlags::EXCHANGE) && flags != RenameFlags::EXCHANGE;
    if exchange_and_more || !RENAME_FLAGS.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let &Call {
        fs, ref cx, node, ..
    } = call;
    let [name, new_name] = names;
    done(fs.rename(cx, node, name, new_parent, new_name, flags), room)
}

pub(super) fn readdir<F: FileSystem>(
    call: &Call<'_, F>,
    args: &ReadIn,
    room: &mut Room<'_>,
) -> Answer {
    room.fill(clamp(args.size, usize::MAX), |buffer| {
        let args = with_size(args, buffer.len());
        let mut entries = DirentWriter::new(buffer);
        call.fs.readdir(&call.cx, call.node, &args, &mut entries)?;
        Ok(entries.len())
    })
}

pub(super) fn readdirplus<F: FileSystem>(
    call: &Call<'_, F>,
    args: &ReadIn,
    room: &mut Room<'_>,
) -> Answer {
    room.fill(clamp(args.size, usize::MAX), |buffer| {
        let args = with_size(args, buffer.len());
        let mut entries = DirentPlusWriter::new(buffer);
        let Call { fs, cx, node, .. } = call;
        fs.readdirplus(cx, *node, &args, &mut entries)?;
        Ok(entries.len())
    })
}

fn with_size(args: &ReadIn, len: usize) -> ReadIn {
    ReadIn {
        size: size_of_len(len),
        ..*args
    }
}
