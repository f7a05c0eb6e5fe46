//! Operations that are sequences of requests, or that are made one at a time.

use std::ffi::CStr;

use fuse_wire::abi::{CopyFileRangeIn, EntryOut, SetattrIn, StatxIn};
use fuse_wire::flags::{RenameFlags, SetattrValid};
use fuse_wire::{NodeId, Operation};
use virtio_fs_guest::{Error, Mount, Payload};

use crate::session::Files;

/// `O_RDWR` of open(2), as the guest's kernel passes it on.
pub(crate) const RDWR: u32 = 2;
/// An attribute that the plain file has.
pub(crate) const XATTR: &CStr = c"user.name";
/// Bytes asked for in a READDIRPLUS, as much as Linux asked for until 6.12.
const LISTING: u32 = 4096;
/// Bytes allocated or copied at once.
const RANGE: u64 = 64 << 10;
/// `STATX_BASIC_STATS` and `STATX_BTIME` of statx(2).
const STATX_MASK: u32 = 0xfff;
/// `SEEK_DATA` of lseek(2).
const SEEK_DATA: u32 = 3;
const ROOT: NodeId = NodeId::ROOT;

pub(crate) fn statx(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let args = StatxIn {
        sx_mask: STATX_MASK,
        ..StatxIn::default()
    };
    let operation = Operation::Statx(args);
    mount
        .call(files.plain, operation, Payload::None)?
        .result()?;
    Ok(())
}

pub(crate) fn chmod(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let args = SetattrIn {
        valid: SetattrValid::MODE,
        mode: 0o640,
        ..SetattrIn::default()
    };
    mount.setattr(files.plain, args).map(drop)
}

pub(crate) fn utimens(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let args = SetattrIn {
        valid: SetattrValid::ATIME | SetattrValid::MTIME,
        ..SetattrIn::default()
    };
    mount.setattr(files.plain, args).map(drop)
}

/// Without a handle, as truncate(2).
pub(crate) fn truncate(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let args = SetattrIn {
        valid: SetattrValid::SIZE,
        size: 5,
        ..SetattrIn::default()
    };
    mount.setattr(files.plain, args).map(drop)
}

pub(crate) fn getxattr(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    mount.getxattr(files.plain, XATTR).map(drop)
}

pub(crate) fn setxattr(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    mount.setxattr(files.plain, XATTR, b"value", 0)
}

pub(crate) fn open_and_release(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let opened = mount.open(files.plain, RDWR)?;
    mount.release(files.plain, opened.fh)
}

/// CREATE, FLUSH, RELEASE, UNLINK, FORGET.
pub(crate) fn create_and_unlink(mount: &mut Mount, _: &Files) -> Result<(), Error> {
    let (EntryOut { nodeid, .. }, opened) = mount.create(ROOT, c"new", RDWR, 0o644)?;
    mount.flush(nodeid, opened.fh, 1)?;
    mount.release(nodeid, opened.fh)?;
    mount.unlink(ROOT, c"new")?;
    mount.forget(nodeid, 1)
}

/// TMPFILE, RELEASE, FORGET.
pub(crate) fn tmpfile(mount: &mut Mount, _: &Files) -> Result<(), Error> {
    let (entry, opened) = mount.tmpfile(ROOT, RDWR, 0o600)?;
    mount.release(entry.nodeid, opened.fh)?;
    mount.forget(entry.nodeid, 1)
}

pub(crate) fn mkdir_and_rmdir(mount: &mut Mount, _: &Files) -> Result<(), Error> {
    let node = mount.mkdir(ROOT, c"dir", 0o755)?.nodeid;
    mount.rmdir(ROOT, c"dir")?;
    mount.forget(node, 1)
}

/// SYMLINK, READLINK, UNLINK, FORGET.
pub(crate) fn symlink_and_readlink(mount: &mut Mount, _: &Files) -> Result<(), Error> {
    let node = mount.symlink(ROOT, c"link", c"target")?.nodeid;
    mount.readlink(node)?;
    mount.unlink(ROOT, c"link")?;
    mount.forget(node, 1)
}

pub(crate) fn link_and_unlink(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    mount.link(files.plain, ROOT, c"second")?;
    mount.unlink(ROOT, c"second")?;
    mount.forget(files.plain, 1)
}

/// There and back.
pub(crate) fn rename(mount: &mut Mount, _: &Files) -> Result<(), Error> {
    let none = RenameFlags::empty();
    mount.rename((ROOT, c"plain"), (ROOT, c"renamed"), none)?;
    mount.rename((ROOT, c"renamed"), (ROOT, c"plain"), none)
}

/// READDIRPLUS until the end of a directory of [`ENTRIES`](crate::rows::ENTRIES).
pub(crate) fn readdirplus(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let directory = files.listed;
    let mut offset = 0;
    while let Some(last) = mount
        .readdirplus(directory.node, directory.handle, offset, LISTING)?
        .last()
    {
        offset = last.off;
    }
    Ok(())
}

pub(crate) fn lseek(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let file = files.data;
    mount.lseek(file.node, file.handle, 0, SEEK_DATA).map(drop)
}

pub(crate) fn fallocate(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let file = files.data;
    mount.fallocate(file.node, file.handle, 0..RANGE, 0)
}

pub(crate) fn copy_file_range(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    let args = CopyFileRangeIn {
        fh_in: files.data.handle,
        off_in: 0,
        nodeid_out: files.copy.node,
        fh_out: files.copy.handle,
        off_out: 0,
        len: RANGE,
        flags: 0,
    };
    mount.copy_file_range(files.data.node, args).map(drop)
}
