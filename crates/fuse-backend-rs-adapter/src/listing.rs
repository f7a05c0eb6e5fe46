//! Directory listings: from the calls of a call-back to our writers.

use std::io;

use fuse_backend_rs::api::filesystem::{Context, DirEntry, Entry, FileSystem};
use fuse_fs::abi::{EntryOut, ReadIn};
use fuse_fs::{DirentPlusWriter, DirentWriter, Errno, NodeId};

use crate::convert;

/// Lists `node`.
///
/// # Errors
/// EINVAL where not even one entry fits, or for a cookie that cannot be one.
pub(crate) fn readdir<F: FileSystem>(
    fs: &F,
    cx: &Context,
    node: NodeId,
    args: &ReadIn,
    entries: &mut DirentWriter<'_>,
) -> io::Result<()> {
    check_cookie(args.offset)?;
    let (node, handle) = (node.0.into(), args.fh.0.into());
    let mut full = false;
    let result = fs.readdir(cx, node, handle, args.size, args.offset, &mut |found| {
        let before = entries.len();
        if full || !entries.push(found.ino, found.offset, found.type_, found.name) {
            full = true;
            return Err(no_room());
        }
        Ok(entries.len().saturating_sub(before))
    });
    end_of_list(entries.is_empty(), full, result)
}

/// Lists `node` and looks up what it lists.
///
/// # Errors
/// As [`readdir`].
pub(crate) fn readdirplus<F: FileSystem>(
    fs: &F,
    cx: &Context,
    node: NodeId,
    args: &ReadIn,
    entries: &mut DirentPlusWriter<'_>,
) -> io::Result<()> {
    check_cookie(args.offset)?;
    let (node, handle) = (node.0.into(), args.fh.0.into());
    let mut full = false;
    // Inodes whose lookup the guest does not learn of. They are given back later: the filesystem
    // may hold a lock while it lists.
    let mut unseen = Vec::new();
    let size = args.size;
    let result = fs.readdirplus(cx, node, handle, size, args.offset, &mut |found, entry| {
        let before = entries.len();
        if full || !push(entries, &found, entry) {
            full = true;
            unseen.push(entry.inode);
            return Err(no_room());
        }
        if is_dots(found.name) {
            unseen.push(entry.inode);
        }
        Ok(entries.len().saturating_sub(before))
    });
    for inode in unseen {
        if inode != NodeId::NEGATIVE.0 {
            fs.forget(cx, inode.into(), 1);
        }
    }
    end_of_list(entries.is_empty(), full, result)
}

/// Whether `found` fits. `.` and `..` are told without a node id, as the guest counts no lookup of
/// theirs.
fn push(entries: &mut DirentPlusWriter<'_>, found: &DirEntry<'_>, entry: Entry) -> bool {
    let mut entry = EntryOut::from(convert::entry(entry));
    if is_dots(found.name) {
        entry.nodeid = NodeId::NEGATIVE;
    }
    entries.push(entry, found.ino, found.offset, found.type_, found.name)
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// A cookie is a position to lseek(2), and never negative. One that is would overflow where
/// filesystems count with it.
fn check_cookie(offset: u64) -> io::Result<()> {
    if i64::try_from(offset).is_err() {
        return Err(errno(Errno::EINVAL));
    }
    Ok(())
}

/// What the call-back says to stop the filesystem. It does so by an error, as filesystems do not
/// agree on who gives the lookup back after a 0: the passthrough does it itself, the overlay does
/// not. After an error neither does.
fn no_room() -> io::Error {
    errno(Errno::EINVAL)
}

/// An error counts only where nothing was listed: else the guest asks for the rest again, and meets
/// it then.
fn end_of_list(empty: bool, full: bool, result: io::Result<()>) -> io::Result<()> {
    match result {
        _ if !empty => Ok(()),
        // Nothing at all would be the end of the directory.
        _ if full => Err(no_room()),
        result => result,
    }
}

fn errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw())
}
