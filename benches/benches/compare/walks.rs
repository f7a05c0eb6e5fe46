//! Operations of as many requests as the replies call for, one at a time.

use std::ffi::CString;

use fuse_wire::abi::{SetattrIn, WriteIn};
use fuse_wire::flags::SetattrValid;
use fuse_wire::{NodeId, Operation};
use virtio_fs_guest::{Error, Mount, Payload};

use crate::drive::forget;
use crate::served::Files;
use crate::site::{self, LARGE, TREE, UNTAR_DIRECTORIES, UNTAR_FILES};
use crate::steps::{RDWR, SMALL};

/// Bytes asked for in a READDIR or READDIRPLUS, as much as Linux asked for until 6.12.
const LISTING: u32 = 4096;
/// `DT_DIR` of readdir(3).
const DIRECTORY: u32 = 4;
const ROOT: NodeId = NodeId::ROOT;

/// READDIRPLUS until the end of the small directory.
pub(crate) fn list_with_attributes(mount: &mut Mount, files: &Files) -> Result<(), Error> {
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

/// LOOKUP of the large directory, OPENDIR, READDIR until the end, RELEASEDIR, FORGET.
pub(crate) fn list(mount: &mut Mount, _: &Files) -> Result<(), Error> {
    let node = mount.lookup(ROOT, &name(LARGE))?.nodeid;
    let handle = mount.opendir(node)?.fh;
    let mut offset = 0;
    while let Some(last) = mount.readdir(node, handle, offset, LISTING)?.last() {
        offset = last.off;
    }
    mount.releasedir(node, handle)?;
    forget(mount.connection().hiprio(), node)
}

/// Of each directory of the tree LOOKUP, OPENDIR, READDIRPLUS until the end, RELEASEDIR; then
/// FORGET of all that was found.
pub(crate) fn tree(mount: &mut Mount, _: &Files) -> Result<(), Error> {
    let mut directories = vec![mount.lookup(ROOT, &name(TREE))?.nodeid];
    while let Some(directory) = directories.pop() {
        let handle = mount.opendir(directory)?.fh;
        let mut offset = 0;
        loop {
            let entries = mount.readdirplus(directory, handle, offset, LISTING)?;
            let Some(last) = entries.last() else { break };
            offset = last.off;
            for entry in &entries {
                let Some(found) = entry.entry.filter(|e| e.nodeid != NodeId::NEGATIVE) else {
                    continue;
                };
                match entry.dirent_type {
                    // Looked up; a guest keeps it until it has listed it.
                    DIRECTORY => directories.push(found.nodeid),
                    _ => forget(mount.connection().hiprio(), found.nodeid)?,
                }
            }
        }
        mount.releasedir(directory, handle)?;
        forget(mount.connection().hiprio(), directory)?;
    }
    Ok(())
}

/// Of each file of a small tree CREATE, WRITE, SETATTR of mode and times, FLUSH, RELEASE, and
/// MKDIR of the directories. Then all is removed again: UNLINK, RMDIR, FORGET.
pub(crate) fn untar(mount: &mut Mount, files: &Files) -> Result<(), Error> {
    for n in 0..UNTAR_DIRECTORIES {
        let directory_name = name(&site::untar_directory(n));
        let directory = mount.mkdir(files.work, &directory_name, 0o755)?.nodeid;
        let mut made = [NodeId::NEGATIVE; UNTAR_FILES];
        for (n, node) in made.iter_mut().enumerate() {
            *node = extract(mount, directory, &name(&site::untar_file(n)))?;
        }
        for (n, &node) in made.iter().enumerate() {
            mount.unlink(directory, &name(&site::untar_file(n)))?;
            forget(mount.connection().hiprio(), node)?;
        }
        mount.rmdir(files.work, &directory_name)?;
        forget(mount.connection().hiprio(), directory)?;
    }
    Ok(())
}

fn extract(mount: &mut Mount, directory: NodeId, name: &CString) -> Result<NodeId, Error> {
    let (entry, opened) = mount.create(directory, name, RDWR, 0o600)?;
    let node = entry.nodeid;
    let args = WriteIn {
        fh: opened.fh,
        size: SMALL,
        ..WriteIn::default()
    };
    let payload = Payload::Stale(SMALL as usize);
    mount
        .call(node, Operation::Write(args), payload)?
        .result()?;
    for args in [
        SetattrIn {
            valid: SetattrValid::MODE,
            mode: 0o644,
            ..SetattrIn::default()
        },
        SetattrIn {
            valid: SetattrValid::ATIME | SetattrValid::MTIME,
            ..SetattrIn::default()
        },
    ] {
        mount.setattr(node, args)?;
    }
    mount.flush(node, opened.fh, 1)?;
    mount.release(node, opened.fh)?;
    Ok(node)
}

fn name(name: &str) -> CString {
    CString::new(name).expect("ours have no NUL")
}
