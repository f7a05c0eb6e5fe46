//! Finding files by looking everywhere: what a descriptor is known by may have been removed, while
//! there are other names.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;

use fuse_fs::NodeId;
use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::PassthroughFs;
use crate::attr::{identity, stat_name};
use crate::inode_table::Identity;
use crate::lookup::RESOLVE;

/// Looks below `root` for files that are `wanted`, tells the path of each and takes it out. What
/// cannot be looked at is left out.
pub(super) fn search(
    fs: &PassthroughFs,
    root: impl AsFd,
    wanted: &mut HashMap<Identity, NodeId>,
    mut found: impl FnMut(NodeId, CString) -> io::Result<()>,
) -> io::Result<()> {
    let numbers: HashSet<u64> = wanted.keys().map(|identity| identity.ino).collect();
    // Directories that are yet to be looked through.
    let mut directories = vec![Vec::new()];
    while !wanted.is_empty()
        && let Some(path) = directories.pop()
    {
        for entry in entries(fs, &root, &path) {
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = join(&path, name);
            if entry.file_type() == FileType::Directory {
                directories.push(path);
            } else if numbers.contains(&entry.ino())
                && let Ok(path) = CString::new(path)
                && let Ok(stat) = stat_name(&root, &path)
                && let Some(node) = wanted.remove(&identity(&stat))
            {
                found(node, path)?;
            }
        }
    }
    Ok(())
}

/// What is in the directory `path`.
fn entries(
    fs: &PassthroughFs,
    root: impl AsFd,
    path: &[u8],
) -> impl Iterator<Item = rustix::fs::DirEntry> {
    let path = match path {
        b"" => b".",
        path => path,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(&root, path, flags, Mode::empty(), RESOLVE);
    let directory = fs.with_descriptor(open).and_then(Dir::new);
    directory.into_iter().flatten().map_while(Result::ok)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        directory => [directory, name].join(&b'/'),
    }
}
