//! The directories above inodes that are opened again by name.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use fuse_fs::{Errno, Result};
use rustix::fs::{Mode, OFlags};

use crate::PassthroughFs;
use crate::attr::{identity, stat_fd};
use crate::inode_table::{Identity, Inode};
use crate::lookup::RESOLVE;
use crate::pin::{Pin, Pinned};

/// Directories that lead to inodes which the guest knows. It may know them, too, and that may be
/// told later.
#[derive(Debug, Default)]
pub(super) struct Above {
    /// Those of which it was not told that the guest knows them.
    unknown: HashMap<Identity, Arc<Inode>>,
    /// Those on the way to what came last, each with the length of its path.
    trail: Vec<(usize, Arc<Inode>)>,
    /// The path of what came last.
    last: Vec<u8>,
}

impl Above {
    /// The directory with this identity, which the guest knows, as it turns out.
    pub(super) fn take(&mut self, identity: &Identity) -> Option<Arc<Inode>> {
        self.unknown.remove(identity)
    }

    /// The directory that `path` is in, and its name there.
    pub(super) fn of(
        &mut self,
        fs: &PassthroughFs,
        root: &Pinned,
        path: &[u8],
    ) -> Result<Option<(Arc<Inode>, CString)>> {
        let Some(name) = path.rsplit(|&byte| byte == b'/').next() else {
            return Ok(None);
        };
        let equal = self.last.iter().zip(path).take_while(|(a, b)| a == b);
        let equal = equal.count();
        self.trail.retain(|&(len, _)| len < equal);
        let ends = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
        let known = self.trail.last().map_or(0, |&(len, _)| len);
        for (end, _) in ends.filter(|&(end, _)| end > known) {
            let parent = self.trail.last().map_or(&root.inode, |(_, inode)| inode);
            let here = path.get(..end).unwrap_or_default();
            let directory = self.directory(fs, root, &Arc::clone(parent), here)?;
            self.trail.push((end, directory));
        }
        self.last.clear();
        self.last.extend_from_slice(path);
        let parent = self.trail.last().map_or(&root.inode, |(_, inode)| inode);
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        Ok(Some((Arc::clone(parent), name)))
    }

    /// The directory `path` in `parent`.
    fn directory(
        &mut self,
        fs: &PassthroughFs,
        root: &Pinned,
        parent: &Arc<Inode>,
        path: &[u8],
    ) -> Result<Arc<Inode>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat2(root, path, flags, Mode::empty(), RESOLVE);
        let fd = fs.with_descriptor(open)?;
        let stat = stat_fd(&fd)?;
        let identity = identity(&stat);
        if let Some(known) = fs.inodes.find(&identity) {
            return Ok(known.inode);
        }
        if let Some(unknown) = self.unknown.get(&identity) {
            return Ok(Arc::clone(unknown));
        }
        let arrival = fs.inodes.arrival().ok_or(Errno::ENFILE)?;
        let volume = fs.volumes.find(&fd, &stat, &fs.proc);
        let inode = Arc::new(Inode::new(Some(arrival), &stat, volume, Pin::cold()));
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        fs.moves.seen(&inode, parent, &name);
        if !inode.can_be_reopened(&fd) {
            return Err(Errno::ESTALE.into());
        }
        self.unknown.insert(identity, Arc::clone(&inode));
        Ok(inode)
    }
}

impl Drop for Above {
    /// What the guest does not know is there for what is below it.
    fn drop(&mut self) {
        for inode in self.unknown.values() {
            drop(inode.pin.forget());
        }
    }
}
