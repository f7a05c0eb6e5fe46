//! INIT: what a session can carry, what it enables by itself, and the reply.

use fuse_wire::abi::{InitIn, InitOut};
use fuse_wire::flags::InitFlags;
use fuse_wire::{Errno, VERSION_MAJOR, VERSION_MINOR, VERSION_MINOR_OLDEST};

use crate::Negotiation;
use crate::session::{Agreement, PAGE};

/// Enabled wherever it is offered: the session and the trait's contract see to it.
pub(crate) const ENABLED: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::AUTO_INVAL_DATA)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::INIT_EXT);

/// Enabled where the filesystem asks for it, as it takes knowing how.
const ON_REQUEST: InitFlags = InitFlags::POSIX_LOCKS
    .union(InitFlags::ATOMIC_O_TRUNC)
    .union(InitFlags::EXPORT_SUPPORT)
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::FLOCK_LOCKS)
    .union(InitFlags::HAS_IOCTL_DIR)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::WRITEBACK_CACHE)
    .union(InitFlags::NO_OPEN_SUPPORT)
    .union(InitFlags::HANDLE_KILLPRIV)
    .union(InitFlags::POSIX_ACL)
    .union(InitFlags::CACHE_SYMLINKS)
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::EXPLICIT_INVAL_DATA)
    .union(InitFlags::MAP_ALIGNMENT)
    .union(InitFlags::SUBMOUNTS)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::SECURITY_CTX)
    .union(InitFlags::CREATE_SUPP_GROUP)
    .union(InitFlags::HAS_EXPIRE_ONLY)
    .union(InitFlags::DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::NO_EXPORT_SUPPORT)
    .union(InitFlags::ALLOW_IDMAP);

/// All that can be agreed on. What is missing needs fields of the reply that are not filled in, or a
/// `/dev/fuse` of one's own.
pub(crate) const SUPPORTED: InitFlags = ENABLED.union(ON_REQUEST);

/// The high word of the flags, which only [`InitFlags::INIT_EXT`] makes count.
const HIGH_WORD: InitFlags = InitFlags::from_bits_retain(!0xffff_ffff);

/// Most pages of data in a request without [`InitFlags::MAX_PAGES`]
/// (`FUSE_DEFAULT_MAX_PAGES_PER_REQ`).
const DEFAULT_MAX_PAGES: u32 = 32;

/// Granularity of timestamps of a second, the coarsest, in nanoseconds.
const COARSEST_TIME_GRAN: u32 = 1_000_000_000;

/// What a session can carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of [`SUPPORTED`].
    pub(crate) flags: InitFlags,
    /// Most bytes of data in a WRITE.
    pub(crate) max_write: u32,
}

/// Whether a session can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// It can.
    Spoken,
    /// The guest speaks a newer major version. It is told ours and sends another INIT.
    NewerMajor,
}

/// Compares versions.
///
/// # Errors
/// EPROTO for a guest that is too old.
pub(crate) fn check_version(init: &InitIn) -> Result<Version, Errno> {
    if init.major > VERSION_MAJOR {
        Ok(Version::NewerMajor)
    } else if init.major == VERSION_MAJOR && init.minor >= VERSION_MINOR_OLDEST {
        Ok(Version::Spoken)
    } else {
        Err(Errno::EPROTO)
    }
}

/// The reply that only tells which version is spoken.
pub(crate) fn our_version() -> InitOut {
    InitOut {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        ..Default::default()
    }
}

/// What the filesystem is asked about.
pub(crate) fn propose(init: &InitIn, limits: Limits) -> Negotiation {
    let mut negotiation = Negotiation::new(init, ENABLED);
    negotiation.offered &= limits.flags;
    negotiation.max_write = limits.max_write;
    negotiation.max_readahead = init.max_readahead.min(limits.max_write);
    negotiation
}

/// Brings what the filesystem wants back to what `init` offered and the session allows, and words
/// the reply.
pub(crate) fn settle(init: &InitIn, wanted: &Negotiation, limits: Limits) -> (Agreement, InitOut) {
    let flags = settle_flags(init.offered() & limits.flags, wanted.enabled);
    let max_pages = max_pages(flags, wanted.max_write.min(limits.max_write));
    let agreement = Agreement { flags, max_pages };
    let max_write = agreement.max_write();
    let (low, high) = flags.halves();
    let reply = InitOut {
        max_readahead: wanted.max_readahead.min(init.max_readahead).min(max_write),
        flags: low,
        flags2: high,
        max_background: wanted.max_background,
        congestion_threshold: wanted.congestion_threshold.min(wanted.max_background),
        max_write,
        time_gran: wanted.time_gran.clamp(1, COARSEST_TIME_GRAN),
        map_alignment: if flags.contains(InitFlags::MAP_ALIGNMENT) {
            map_alignment()
        } else {
            0
        },
        max_pages: if flags.contains(InitFlags::MAX_PAGES) {
            max_pages
        } else {
            0
        },
        ..our_version()
    };
    (agreement, reply)
}

/// Of what is mapped, as a power of two: a page of this host.
fn map_alignment() -> u16 {
    let bits = rustix::param::page_size().trailing_zeros();
    u16::try_from(bits).unwrap_or(u16::MAX)
}

fn settle_flags(offered: InitFlags, wanted: InitFlags) -> InitFlags {
    let flags = wanted & offered;
    if flags.contains(InitFlags::INIT_EXT) {
        flags
    } else {
        flags.difference(HIGH_WORD)
    }
}

fn max_pages(flags: InitFlags, max_write: u32) -> u16 {
    let most = if !flags.contains(InitFlags::BIG_WRITES) {
        1
    } else if flags.contains(InitFlags::MAX_PAGES) {
        u32::from(u16::MAX)
    } else {
        DEFAULT_MAX_PAGES
    };
    let pages = max_write.checked_div(PAGE).unwrap_or(0).clamp(1, most);
    u16::try_from(pages).unwrap_or(u16::MAX)
}
