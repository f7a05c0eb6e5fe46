use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use fuse_fs::{Errno, Handle, NodeId};

use crate::budget::Permit;
use crate::dir::Stream;
use crate::locks::Flock;
use crate::lost_handles::LostHandles;
use crate::open_inodes::KeptOpen;
use crate::slab::{Full, Refill, Slab, SlotImage};
use crate::volume::Volume;

/// An open regular file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) node: NodeId,
    pub(crate) fd: OwnedFd,
    pub(crate) volume: Arc<Volume>,
    pub(crate) durability: Durability,
    pub(crate) flock: Flock,
    pub(crate) _permit: Permit,
    /// What is open does not lose its inode, whatever becomes of its name.
    pub(crate) _kept_open: KeptOpen,
}

/// When a write is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// With the data in the host's page cache.
    Cached,
    /// With the data on stable storage (O_SYNC, O_DSYNC).
    Synchronous,
    /// With the data on the device, past the host's page cache (O_DIRECT). Reads pass it by, too.
    Direct,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) node: NodeId,
    pub(crate) fd: OwnedFd,
    pub(crate) volume: Arc<Volume>,
    /// Where its reader stands.
    pub(crate) stream: Mutex<Stream>,
    pub(crate) _permit: Permit,
    /// What is open does not lose its inode, whatever becomes of its name.
    pub(crate) _kept_open: KeptOpen,
}

/// The highest index of a handle that is taken up from another process: as many as a process can
/// have open, unless the host was told to allow more (`fs.nr_open` of proc(5)).
const MAX_INDEX: u32 = 1 << 20;

/// What the guest has open.
///
/// A handle counts only together with its node, and only as what it was opened as: a node is a
/// directory or a file and nothing else ever, so that one is never taken for the other.
#[derive(Debug)]
pub(crate) struct HandleTable {
    files: Slab<OpenFile>,
    directories: Slab<OpenDirectory>,
    pub(crate) lost_files: LostHandles,
    pub(crate) lost_directories: LostHandles,
}

impl HandleTable {
    pub(crate) fn new() -> Self {
        Self {
            files: Slab::new(),
            directories: Slab::new(),
            lost_files: LostHandles::default(),
            lost_directories: LostHandles::default(),
        }
    }

    pub(crate) fn insert_file(&self, file: OpenFile) -> Result<Handle, Full> {
        self.files.insert(Arc::new(file)).map(Handle)
    }

    pub(crate) fn insert_directory(&self, directory: OpenDirectory) -> Result<Handle, Full> {
        self.directories.insert(Arc::new(directory)).map(Handle)
    }

    /// EBADF where `handle` is no file of `node`, ESTALE where it was before it was lost.
    pub(crate) fn file(&self, handle: Handle, node: NodeId) -> Result<Arc<OpenFile>, Errno> {
        let file = self.files.get(handle.0).filter(|file| file.node == node);
        file.ok_or_else(|| self.lost_files.why(handle))
    }

    /// As [`file`](Self::file).
    pub(crate) fn directory(
        &self,
        handle: Handle,
        node: NodeId,
    ) -> Result<Arc<OpenDirectory>, Errno> {
        let directory = self.directories.get(handle.0);
        let directory = directory.filter(|directory| directory.node == node);
        directory.ok_or_else(|| self.lost_directories.why(handle))
    }

    /// Takes a file out. It is closed when its last user drops it.
    pub(crate) fn remove_file(&self, handle: Handle, node: NodeId) -> Option<Arc<OpenFile>> {
        self.files.remove_if(handle.0, |file| file.node == node)
    }

    /// Takes a directory out. It is closed when its last user drops it.
    pub(crate) fn remove_directory(
        &self,
        handle: Handle,
        node: NodeId,
    ) -> Option<Arc<OpenDirectory>> {
        self.directories
            .remove_if(handle.0, |directory| directory.node == node)
    }

    /// What every handle of a file stands for that was given out, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = SlotImage<OpenFile>> {
        self.files.slots()
    }

    /// What every handle of a directory stands for that was given out, in order.
    pub(crate) fn directories(&self) -> impl Iterator<Item = SlotImage<OpenDirectory>> {
        self.directories.slots()
    }

    /// Begins to fill a table in which nothing is open.
    pub(crate) fn refill(&self) -> HandleRefill<'_> {
        HandleRefill {
            files: self.files.refill(MAX_INDEX),
            directories: self.directories.refill(MAX_INDEX),
        }
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        self.files.clear();
        self.directories.clear();
        self.lost_files.clear();
        self.lost_directories.clear();
    }
}

/// Fills a table with what has its handles already.
#[derive(Debug)]
pub(crate) struct HandleRefill<'t> {
    pub(crate) files: Refill<'t, OpenFile>,
    pub(crate) directories: Refill<'t, OpenDirectory>,
}
