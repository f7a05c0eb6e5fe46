//! Where in the share a file is that is only known by a descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use fuse_fs::{Blocking, Errno, NodeId, Result};
use rustix::fs::Statx;

use crate::attr::{identity, stat_name};
use crate::inode_table::{Identity, Inode};
use crate::pin::Pinned;
use crate::{PassthroughFs, proc};

/// Most bytes of a path that the kernel takes (PATH_MAX, with the NUL).
pub(super) const MAX_PATH: usize = 4095;

/// Finds paths, relative to the root, and makes sure of each that it leads to the file.
pub(super) struct Paths<'f> {
    fs: &'f PassthroughFs,
    pub(super) root: Pinned,
    /// What comes before the path of what is below the root.
    prefix: Vec<u8>,
}

impl<'f> Paths<'f> {
    pub(super) fn new(fs: &'f PassthroughFs) -> Result<Self> {
        let root = fs.inodes.get(NodeId::ROOT).ok_or(Errno::ESTALE)?;
        let root = fs.pin(Blocking::Allowed, root)?;
        let mut prefix = shown(fs, &root)?.into_bytes();
        if prefix.last() != Some(&b'/') {
            prefix.push(b'/');
        }
        Ok(Self { fs, root, prefix })
    }

    /// The path of `inode`, of which `fd` is a descriptor. None where it has none that can be found,
    /// as when it was removed.
    pub(super) fn of(&self, inode: &Inode, fd: impl AsFd) -> Option<CString> {
        self.shown(&inode.identity, fd)
            .or_else(|| self.remembered(inode))
    }

    /// The path of the file with this identity, as the kernel shows it for `fd`: the one by which it
    /// was opened, or found.
    pub(super) fn shown(&self, identity: &Identity, fd: impl AsFd) -> Option<CString> {
        let path = shown(self.fs, fd).ok()?.into_bytes();
        let path = path.strip_prefix(&*self.prefix)?;
        self.checked(identity, CString::new(path).ok()?)
    }

    /// The path of `inode` by a name that the guest knows it by.
    fn remembered(&self, inode: &Inode) -> Option<CString> {
        let in_place = |place: crate::place::Place| {
            let fs = self.fs;
            let dir = fs.pin_directory(Blocking::Allowed, place.parent).ok()?;
            let mut path = match dir.identity == self.root.identity {
                true => Vec::new(),
                false => self.shown(&dir.identity, &dir)?.into_bytes(),
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(place.name.to_bytes());
            self.checked(&inode.identity, CString::new(path).ok()?)
        };
        inode.places.all().into_iter().find_map(in_place)
    }

    /// `path`, if it leads to the file with this identity. A symbolic link that the host puts on the
    /// way this moment is followed, but leads to another file then.
    fn checked(&self, wanted: &Identity, path: CString) -> Option<CString> {
        if path.as_bytes().len() > MAX_PATH {
            return None;
        }
        let stat: Statx = stat_name(&self.root, &path).ok()?;
        (identity(&stat) == *wanted).then_some(path)
    }
}

/// What `/proc/self/fd` shows for `fd`.
fn shown(fs: &PassthroughFs, fd: impl AsFd) -> Result<CString> {
    let name = proc::name(&fd);
    let name: &CStr = name.as_c_str();
    Ok(rustix::fs::readlinkat(fs.proc.dir(), name, Vec::new())?)
}
