//! What is not done unless it is asked for.

use std::sync::atomic::{AtomicU32, Ordering};

use fuse_fs::Negotiation;
use fuse_fs::flags::InitFlags;

use crate::{CachePolicy, PassthroughFs};

bitflags::bitflags! {
    /// What a share does besides, where it is asked to ([`Config::extras`](crate::Config::extras)).
    ///
    /// Each means what the option of the same name means to the reference daemon; it has none for
    /// locks any more.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct Extras: u32 {
        /// The guest collects writes in its page cache and sends them later, and owns the size and
        /// the times of the files that it writes. Right only where nobody else changes them. Holes
        /// of files are not told (lseek(2)).
        const WRITEBACK = 1 << 0;
        /// Files can be mapped shared in the guest also where [`CachePolicy`] keeps their data out
        /// of its page cache. What the host and other guests change is not seen in a mapping.
        const ALLOW_MMAP = 1 << 1;
        /// O_DIRECT of the guest bypasses the page cache of the host, too, not only the guest's own.
        /// What is not aligned as the host's device wants it goes through that cache all the same,
        /// and is on the device when the guest is told that it is written.
        const ALLOW_DIRECT_IO = 1 << 2;
        /// O_NOATIME of the guest is passed on. The host refuses it (EPERM) for files of others
        /// where the process has no CAP_FOWNER.
        const PRESERVE_NOATIME = 1 << 3;
        /// Directories are listed without the attributes of their entries.
        const NO_READDIRPLUS = 1 << 4;
        /// POSIX locks of the guest (fcntl(2)) are taken on the host, where they exclude others.
        /// Else they are its own kernel's, and only its own processes heed them. A guest can have
        /// 8192 ranges locked, and 512 requests that wait for a lock of either kind; what exceeds
        /// that is ENOLCK.
        const POSIX_LOCK = 1 << 5;
        /// flock(2) locks of the guest are taken on the host, where they exclude others.
        const FLOCK = 1 << 6;
    }
}

/// Those extras that the guest of this session can do its part of.
#[derive(Debug, Default)]
pub(crate) struct Agreed(AtomicU32);

impl Agreed {
    fn set(&self, extras: Extras) {
        self.0.store(extras.bits(), Ordering::Relaxed);
    }

    pub(crate) fn contains(&self, extra: Extras) -> bool {
        let agreed = Extras::from_bits_retain(self.0.load(Ordering::Relaxed));
        agreed.contains(extra)
    }
}

impl PassthroughFs {
    /// Asks the guest for its part of what is to be done.
    ///
    /// * READDIRPLUS is of no use where the guest may keep nothing of what it tells.
    /// * The target of a symbolic link never changes, but where nothing is to be cached, not even
    ///   that is.
    /// * NO_OPEN_SUPPORT is not asked for: without handles each READ and WRITE would have to open
    ///   its file, and what the host forbids would be told to read(2), not to open(2). Nor is
    ///   NO_OPENDIR_SUPPORT: a directory that is listed in several replies needs a descriptor
    ///   that stays, as on some filesystems (overlay, tmpfs before Linux 6.6) a position means
    ///   nothing to another one.
    pub(crate) fn negotiate_extras(&self, negotiation: &mut Negotiation) {
        let mut agreed = self.extras;
        let mut ask = |extra: Extras, flag: InitFlags| {
            if self.extras.contains(extra) && !negotiation.enable(flag) {
                agreed.remove(extra);
            }
        };
        ask(Extras::WRITEBACK, InitFlags::WRITEBACK_CACHE);
        ask(Extras::ALLOW_MMAP, InitFlags::DIRECT_IO_ALLOW_MMAP);
        ask(Extras::POSIX_LOCK, InitFlags::POSIX_LOCKS);
        ask(Extras::FLOCK, InitFlags::FLOCK_LOCKS);
        self.agreed.set(agreed);
        if self.cache == CachePolicy::Never {
            return;
        }
        negotiation.enable(InitFlags::CACHE_SYMLINKS);
        if !self.extras.contains(Extras::NO_READDIRPLUS) {
            negotiation.enable(InitFlags::DO_READDIRPLUS);
            negotiation.enable(InitFlags::READDIRPLUS_AUTO);
        }
    }
}
