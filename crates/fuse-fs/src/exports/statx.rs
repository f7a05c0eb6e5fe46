//! STATX of a filesystem that only knows GETATTR.

use fuse_wire::abi::{Attr, Statx, SxTime};

use crate::{Attributes, StatxAttributes};

/// What stat(2) tells, of what statx(2) can (`STATX_BASIC_STATS`).
const BASIC_STATS: u32 = 0x7ff;

/// `attributes` as statx(2) tells them.
pub(super) fn from_attributes(attributes: &Attributes) -> StatxAttributes {
    let Attributes { attr, valid } = attributes;
    let time = |sec: u64, nsec| SxTime {
        sec: sec.cast_signed(),
        nsec,
        reserved: 0,
    };
    let stat = Statx {
        mask: BASIC_STATS,
        blksize: attr.blksize,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mode: u16::try_from(attr.mode & 0xffff).unwrap_or_default(),
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime, attr.atimensec),
        mtime: time(attr.mtime, attr.mtimensec),
        ctime: time(attr.ctime, attr.ctimensec),
        rdev_major: major(attr),
        rdev_minor: minor(attr),
        ..Default::default()
    };
    StatxAttributes {
        stat,
        flags: attr.flags,
        valid: *valid,
    }
}

// The kernel's 32-bit encoding (`new_encode_dev`): 12 bits of major amid 20 of minor.

fn major(attr: &Attr) -> u32 {
    (attr.rdev >> 8) & 0xfff
}

fn minor(attr: &Attr) -> u32 {
    (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xf_ff00)
}
