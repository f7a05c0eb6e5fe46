//! What a state consists of, in this order: the root, what is known of inodes, what is open, locks,
//! and the end.

use fuse_fs::StateForm;
use serde::{Deserialize, Serialize};

use crate::file_handle::FileHandle;
use crate::inode_table::{Birth, Inode, Kind};

pub(super) const FORM: StateForm = StateForm {
    of: *b"pass dir",
    version: 1,
};

/// Most devices of which the order is kept.
pub(super) const MAX_DEVICES: u32 = 4096;

/// The shared directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Root<'a> {
    #[serde(borrow)]
    pub(super) signs: Signs<'a>,
    /// Devices other than the root's, in the order in which inode numbers were made unique by them.
    pub(super) devices: u32,
}

/// A device whose inodes have numbers of their own in the guest (stat(2)).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Device(pub(super) u32, pub(super) u32);

/// Anything behind the root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    /// Ids that have nothing behind them, and will not come back.
    Worn(Worn),
    #[serde(borrow)]
    Inode(SavedInode<'a>),
    File(SavedFile),
    Directory(SavedDirectory),
    Lock(SavedLock),
    End,
}

/// Consecutive slots of a table that were used equally often, and are vacant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Worn {
    pub(super) table: Table,
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Table {
    Inodes,
    Files,
    Directories,
}

/// An inode that the guest knows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedInode<'a> {
    pub(super) node: u64,
    pub(super) lookups: u64,
    pub(super) kind: SavedKind,
    #[serde(borrow)]
    pub(super) signs: Signs<'a>,
    /// Where it is in the share, if that could be told.
    #[serde(borrow)]
    pub(super) path: Option<SavedPath<'a>>,
}

/// A path relative to the root.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SavedPath<'a> {
    /// Bytes at its start that are those of the path before it.
    pub(super) shared: u16,
    pub(super) rest: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SavedKind {
    Regular,
    Directory,
    Symlink,
    Special,
}

impl From<Kind> for SavedKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Regular => Self::Regular,
            Kind::Directory => Self::Directory,
            Kind::Symlink => Self::Symlink,
            Kind::Special => Self::Special,
        }
    }
}

/// What an inode is known by on the filesystem that it is on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Signs<'a> {
    pub(super) dev: (u32, u32),
    pub(super) ino: u64,
    pub(super) birth: Option<Birth>,
    /// Type and bytes of the file handle (name_to_handle_at(2)).
    #[serde(borrow)]
    pub(super) handle: Option<(i32, &'a [u8])>,
}

impl<'a> Signs<'a> {
    pub(super) fn of(inode: &Inode, handle: Option<&'a FileHandle>) -> Self {
        Self {
            dev: inode.identity.dev,
            ino: inode.identity.ino,
            birth: inode.birth,
            handle: handle.map(FileHandle::parts),
        }
    }
}

/// An open file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedFile {
    pub(super) handle: u64,
    pub(super) node: u64,
    /// As for open(2).
    pub(super) flags: u32,
    pub(super) flock: Option<SavedLockKind>,
}

/// An open directory. Where its reader stands is for the guest to say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedDirectory {
    pub(super) handle: u64,
    pub(super) node: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SavedLockKind {
    Read,
    Write,
}

/// A range of a file that is locked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedLock {
    pub(crate) node: u64,
    /// Who has locked it, as the guest's kernel says.
    pub(crate) owner: u64,
    pub(crate) pid: u32,
    /// The handle that all of the owner's locks on the file came by, if it was one.
    pub(crate) handle: Option<u64>,
    /// Of the description that has them: O_RDONLY, O_WRONLY or O_RDWR.
    pub(crate) mode: u32,
    /// First and last byte.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) kind: SavedLockKind,
}
