use std::time::Duration;

use fuse_wire::abi::{Attr, AttrOut, EntryOut, InitIn, OpenOut, Statx, StatxOut};
use fuse_wire::flags::{AttrFlags, InitFlags, OpenOutFlags};
use fuse_wire::{Handle, NodeId};

/// What a lookup found, and for how long the guest may believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The inode. [`NodeId::NEGATIVE`]: there is no such name, and the guest may remember that for
    /// `entry_valid`.
    pub node: NodeId,
    /// Tells apart two inodes that had the same node id.
    pub generation: u64,
    /// The attributes.
    pub attr: Attr,
    /// How long the guest may cache the attributes.
    pub attr_valid: Duration,
    /// How long the guest may cache the name.
    pub entry_valid: Duration,
}

impl Entry {
    /// There is no such name, which the guest may remember for `valid`.
    #[must_use]
    pub fn negative(valid: Duration) -> Self {
        Self {
            node: NodeId::NEGATIVE,
            generation: 0,
            attr: Attr::default(),
            attr_valid: Duration::ZERO,
            entry_valid: valid,
        }
    }
}

impl From<Entry> for EntryOut {
    fn from(entry: Entry) -> Self {
        Self {
            nodeid: entry.node,
            generation: entry.generation,
            entry_valid: entry.entry_valid.as_secs(),
            attr_valid: entry.attr_valid.as_secs(),
            entry_valid_nsec: entry.entry_valid.subsec_nanos(),
            attr_valid_nsec: entry.attr_valid.subsec_nanos(),
            attr: entry.attr,
        }
    }
}

/// Attributes, and for how long the guest may believe them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The attributes.
    pub attr: Attr,
    /// How long the guest may cache them.
    pub valid: Duration,
}

impl From<Attributes> for AttrOut {
    fn from(attributes: Attributes) -> Self {
        Self {
            attr_valid: attributes.valid.as_secs(),
            attr_valid_nsec: attributes.valid.subsec_nanos(),
            dummy: 0,
            attr: attributes.attr,
        }
    }
}

/// What statx(2) tells, and for how long the guest may believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatxAttributes {
    /// The attributes.
    pub stat: Statx,
    /// Submount and DAX marks.
    pub flags: AttrFlags,
    /// How long the guest may cache them.
    pub valid: Duration,
}

impl From<StatxAttributes> for StatxOut {
    fn from(attributes: StatxAttributes) -> Self {
        Self {
            attr_valid: attributes.valid.as_secs(),
            attr_valid_nsec: attributes.valid.subsec_nanos(),
            flags: attributes.flags,
            spare: [0; 2],
            stat: attributes.stat,
        }
    }
}

/// An open file or directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub handle: Handle,
    /// What the guest's kernel may do with it.
    pub flags: OpenOutFlags,
}

impl From<Opened> for OpenOut {
    fn from(opened: Opened) -> Self {
        Self {
            fh: opened.handle,
            open_flags: opened.flags,
            backing_id: 0,
        }
    }
}

/// What INIT settles. The session fills it in from the guest's offer and its own limits; the
/// filesystem adjusts what it wants otherwise; the session then drops what was not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Negotiation {
    /// Newest minor version that the guest speaks.
    pub minor: u32,
    /// What the guest can do, as far as the session can carry it.
    pub offered: InitFlags,
    /// What both shall do. Set by the session to what it handles itself, without what a filesystem
    /// must know how to do.
    pub enabled: InitFlags,
    /// Bytes that the guest may read ahead.
    pub max_readahead: u32,
    /// Most bytes of data in a READ or WRITE.
    pub max_write: u32,
    /// Most background requests in flight.
    pub max_background: u16,
    /// In-flight background requests from which on the guest counts as congested.
    pub congestion_threshold: u16,
    /// Granularity of timestamps in nanoseconds.
    pub time_gran: u32,
}

impl Negotiation {
    /// Most bytes of data in a request: 256 pages of 4 KiB, as much as Linux sends.
    pub const MAX_WRITE: u32 = 1 << 20;

    /// The starting point for a guest that sent `init`.
    #[must_use]
    pub fn new(init: &InitIn, enabled: InitFlags) -> Self {
        let offered = init.offered();
        Self {
            minor: init.minor,
            offered,
            enabled: enabled & offered,
            max_readahead: init.max_readahead,
            max_write: Self::MAX_WRITE,
            max_background: 64,
            congestion_threshold: 48,
            time_gran: 1,
        }
    }

    /// Enables those of `flags` that were offered, and returns whether all were.
    pub fn enable(&mut self, flags: InitFlags) -> bool {
        self.enabled |= flags & self.offered;
        self.offered.contains(flags)
    }
}
