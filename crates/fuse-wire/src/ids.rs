use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names an inode within one session (`fuse_in_header.nodeid`).
///
/// The server hands these out in replies to LOOKUP and its kin; the peer may send any value back.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the filesystem (`FUSE_ROOT_ID`), known without a lookup and never forgotten.
    pub const ROOT: Self = Self(1);
    /// In a reply to LOOKUP: there is no such name, and the peer may remember that.
    pub const NEGATIVE: Self = Self(0);
}

/// Names an open file or directory within one session (`fh`).
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Handle(pub u64);

impl Handle {
    /// No open file: in SETUPMAPPING, the inode is meant.
    pub const NONE: Self = Self(u64::MAX);
}
