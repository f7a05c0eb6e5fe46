use fuse_wire::NodeId;
use fuse_wire::abi::{Attr, Statx};
use rustix::fs::{FileType, StatxFlags};

use super::budget::bytes;
use super::data::{BLOCK, FileData};
use super::directory::Directory;
use super::time::Timestamp;
use super::xattr::Xattrs;

/// Preferred size of I/O in bytes.
const BLKSIZE: u32 = 4096;
/// Unit of `st_blocks` in bytes.
const SECTOR: u64 = 512;
/// What an inode takes up besides its contents, about.
const OVERHEAD: u64 = 512;
/// The permissions in a mode, with SUID, SGID and the sticky bit.
pub(super) const PERMISSIONS: u32 = 0o7777;

/// What kind of file an inode is, and what it holds.
#[derive(Debug)]
pub(super) enum Contents {
    File(FileData),
    Directory(Directory),
    /// Where the link points.
    Symlink(Box<[u8]>),
    /// A FIFO, a socket or a device: the guest's kernel does the rest.
    Special(FileType),
}

/// A file, whatever its names.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) contents: Contents,
    /// Without the type.
    pub(super) permissions: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// In the kernel's 32-bit encoding.
    pub(super) rdev: u32,
    pub(super) nlink: u32,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) btime: Timestamp,
    pub(super) xattrs: Xattrs,
    /// Lookups that the guest has not given back.
    pub(super) lookups: u64,
    /// Open handles.
    pub(super) handles: u64,
    /// Whether it may get a first name (`O_TMPFILE` without `O_EXCL`).
    pub(super) linkable: bool,
}

impl Inode {
    /// One that has no name yet, made now.
    pub(super) fn new(contents: Contents, permissions: u32, uid: u32, gid: u32) -> Self {
        let now = Timestamp::now();
        Self {
            contents,
            permissions: permissions & PERMISSIONS,
            uid,
            gid,
            rdev: 0,
            nlink: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            xattrs: Xattrs::default(),
            lookups: 0,
            handles: 0,
            linkable: false,
        }
    }

    pub(super) const fn is_directory(&self) -> bool {
        matches!(self.contents, Contents::Directory(_))
    }

    pub(super) const fn file_type(&self) -> FileType {
        match &self.contents {
            Contents::File(_) => FileType::RegularFile,
            Contents::Directory(_) => FileType::Directory,
            Contents::Symlink(_) => FileType::Symlink,
            Contents::Special(file_type) => *file_type,
        }
    }

    /// `DT_*` of readdir(3).
    pub(super) const fn dirent_type(&self) -> u32 {
        self.file_type().as_raw_mode() >> 12
    }

    /// Whether neither a name nor the guest holds on to it.
    pub(super) const fn is_unused(&self) -> bool {
        self.nlink == 0 && self.lookups == 0 && self.handles == 0
    }

    /// Bytes of memory that it takes up, with what it holds but without entries of a directory.
    pub(super) fn allocated(&self) -> u64 {
        let contents = match &self.contents {
            Contents::File(data) => data.allocated(),
            Contents::Symlink(target) => bytes(target.len()),
            Contents::Directory(_) | Contents::Special(_) => 0,
        };
        OVERHEAD
            .saturating_add(contents)
            .saturating_add(self.xattrs.allocated())
    }

    /// What it holds was changed.
    pub(super) fn modified(&mut self) {
        self.mtime = Timestamp::now();
        self.ctime = self.mtime;
    }

    /// What is told of it was changed.
    pub(super) fn changed(&mut self) {
        self.ctime = Timestamp::now();
    }

    /// It was read: as with `relatime`, noted once after each change.
    pub(super) fn accessed(&mut self) {
        if self.atime <= self.mtime.max(self.ctime) {
            self.atime = Timestamp::now();
        }
    }

    pub(super) fn attr(&self, node: NodeId) -> Attr {
        let (size, blocks) = self.size_and_blocks();
        Attr {
            ino: node.0,
            size,
            blocks,
            atime: self.atime.wire_sec(),
            mtime: self.mtime.wire_sec(),
            ctime: self.ctime.wire_sec(),
            atimensec: self.atime.nsec,
            mtimensec: self.mtime.nsec,
            ctimensec: self.ctime.nsec,
            mode: self.mode(),
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            blksize: BLKSIZE,
            ..Default::default()
        }
    }

    pub(super) fn statx(&self, node: NodeId) -> Statx {
        let (size, blocks) = self.size_and_blocks();
        let (rdev_major, rdev_minor) = split_device(self.rdev);
        Statx {
            mask: (StatxFlags::BASIC_STATS | StatxFlags::BTIME).bits(),
            blksize: BLKSIZE,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            mode: u16::try_from(self.mode()).unwrap_or_default(),
            ino: node.0,
            size,
            blocks,
            atime: self.atime.into(),
            btime: self.btime.into(),
            ctime: self.ctime.into(),
            mtime: self.mtime.into(),
            rdev_major,
            rdev_minor,
            ..Default::default()
        }
    }

    fn mode(&self) -> u32 {
        self.file_type().as_raw_mode() | self.permissions
    }

    fn size_and_blocks(&self) -> (u64, u64) {
        match &self.contents {
            Contents::File(data) => {
                let sectors = data.allocated().checked_div(SECTOR).unwrap_or(0);
                (data.size(), sectors)
            }
            Contents::Symlink(target) => (bytes(target.len()), 0),
            Contents::Directory(_) => (BLOCK, 0),
            Contents::Special(_) => (0, 0),
        }
    }
}

/// Major and minor number in the kernel's 32-bit encoding (`new_decode_dev`).
const fn split_device(device: u32) -> (u32, u32) {
    let major = (device & 0xf_ff00) >> 8;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    (major, minor)
}
