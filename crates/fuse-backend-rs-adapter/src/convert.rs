//! The same things in the types of both sides.

use std::io;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{self, OpenOptions, stat64, statvfs64};
use fuse_backend_rs::api::filesystem as theirs;
use fuse_backend_rs::encode_io_error_kind;
use fuse_fs::abi::{Attr, CreateIn, FileLock, Kstatfs, SetattrIn};
use fuse_fs::flags::{AttrFlags, OpenOutFlags, SetattrValid};
use fuse_fs::{Attributes, Context, Entry, Errno, Error, Handle, NodeId, Opened};

pub(crate) fn context(cx: &Context<'_>) -> theirs::Context {
    theirs::Context {
        uid: cx.uid,
        gid: cx.gid,
        pid: cx.pid.cast_signed(),
    }
}

/// The error number, or what fuse-backend-rs takes an error without one for: EIO, mostly.
pub(crate) fn error(error: io::Error) -> Error {
    let raw = error
        .raw_os_error()
        .unwrap_or_else(|| encode_io_error_kind(error.kind()));
    Errno::from_raw(raw).into()
}

pub(crate) fn entry(entry: theirs::Entry) -> Entry {
    if entry.inode == NodeId::NEGATIVE.0 {
        return Entry::negative(entry.entry_timeout);
    }
    // There is no DAX window.
    let flags = AttrFlags::from_bits_retain(entry.attr_flags) & AttrFlags::SUBMOUNT;
    Entry {
        node: NodeId(entry.inode),
        generation: entry.generation,
        attr: Attr {
            flags,
            ..attr(&entry.attr)
        },
        attr_valid: entry.attr_timeout,
        entry_valid: entry.entry_timeout,
    }
}

pub(crate) fn attributes((stat, valid): (stat64, Duration)) -> Attributes {
    Attributes {
        attr: attr(&stat),
        valid,
    }
}

fn attr(stat: &stat64) -> Attr {
    Attr {
        ino: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: stat.st_atime.cast_unsigned(),
        mtime: stat.st_mtime.cast_unsigned(),
        ctime: stat.st_ctime.cast_unsigned(),
        atimensec: word(stat.st_atime_nsec),
        mtimensec: word(stat.st_mtime_nsec),
        ctimensec: word(stat.st_ctime_nsec),
        mode: stat.st_mode,
        nlink: word(stat.st_nlink),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: device(stat.st_rdev),
        blksize: word(stat.st_blksize),
        flags: AttrFlags::empty(),
    }
}

/// A device number as the kernel packs it into 32 bits. The C library's 64 bits begin with the
/// same: what is beyond are bits of the major number that Linux does not have (makedev(3)).
fn device(number: u64) -> u32 {
    word(number & u64::from(u32::MAX))
}

/// What becomes of a number that travels in 32 bits.
fn word<T: TryInto<u32>>(value: T) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

pub(crate) fn statfs(stat: &statvfs64) -> Kstatfs {
    Kstatfs {
        blocks: stat.f_blocks,
        bfree: stat.f_bfree,
        bavail: stat.f_bavail,
        files: stat.f_files,
        ffree: stat.f_ffree,
        bsize: word(stat.f_bsize),
        namelen: word(stat.f_namemax),
        frsize: word(stat.f_frsize),
        ..Kstatfs::default()
    }
}

pub(crate) fn opened<H: Into<u64>>(handle: Option<H>, options: OpenOptions) -> Opened {
    Opened {
        handle: Handle(handle.map_or(0, Into::into)),
        flags: OpenOutFlags::from_bits_retain(options.bits()),
    }
}

pub(crate) fn create_in(args: &CreateIn) -> fuse_abi::CreateIn {
    fuse_abi::CreateIn {
        flags: args.flags,
        mode: args.mode,
        umask: args.umask,
        fuse_flags: args.open_flags.bits(),
    }
}

/// The new attributes, and which of them count. The change time cannot be set (utimensat(2)); it is
/// passed on all the same.
pub(crate) fn setattr_in(args: &SetattrIn) -> (stat64, fuse_abi::SetattrValid) {
    let stat = fuse_abi::SetattrIn {
        size: args.size,
        atime: args.atime,
        mtime: args.mtime,
        ctime: args.ctime,
        atimensec: args.atimensec,
        mtimensec: args.mtimensec,
        ctimensec: args.ctimensec,
        mode: args.mode,
        uid: args.uid,
        gid: args.gid,
        ..Default::default()
    };
    let valid = fuse_abi::SetattrValid::from_bits_truncate(args.valid.bits());
    (stat.into(), valid)
}

/// The handle by which to change attributes, where there is one.
pub(crate) fn setattr_handle(args: &SetattrIn) -> Option<Handle> {
    args.valid.contains(SetattrValid::FH).then_some(args.fh)
}

pub(crate) fn lock_in(lock: &FileLock) -> theirs::FileLock {
    theirs::FileLock {
        start: lock.start,
        end: lock.end,
        lock_type: lock.lock_type,
        pid: lock.pid,
    }
}

pub(crate) fn lock_out(lock: theirs::FileLock) -> FileLock {
    FileLock {
        start: lock.start,
        end: lock.end,
        lock_type: lock.lock_type,
        pid: lock.pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat() -> stat64 {
        fuse_abi::SetattrIn::default().into()
    }

    #[test]
    fn times_before_1970_and_device_numbers_survive() {
        let mut stat = stat();
        stat.st_atime = -1;
        stat.st_mtime = 1 << 33;
        stat.st_mtime_nsec = 999_999_999;
        // Major 0x123, minor 0xabcde, as makedev(3) says.
        stat.st_rdev = 0xabc1_23de;
        let attr = attr(&stat);
        assert_eq!(attr.atime.cast_signed(), -1);
        assert_eq!((attr.mtime, attr.mtimensec), (1 << 33, 999_999_999));
        assert_eq!(attr.rdev, 0xabc1_23de);
    }

    #[test]
    fn what_does_not_fit_is_the_largest_that_does() {
        let mut stat = stat();
        stat.st_nlink = 1 << 40;
        stat.st_blksize = -1;
        let attr = attr(&stat);
        assert_eq!((attr.nlink, attr.blksize), (u32::MAX, u32::MAX));
    }

    #[test]
    fn dax_is_not_promised() {
        let found = entry(theirs::Entry {
            inode: 2,
            attr_flags: 3,
            ..Default::default()
        });
        assert_eq!(found.attr.flags, AttrFlags::SUBMOUNT);
    }

    #[test]
    fn errors_without_a_number_get_one() {
        let errno = |given: io::Error| match error(given) {
            Error::Errno(errno) => errno,
            Error::WouldBlock => panic!("not an error number"),
        };
        assert_eq!(errno(io::Error::from_raw_os_error(39)), Errno::ENOTEMPTY);
        assert_eq!(errno(io::Error::from_raw_os_error(4096)), Errno::EIO);
        assert_eq!(errno(io::ErrorKind::NotFound.into()), Errno::ENOENT);
        assert_eq!(errno(io::Error::other("no handle")), Errno::EIO);
    }
}
