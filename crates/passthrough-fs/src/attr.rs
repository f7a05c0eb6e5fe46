use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fuse_fs::abi::{Attr, Kstatfs, SetattrIn, Statx as WireStatx, SxTime};
use fuse_fs::flags::{AttrFlags, SetattrValid};
use fuse_fs::{Attributes, Context, Errno, NodeId, Result, StatxAttributes};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid,
};

use crate::fsetid::SuidSgid;
use crate::handle_table::OpenFile;
use crate::inode_table::{Birth, Identity, Kind};
use crate::namespace::permissions;
use crate::pin::Pinned;
use crate::{IdMap, PassthroughFs};

/// What is asked of statx(2), always.
const MASK: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::MNT_ID)
    .union(StatxFlags::BTIME);
/// Nanoseconds in a second. Larger values have meanings of their own to utimensat(2).
const SECOND: u32 = 1_000_000_000;

impl PassthroughFs {
    pub(crate) fn do_getattr(&self, cx: &Context<'_>, node: NodeId) -> Result<Attributes> {
        self.attributes(&self.inode(cx, node)?)
    }

    pub(crate) fn do_statx(&self, cx: &Context<'_>, node: NodeId) -> Result<StatxAttributes> {
        let inode = self.inode(cx, node)?;
        let stat = stat_fd(&inode)?;
        Ok(StatxAttributes {
            stat: self.wire_statx(&stat),
            flags: AttrFlags::empty(),
            valid: self.timeout,
        })
    }

    pub(crate) fn do_setattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &SetattrIn,
    ) -> Result<Attributes> {
        let inode = self.inode(cx, node)?;
        // What can be told to fail, or to have to wait, is so before anything has changed.
        let (uid, gid) = self.new_owner(args)?;
        let times = new_times(args)?;
        let mode = args.valid.contains(SetattrValid::MODE);
        if mode && inode.kind == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let resized = match args.valid.contains(SetattrValid::SIZE) {
            true if empties_only(args) => {
                self.empty(cx, &inode, args)?;
                None
            }
            true => Some(self.to_resize(cx, node, &inode, args)?),
            false => None,
        };
        // chown(2) clears SUID and SGID, and the mode says what they are to be then. The size comes
        // after it, so that no new content ever runs with the privileges of the old.
        if uid.is_some() || gid.is_some() {
            SuidSgid::Kept.apply()?;
            self.drop_capabilities_of(&inode)?;
            rustix::fs::chownat(&inode, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if mode {
            let mode = permissions(args.mode);
            if mode.contains(Mode::SGID) {
                SuidSgid::Kept.apply()?;
            }
            self.chmod(&inode, mode)?;
        }
        if let Some(file) = resized {
            self.drop_capabilities(&file)?;
            clear_suid_sgid(args)?;
            rustix::fs::ftruncate(&file, args.size)?;
        }
        if let Some(times) = times {
            self.set_times(&inode, &times)?;
        }
        // No system call sets the change time; what was changed has just set it to now.
        self.attributes(&inode)
    }

    pub(crate) fn do_statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<Kstatfs> {
        let inode = self.inode(cx, node)?;
        let stat = rustix::fs::fstatvfs(&inode)?;
        let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Kstatfs {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: word(stat.f_bsize),
            namelen: word(stat.f_namemax),
            frsize: word(stat.f_frsize),
            ..Kstatfs::default()
        })
    }

    fn attributes(&self, inode: &Pinned) -> Result<Attributes> {
        Ok(Attributes {
            attr: self.attr(&stat_fd(inode)?),
            valid: self.timeout,
        })
    }

    /// Truncates a file to nothing, which opening it does.
    fn empty(&self, cx: &Context<'_>, inode: &Pinned, args: &SetattrIn) -> Result<()> {
        if inode.kind != Kind::Regular {
            return Err(Errno::EINVAL.into());
        }
        clear_suid_sgid(args)?;
        let file = self.reopen_file(cx, inode, OFlags::WRONLY | OFlags::TRUNC)?;
        // Nothing that is in it now can use them.
        self.drop_capabilities(&file)
    }

    /// The file whose size is to change, open for writing.
    fn to_resize(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        inode: &Pinned,
        args: &SetattrIn,
    ) -> Result<ToResize> {
        if inode.kind != Kind::Regular {
            return Err(Errno::EINVAL.into());
        }
        Ok(if args.valid.contains(SetattrValid::FH) {
            ToResize::Handle(self.file(args.fh, node)?)
        } else {
            ToResize::Opened(self.reopen_file(cx, inode, OFlags::WRONLY)?)
        })
    }

    /// The user and the group of the host that a file is given to.
    fn new_owner(&self, args: &SetattrIn) -> Result<(Option<Uid>, Option<Gid>)> {
        let wanted = |bit, id, map: &IdMap| match args.valid.contains(bit) {
            false => Ok(None),
            true => match map.to_host(id)? {
                // To chown(2) this is no id but "leave as it is".
                u32::MAX => Err(Errno::EINVAL),
                id => Ok(Some(id)),
            },
        };
        let uid = wanted(SetattrValid::UID, args.uid, &self.ids.users)?;
        let gid = wanted(SetattrValid::GID, args.gid, &self.ids.groups)?;
        Ok((uid.map(Uid::from_raw), gid.map(Gid::from_raw)))
    }

    /// Attributes as the guest reads them. Seconds before 1970 are negative numbers in two's
    /// complement.
    pub(crate) fn attr(&self, stat: &Statx) -> Attr {
        Attr {
            ino: self.number(device(stat), stat.stx_ino),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            atime: stat.stx_atime.tv_sec.cast_unsigned(),
            mtime: stat.stx_mtime.tv_sec.cast_unsigned(),
            ctime: stat.stx_ctime.tv_sec.cast_unsigned(),
            atimensec: stat.stx_atime.tv_nsec,
            mtimensec: stat.stx_mtime.tv_nsec,
            ctimensec: stat.stx_ctime.tv_nsec,
            mode: stat.stx_mode.into(),
            nlink: stat.stx_nlink,
            uid: self.ids.users.to_guest(stat.stx_uid),
            gid: self.ids.groups.to_guest(stat.stx_gid),
            rdev: encode_device(stat.stx_rdev_major, stat.stx_rdev_minor),
            blksize: stat.stx_blksize,
            flags: AttrFlags::empty(),
        }
    }

    fn wire_statx(&self, stat: &Statx) -> WireStatx {
        WireStatx {
            mask: stat.stx_mask & (StatxFlags::BASIC_STATS | StatxFlags::BTIME).bits(),
            blksize: stat.stx_blksize,
            attributes: stat.stx_attributes.bits(),
            nlink: stat.stx_nlink,
            uid: self.ids.users.to_guest(stat.stx_uid),
            gid: self.ids.groups.to_guest(stat.stx_gid),
            mode: stat.stx_mode,
            ino: self.number(device(stat), stat.stx_ino),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            attributes_mask: stat.stx_attributes_mask.bits(),
            atime: wire_time(stat.stx_atime),
            btime: wire_time(stat.stx_btime),
            ctime: wire_time(stat.stx_ctime),
            mtime: wire_time(stat.stx_mtime),
            rdev_major: stat.stx_rdev_major,
            rdev_minor: stat.stx_rdev_minor,
            dev_major: stat.stx_dev_major,
            dev_minor: stat.stx_dev_minor,
            ..WireStatx::default()
        }
    }
}

/// A file whose size is to change.
enum ToResize {
    /// The guest has it open.
    Handle(Arc<OpenFile>),
    /// It was opened for this.
    Opened(OwnedFd),
}

impl AsFd for ToResize {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Handle(file) => file.fd.as_fd(),
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

/// Whether a file is to be truncated to nothing, not by a handle, and what is set besides does not
/// have to be set before.
fn empties_only(args: &SetattrIn) -> bool {
    let before = SetattrValid::FH | SetattrValid::MODE | SetattrValid::UID | SetattrValid::GID;
    args.size == 0 && !args.valid.intersects(before)
}

/// Has the host clear SUID and SGID of the file whose size is to change, if the guest says so.
fn clear_suid_sgid(args: &SetattrIn) -> Result<()> {
    let kill = args.valid.contains(SetattrValid::KILL_SUIDGID);
    SuidSgid::cleared_if(kill).apply()
}

fn new_times(args: &SetattrIn) -> Result<Option<Timestamps>> {
    let wanted = |set, now, seconds: u64, nanoseconds: u32| {
        let tv_nsec = if args.valid.contains(now) {
            UTIME_NOW
        } else if !args.valid.contains(set) {
            UTIME_OMIT
        } else if nanoseconds < SECOND {
            nanoseconds.into()
        } else {
            return Err(Errno::EINVAL);
        };
        let tv_sec = seconds.cast_signed();
        Ok(Timespec { tv_sec, tv_nsec })
    };
    let (atime, atime_now) = (SetattrValid::ATIME, SetattrValid::ATIME_NOW);
    let (mtime, mtime_now) = (SetattrValid::MTIME, SetattrValid::MTIME_NOW);
    let times = Timestamps {
        last_access: wanted(atime, atime_now, args.atime, args.atimensec)?,
        last_modification: wanted(mtime, mtime_now, args.mtime, args.mtimensec)?,
    };
    let any = atime | atime_now | mtime | mtime_now;
    Ok(args.valid.intersects(any).then_some(times))
}

/// The attributes of an open file.
pub(crate) fn stat_fd(fd: impl AsFd) -> Result<Statx> {
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, MASK)?)
}

/// The attributes of what `name` names in `dir`, without opening it.
pub(crate) fn stat_name(dir: impl AsFd, name: &CStr) -> Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(dir, name, flags, MASK)?)
}

pub(crate) fn identity(stat: &Statx) -> Identity {
    Identity {
        ino: stat.stx_ino,
        dev: device(stat),
        mount: stat.stx_mnt_id,
    }
}

pub(crate) fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

/// The birth time, if the filesystem has one.
pub(crate) fn birth(stat: &Statx) -> Option<Birth> {
    let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

pub(crate) fn kind(stat: &Statx) -> Kind {
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => Kind::Regular,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    }
}

/// A device number as the kernel packs it into 32 bits: 12 bits of the major number between the
/// low 8 and the high 12 bits of the minor number.
pub(crate) const fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// The major and the minor number of a packed device number.
pub(crate) const fn decode_device(device: u32) -> (u32, u32) {
    (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    )
}

fn wire_time(time: StatxTimestamp) -> SxTime {
    SxTime {
        sec: time.tv_sec,
        nsec: time.tv_nsec,
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_packing() {
        for (major, minor) in [(1, 3), (0xfff, 0xf_ffff), (8, 256), (253, 0), (0, 0)] {
            assert_eq!(decode_device(encode_device(major, minor)), (major, minor));
        }
        assert_eq!(encode_device(1, 3), 0x103);
        assert_eq!(encode_device(8, 256), 0x10_0800);
    }
}
