use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use fuse_fs::{Context, Error, Result};
use rustix::fs::{OFlags, Statx, StatxFlags};

use crate::attr::{identity, kind};
use crate::config::InodeFileHandles;
use crate::file_handle::FileHandle;
use crate::inode_table::{Identity, Kind};
use crate::proc::ProcSelfFd;

/// Magic numbers of filesystems in memory (statfs(2)).
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];
/// Magic numbers of common filesystems on local storage: ext2 to ext4, XFS, Btrfs, F2FS, overlay,
/// ZFS, EROFS, squashfs, FAT, exFAT, NTFS3.
const LOCAL: [u32; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    OVERLAY,
    0x2fc1_2fc1,
    0xe0f5_e1e2,
    0x7371_7368,
    0x4d44,
    0x2011_bab0,
    0x7366_746e,
];

/// Magic number of overlayfs, which gives an inode another time of birth when it is first changed.
const OVERLAY: u32 = 0x794c_7630;

/// Where the data of a filesystem is, as far as waiting for it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In memory: nothing waits.
    Memory,
    /// On a device of this machine.
    Local,
    /// On another machine, in a process, or not known.
    Remote,
}

/// How an inode whose descriptor was closed is opened again.
#[derive(Debug)]
pub(crate) enum Reopening {
    /// By its file handle, on the mount that this descriptor is on.
    ByHandle(OwnedFd),
    /// By its name, and only if it is the same as before.
    ByName,
    /// Not at all: there is no telling whether it is the same.
    Never,
}

impl Reopening {
    pub(crate) fn is_possible(&self) -> bool {
        !matches!(self, Self::Never)
    }

    /// Whether it takes the places of inodes.
    pub(crate) fn needs_places(&self) -> bool {
        matches!(self, Self::ByName)
    }
}

/// What is known of one of the host's mounts that are part of the share.
#[derive(Debug)]
pub(crate) struct Volume {
    dev: (u32, u32),
    mount: u64,
    pub(crate) storage: Storage,
    pub(crate) reopening: Reopening,
    /// RWF_NOWAIT worked so far, for reads and for writes.
    pub(crate) reads_without_waiting: Learned,
    pub(crate) writes_without_waiting: Learned,
}

/// A capability that is believed in until it is refused.
#[derive(Debug)]
pub(crate) struct Learned(AtomicBool);

impl Learned {
    fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Believed in, or not, by what was found out.
    pub(crate) fn probed(works: bool) -> Self {
        Self(AtomicBool::new(works))
    }

    pub(crate) fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn refuted(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The mounts seen so far on which the guest knows an inode, which are as many as the host has at
/// most. The others are let go, so that the host can unmount them.
#[derive(Debug)]
pub(crate) struct Volumes {
    all: Mutex<Vec<Weak<Volume>>>,
    file_handles: InodeFileHandles,
}

impl Volumes {
    pub(crate) fn new(file_handles: InodeFileHandles) -> Self {
        Self {
            all: Mutex::default(),
            file_handles,
        }
    }

    /// The mount on which `fd` was opened, whose attributes are `stat`.
    pub(crate) fn find(&self, fd: impl AsFd, stat: &Statx, proc: &ProcSelfFd) -> Arc<Volume> {
        let identity = identity(stat);
        if let Some(known) = known(&mut self.lock(), &identity) {
            return known;
        }
        let volume = Arc::new(Volume {
            dev: identity.dev,
            mount: identity.mount,
            storage: storage(&fd),
            reopening: self.reopening(fd, stat, proc),
            reads_without_waiting: Learned::new(),
            writes_without_waiting: Learned::new(),
        });
        let mut all = self.lock();
        // Another thread may have been faster.
        if let Some(known) = known(&mut all, &identity) {
            return known;
        }
        all.push(Arc::downgrade(&volume));
        volume
    }

    fn reopening(&self, fd: impl AsFd, stat: &Statx, proc: &ProcSelfFd) -> Reopening {
        if self.file_handles != InodeFileHandles::Never
            && let Ok(handle) = FileHandle::to_open(&fd)
            && let Some(mount) = open_for_handles(&fd, kind(stat), proc)
            && handle.open(&mount, OFlags::PATH).is_ok()
        {
            return Reopening::ByHandle(mount);
        }
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        // Handles that only tell inodes apart are no more than inode numbers where a filesystem has
        // nothing else, and those of procfs change.
        let can_be_told_apart = match magic(&fd) {
            Some(OVERLAY) => FileHandle::of(&fd).is_ok(),
            _ => has_birth || FileHandle::to_open(&fd).is_ok(),
        };
        if self.file_handles != InodeFileHandles::Mandatory && can_be_told_apart {
            Reopening::ByName
        } else {
            Reopening::Never
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Volume>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mount of `identity`. Drops those that nobody uses any more.
fn known(all: &mut Vec<Weak<Volume>>, identity: &Identity) -> Option<Arc<Volume>> {
    all.retain(|volume| volume.strong_count() != 0);
    all.iter()
        .filter_map(Weak::upgrade)
        .find(|volume| volume.has(identity))
}

/// A descriptor as open_by_handle_at(2) wants it: any on the mount, but not one with O_PATH.
fn open_for_handles(fd: impl AsFd, kind: Kind, proc: &ProcSelfFd) -> Option<OwnedFd> {
    let flags = match kind {
        Kind::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        Kind::Regular => OFlags::RDONLY | OFlags::NONBLOCK,
        Kind::Symlink | Kind::Special => return None,
    };
    proc.reopen(fd, flags).ok()
}

impl Volume {
    /// Refuses what is on another machine where nothing may wait: there, everything may.
    pub(crate) fn check_reachable(&self, cx: &Context<'_>) -> Result<()> {
        if self.storage == Storage::Remote && !cx.may_block() {
            return Err(Error::WouldBlock);
        }
        Ok(())
    }

    /// Refuses what surely waits for storage where nothing may wait.
    pub(crate) fn check_may_wait(&self, cx: &Context<'_>) -> Result<()> {
        if self.storage != Storage::Memory && !cx.may_block() {
            return Err(Error::WouldBlock);
        }
        Ok(())
    }

    /// Whether the inode with this identity is on it.
    pub(crate) fn has(&self, identity: &Identity) -> bool {
        (self.dev, self.mount) == (identity.dev, identity.mount)
    }

    /// Why file handles do not work, if they do not. `fd` is on it.
    pub(crate) fn check_handles(&self, fd: impl AsFd) -> rustix::io::Result<()> {
        match self.reopening {
            Reopening::ByHandle(_) => Ok(()),
            // It has them, so that it is the capability that is missing.
            _ => FileHandle::to_open(fd).and(Err(rustix::io::Errno::PERM)),
        }
    }

    /// The number of the device (stat(2)).
    pub(crate) fn dev(&self) -> (u32, u32) {
        self.dev
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.storage == Storage::Memory
    }
}

fn storage(fd: impl AsFd) -> Storage {
    match magic(fd) {
        Some(magic) if IN_MEMORY.contains(&magic) => Storage::Memory,
        Some(magic) if LOCAL.contains(&magic) => Storage::Local,
        _ => Storage::Remote,
    }
}

/// The magic number of the filesystem that `fd` is on.
fn magic(fd: impl AsFd) -> Option<u32> {
    // The type is a signed or an unsigned word by architecture; the numbers have 32 bits.
    let statfs = rustix::fs::fstatfs(fd);
    statfs.ok().map(|statfs| statfs.f_type as u32)
}
