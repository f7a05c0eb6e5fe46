//! A directory of the host with all that is in it, in terms that two copies share.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, SeekFrom};

use crate::answer::Facts;

/// Bytes that are looked at together.
const BLOCK: usize = 4096;

/// Every path below a directory, with what is there.
pub type Tree = BTreeMap<PathBuf, File>;

#[derive(Debug, PartialEq, Eq)]
pub struct File {
    facts: Facts,
    /// The first path that leads to the same inode.
    same_as: PathBuf,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    target: Option<PathBuf>,
    /// The blocks that are not all zeros, by offset.
    content: BTreeMap<u64, Vec<u8>>,
}

/// Reads the tree at `root`. What may not be read, which is the same on both sides, is made so:
/// read it last.
pub fn read(root: &Path) -> Tree {
    let (mut tree, mut first) = (Tree::new(), HashMap::new());
    read_into(root, Path::new(""), &mut tree, &mut first);
    tree
}

fn read_into(root: &Path, below: &Path, tree: &mut Tree, first: &mut HashMap<u64, PathBuf>) {
    let path = root.join(below);
    let stat = rustix::fs::lstat(&path).unwrap();
    let metadata = path.symlink_metadata().unwrap();
    let same_as = first.entry(metadata.ino()).or_insert(below.to_owned());
    let mut file = File {
        facts: Facts::from(&stat),
        same_as: same_as.clone(),
        xattrs: Vec::new(),
        target: path.read_link().ok(),
        content: BTreeMap::new(),
    };
    if metadata.is_dir() || metadata.is_file() {
        let access = if metadata.is_dir() { 0o700 } else { 0o600 };
        let mode = std::fs::Permissions::from_mode(metadata.mode() | access);
        std::fs::set_permissions(&path, mode).unwrap();
        file.xattrs = xattrs(&path);
    }
    if metadata.is_file() {
        file.content = content(&path);
    }
    tree.insert(below.to_owned(), file);
    if metadata.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            read_into(root, &below.join(name), tree, first);
        }
    }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split_inclusive(|&byte| byte == 0);
    let mut all: Vec<_> = names
        .map(|name| {
            let name = std::ffi::CStr::from_bytes_with_nul(name).unwrap();
            let mut value = vec![0; 1 << 16];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(len);
            (name.to_bytes().to_vec(), value)
        })
        .collect();
    all.sort();
    all
}

/// Skips the holes, which may be large.
fn content(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let file = std::fs::File::from(file);
    let mut blocks = BTreeMap::new();
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
        let hole = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(data)).unwrap();
        at = data - data % BLOCK as u64;
        while at < hole {
            let mut block = vec![0; BLOCK];
            let len = file.read_at(&mut block, at).unwrap();
            block.truncate(len);
            if block.iter().any(|&byte| byte != 0) {
                blocks.insert(at, block);
            }
            at += BLOCK as u64;
        }
    }
    blocks
}
