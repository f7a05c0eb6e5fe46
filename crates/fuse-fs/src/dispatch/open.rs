//! Opening and creating files.

use std::time::Duration;

use fuse_wire::abi::{CreateIn, OpenIn};
use fuse_wire::{Errno, Name, Reply};
use rustix::fs::OFlags;

use super::{Answer, Call, Failure, Room};
use crate::{Entry, FileSystem, NodeId, Opened};

/// What makes open(2) create a file without a name, but for O_DIRECTORY.
const NAMELESS: OFlags = OFlags::TMPFILE.difference(OFlags::DIRECTORY);

// Flags that Linux never leaves in a request, and that a filesystem which hands the flags on to the
// host must not meet. With O_PATH, O_CREAT and O_EXCL do not count: CREATE would open whatever a
// symbolic link points to.

/// Those of OPEN and OPENDIR: what creates something, too.
const NOT_IN_OPEN: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::NOCTTY)
    .union(NAMELESS)
    .union(OFlags::PATH);
/// Those of CREATE.
const NOT_IN_CREATE: OFlags = NAMELESS.union(OFlags::PATH);
/// Those of TMPFILE.
const NOT_IN_TMPFILE: OFlags = OFlags::PATH;

/// How long a guest may believe that a file without a name has none: for ever. Linux gives it a
/// dentry called "/", which overlayfs goes on using when it has linked the file; when its time is up,
/// Linux would look that name up, find no such thing, and take the file for stale.
const NAMELESS_VALID: Duration = Duration::from_secs(u32::MAX as u64);

pub(super) fn open<F: FileSystem>(
    call: &Call<'_, F>,
    args: &OpenIn,
    room: &mut Room<'_>,
) -> Answer {
    check_flags(args.flags, NOT_IN_OPEN)?;
    let opened = call.fs.open(&call.cx, call.node, args)?;
    room.reply(&Reply::Open(opened.into()))
}

pub(super) fn opendir<F: FileSystem>(
    call: &Call<'_, F>,
    args: &OpenIn,
    room: &mut Room<'_>,
) -> Answer {
    check_flags(args.flags, NOT_IN_OPEN)?;
    let opened = call.fs.opendir(&call.cx, call.node, args)?;
    room.reply(&Reply::Open(opened.into()))
}

fn check_flags(flags: u32, forbidden: OFlags) -> Result<(), Failure> {
    if OFlags::from_bits_retain(flags).intersects(forbidden) {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

pub(super) fn create<F: FileSystem>(
    call: &Call<'_, F>,
    args: &CreateIn,
    name: Name<'_>,
    room: &mut Room<'_>,
) -> Answer {
    check_flags(args.flags, NOT_IN_CREATE)?;
    let created = call.fs.create(&call.cx, call.node, name, args)?;
    created_reply(call, created, room)
}

pub(super) fn tmpfile<F: FileSystem>(
    call: &Call<'_, F>,
    args: &CreateIn,
    room: &mut Room<'_>,
) -> Answer {
    check_flags(args.flags, NOT_IN_TMPFILE)?;
    let (mut entry, opened) = call.fs.tmpfile(&call.cx, call.node, args)?;
    entry.entry_valid = NAMELESS_VALID;
    created_reply(call, (entry, opened), room)
}

fn created_reply<F: FileSystem>(
    call: &Call<'_, F>,
    (entry, opened): (Entry, Opened),
    room: &mut Room<'_>,
) -> Answer {
    let outcome = room.reply(&Reply::Create(entry.into(), opened.into()));
    if outcome.is_err() && entry.node != NodeId::NEGATIVE {
        call.fs.forget(entry.node, 1);
    }
    outcome
}
