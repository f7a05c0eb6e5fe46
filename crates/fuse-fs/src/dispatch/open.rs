//! Opening and creating files.

use fuse_wire::abi::{CreateIn, OpenIn};
use fuse_wire::{Errno, Name, Reply};
use rustix::fs::OFlags;

use super::{Answer, Call, Failure, Room};
use crate::{Entry, FileSystem, NodeId, Opened};

/// Flags that make open(2) create something. Linux never leaves them in OPEN or OPENDIR, and a
/// filesystem that hands the flags on to the host must not meet them.
const CREATING: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::NOCTTY)
    .union(OFlags::TMPFILE.difference(OFlags::DIRECTORY));

pub(super) fn open<F: FileSystem>(
    call: &Call<'_, F>,
    args: &OpenIn,
    room: &mut Room<'_>,
) -> Answer {
    check_flags(args)?;
    let opened = call.fs.open(&call.cx, call.node, args)?;
    room.reply(&Reply::Open(opened.into()))
}

pub(super) fn opendir<F: FileSystem>(
    call: &Call<'_, F>,
    args: &OpenIn,
    room: &mut Room<'_>,
) -> Answer {
    check_flags(args)?;
    let opened = call.fs.opendir(&call.cx, call.node, args)?;
    room.reply(&Reply::Open(opened.into()))
}

fn check_flags(args: &OpenIn) -> Result<(), Failure> {
    if OFlags::from_bits_retain(args.flags).intersects(CREATING) {
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
    let created = call.fs.create(&call.cx, call.node, name, args)?;
    created_reply(call, created, room)
}

pub(super) fn tmpfile<F: FileSystem>(
    call: &Call<'_, F>,
    args: &CreateIn,
    room: &mut Room<'_>,
) -> Answer {
    let created = call.fs.tmpfile(&call.cx, call.node, args)?;
    created_reply(call, created, room)
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
