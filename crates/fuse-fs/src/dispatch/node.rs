//! One inode: its attributes, its target, its extended attributes.

use fuse_wire::abi::{GetattrIn, GetxattrIn, GetxattrOut, SetattrIn, SetxattrIn};
use fuse_wire::flags::{GetattrFlags, InitFlags, SetattrValid};
use fuse_wire::{Errno, LookupName, Reply, XattrName};

use super::{Answer, Call, Failure, Room, check_range, clamp, done, entry};
use crate::{FileSystem, Result};

/// Longest value of an extended attribute, and longest list of names (`XATTR_SIZE_MAX`,
/// `XATTR_LIST_MAX`).
const XATTR_MAX: usize = 64 * 1024;
/// `XATTR_CREATE` and `XATTR_REPLACE` of setxattr(2).
const XATTR_FLAGS: u32 = 1 | 2;
/// Room for the longest target of a symbolic link (`PATH_MAX`).
const TARGET_MAX: usize = 4096;
const NANOS_PER_SEC: u32 = 1_000_000_000;

pub(super) fn lookup<F: FileSystem>(
    call: &Call<'_, F>,
    name: LookupName<'_>,
    room: &mut Room<'_>,
) -> Answer {
    let &Call {
        fs,
        ref cx,
        node,
        agreement,
        ..
    } = call;
    let exported = agreement.flags.contains(InitFlags::EXPORT_SUPPORT);
    let found = match name {
        LookupName::Child(name) => fs.lookup(cx, node, name)?,
        LookupName::Current if exported => fs.lookup_self(cx, node)?,
        LookupName::Parent if exported => fs.lookup_parent(cx, node)?,
        LookupName::Current | LookupName::Parent => return Err(Errno::EINVAL.into()),
    };
    entry(fs, found, room)
}

pub(super) fn getattr<F: FileSystem>(
    call: &Call<'_, F>,
    args: &GetattrIn,
    room: &mut Room<'_>,
) -> Answer {
    let handle = args
        .getattr_flags
        .contains(GetattrFlags::FH)
        .then_some(args.fh);
    let attributes = call.fs.getattr(&call.cx, call.node, handle)?;
    room.reply(&Reply::Attr(attributes.into()))
}

pub(super) fn setattr<F: FileSystem>(
    call: &Call<'_, F>,
    args: &SetattrIn,
    room: &mut Room<'_>,
) -> Answer {
    check_setattr(args)?;
    let attributes = call.fs.setattr(&call.cx, call.node, args)?;
    room.reply(&Reply::Attr(attributes.into()))
}

fn check_setattr(args: &SetattrIn) -> std::result::Result<(), Failure> {
    if args.valid.contains(SetattrValid::SIZE) {
        check_range(args.size, 0, Errno::EINVAL)?;
    }
    for (given, now, nanos) in [
        (SetattrValid::ATIME, SetattrValid::ATIME_NOW, args.atimensec),
        (SetattrValid::MTIME, SetattrValid::MTIME_NOW, args.mtimensec),
        (SetattrValid::CTIME, SetattrValid::empty(), args.ctimensec),
    ] {
        let counts = args.valid.contains(given) && !args.valid.intersects(now);
        if counts && nanos >= NANOS_PER_SEC {
            return Err(Errno::EINVAL.into());
        }
    }
    Ok(())
}

pub(super) fn readlink<F: FileSystem>(call: &Call<'_, F>, room: &mut Room<'_>) -> Answer {
    room.fill(TARGET_MAX, |buffer| {
        Ok(call.fs.readlink(&call.cx, call.node, buffer)?)
    })
}

pub(super) fn setxattr<F: FileSystem>(
    call: &Call<'_, F>,
    args: &SetxattrIn,
    name: XattrName<'_>,
    value: &[u8],
    room: &mut Room<'_>,
) -> Answer {
    if value.len() > XATTR_MAX {
        return Err(Errno::E2BIG.into());
    }
    if args.flags & !XATTR_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let &Call {
        fs, ref cx, node, ..
    } = call;
    let how = args.setxattr_flags;
    done(fs.setxattr(cx, node, name, value, args.flags, how), room)
}

pub(super) fn getxattr<F: FileSystem>(
    call: &Call<'_, F>,
    args: &GetxattrIn,
    name: XattrName<'_>,
    room: &mut Room<'_>,
) -> Answer {
    xattr_reply(args, room, |buffer| {
        call.fs.getxattr(&call.cx, call.node, name, buffer)
    })
}

pub(super) fn listxattr<F: FileSystem>(
    call: &Call<'_, F>,
    args: &GetxattrIn,
    room: &mut Room<'_>,
) -> Answer {
    xattr_reply(args, room, |buffer| {
        call.fs.listxattr(&call.cx, call.node, buffer)
    })
}

/// Answers with what `fill` puts into a buffer as large as the guest asked for, or with its size.
fn xattr_reply(
    args: &GetxattrIn,
    room: &mut Room<'_>,
    fill: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Answer {
    if args.size == 0 {
        let len = fill(&mut [])?;
        let size = u32::try_from(len).map_err(|_| Errno::E2BIG)?;
        return room.reply(&Reply::XattrSize(GetxattrOut { size, padding: 0 }));
    }
    room.fill(clamp(args.size, XATTR_MAX), |buffer| {
        let max = buffer.len();
        match fill(buffer)? {
            len if len <= max => Ok(len),
            _ => Err(Errno::ERANGE.into()),
        }
    })
}
