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

/// Most bytes that directories take which are yet to be looked through: a guest can make as many as
/// the share has room for.
const MAX_PENDING: usize = 64 << 20;

/// Looks below `root` for files that are `wanted`, tells the path of each and takes it out. What
/// cannot be looked at is left out.
pub(super) fn search(
    fs: &PassthroughFs,
    root: impl AsFd,
    wanted: &mut HashMap<Identity, NodeId>,
    mut found: impl FnMut(NodeId, CString) -> io::Result<()>,
) -> io::Result<()> {
    let numbers: HashSet<u64> = wanted.keys().map(|identity| identity.ino).collect();
    let mut directories = Pending::default();
    directories.push(Vec::new());
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

/// Directories that are yet to be looked through.
#[derive(Debug, Default)]
struct Pending {
    paths: Vec<Vec<u8>>,
    bytes: usize,
    /// Whether some were left out.
    is_cut: bool,
}

impl Pending {
    /// Adds one, unless there are too many.
    fn push(&mut self, path: Vec<u8>) {
        let bytes = self.bytes.saturating_add(bytes_of(&path));
        if bytes > MAX_PENDING {
            if !std::mem::replace(&mut self.is_cut, true) {
                tracing::warn!(
                    "there are too many directories to look through all of them for files of \
                     which no path is known"
                );
            }
            return;
        }
        self.bytes = bytes;
        self.paths.push(path);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let path = self.paths.pop()?;
        self.bytes = self.bytes.saturating_sub(bytes_of(&path));
        Some(path)
    }
}

fn bytes_of(path: &Vec<u8>) -> usize {
    path.len().saturating_add(size_of_val(path))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_bounded() {
        let mut pending = Pending::default();
        let path = vec![b'x'; 1000];
        for _ in 0..2 * MAX_PENDING / path.len() {
            pending.push(path.clone());
        }
        let there = pending.paths.len();
        assert!(there > MAX_PENDING / 1100 && there <= MAX_PENDING / path.len());
        assert!(pending.is_cut);
        // There is room again behind each that was looked through.
        assert_eq!(pending.pop(), Some(path.clone()));
        pending.push(path);
        assert_eq!(pending.paths.len(), there);
        while pending.pop().is_some() {}
        assert_eq!(pending.bytes, 0);
    }
}
