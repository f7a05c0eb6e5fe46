use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fuse_fs::{Context, Error, Result};

/// Magic numbers of filesystems in memory (statfs(2)).
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];
/// Magic numbers of common filesystems on local storage: ext2 to ext4, XFS, Btrfs, F2FS, overlay,
/// ZFS, EROFS, squashfs, FAT, exFAT, NTFS3.
const LOCAL: [u32; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x794c_7630,
    0x2fc1_2fc1,
    0xe0f5_e1e2,
    0x7371_7368,
    0x4d44,
    0x2011_bab0,
    0x7366_746e,
];

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

/// What is known of one of the host's filesystems that are part of the share.
#[derive(Debug)]
pub(crate) struct Volume {
    dev: (u32, u32),
    pub(crate) storage: Storage,
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

    pub(crate) fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn refuted(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The filesystems seen so far: one for each mounted device of the host, which the guest cannot
/// add to.
#[derive(Debug, Default)]
pub(crate) struct Volumes(Mutex<Vec<Arc<Volume>>>);

impl Volumes {
    /// The filesystem on the device `dev`, on which `fd` was opened.
    pub(crate) fn find(&self, dev: (u32, u32), fd: impl AsFd) -> Arc<Volume> {
        if let Some(known) = self.known(dev) {
            return known;
        }
        let volume = Arc::new(Volume {
            dev,
            storage: storage(fd),
            reads_without_waiting: Learned::new(),
            writes_without_waiting: Learned::new(),
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&volume));
        volume
    }

    fn known(&self, dev: (u32, u32)) -> Option<Arc<Volume>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|volume| volume.dev == dev).cloned()
    }
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

    pub(crate) fn is_on(&self, dev: (u32, u32)) -> bool {
        self.dev == dev
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.storage == Storage::Memory
    }
}

fn storage(fd: impl AsFd) -> Storage {
    // The type is a signed or an unsigned word by architecture; the numbers have 32 bits.
    match rustix::fs::fstatfs(fd).map(|statfs| statfs.f_type as u32) {
        Ok(magic) if IN_MEMORY.contains(&magic) => Storage::Memory,
        Ok(magic) if LOCAL.contains(&magic) => Storage::Local,
        _ => Storage::Remote,
    }
}
