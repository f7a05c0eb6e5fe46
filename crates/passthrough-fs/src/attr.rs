use std::ffi::CStr;
use std::os::fd::AsFd;

use fuse_fs::abi::{Attr, Kstatfs, SetattrIn, Statx as WireStatx, SxTime};
use fuse_fs::flags::{AttrFlags, SetattrValid};
use fuse_fs::{Attributes, Context, Errno, NodeId, Result, StatxAttributes};
use rustix::fs::{
    AtFlags, FileType, Gid, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid,
};

use crate::PassthroughFs;
use crate::credentials::KillPrivileges;
use crate::inode_table::{Identity, Kind, Pinned};
use crate::namespace::permissions;
use crate::proc::FdName;

/// What is asked of statx(2), always.
const MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);
/// Nanoseconds in a second. Larger values have meanings of their own to utimensat(2).
const SECOND: u32 = 1_000_000_000;

impl PassthroughFs {
    pub(crate) fn do_getattr(&self, cx: &Context<'_>, node: NodeId) -> Result<Attributes> {
        self.attributes(&self.inode(cx, node)?)
    }

    pub(crate) fn do_statx(&self, cx: &Context<'_>, node: NodeId) -> Result<StatxAttributes> {
        let inode = self.inode(cx, node)?;
        let mask = MASK | StatxFlags::BTIME;
        let stat = rustix::fs::statx(&inode, c"", AtFlags::EMPTY_PATH, mask)?;
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
        // What is wrong in itself is refused before anything has changed.
        let (uid, gid) = new_owner(args)?;
        let times = new_times(args)?;
        let own_name = FdName::new(&inode)?;
        let path = own_name.as_c_str();
        if args.valid.contains(SetattrValid::MODE) {
            let mode = permissions(args.mode);
            rustix::fs::chmodat(self.proc.dir(), path, mode, AtFlags::empty())?;
        }
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(&inode, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if args.valid.contains(SetattrValid::SIZE) {
            self.change_size(cx, node, &inode, args)?;
        }
        if let Some(times) = times {
            rustix::fs::utimensat(self.proc.dir(), path, &times, AtFlags::empty())?;
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

    fn change_size(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        inode: &Pinned,
        args: &SetattrIn,
    ) -> Result<()> {
        if inode.kind != Kind::Regular {
            return Err(Errno::EINVAL.into());
        }
        let kill = args.valid.contains(SetattrValid::KILL_SUIDGID);
        if args.valid.contains(SetattrValid::FH) {
            let file = self.file(args.fh, node)?;
            let _killing = KillPrivileges::begin(kill)?;
            return Ok(rustix::fs::ftruncate(&file.fd, args.size)?);
        }
        let file = self.reopen_file(cx, inode, OFlags::WRONLY)?;
        let _killing = KillPrivileges::begin(kill)?;
        Ok(rustix::fs::ftruncate(&file, args.size)?)
    }

    /// Attributes as the guest reads them. Seconds before 1970 are negative numbers in two's
    /// complement.
    pub(crate) fn attr(&self, stat: &Statx) -> Attr {
        Attr {
            ino: stat.stx_ino,
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
            uid: stat.stx_uid,
            gid: stat.stx_gid,
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
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: stat.stx_mode,
            ino: stat.stx_ino,
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

fn new_owner(args: &SetattrIn) -> Result<(Option<Uid>, Option<Gid>)> {
    let wanted = |bit, id| match (args.valid.contains(bit), id) {
        (false, _) => Ok(None),
        // To chown(2) this is no id but "leave as it is".
        (true, u32::MAX) => Err(Errno::EINVAL),
        (true, id) => Ok(Some(id)),
    };
    let uid = wanted(SetattrValid::UID, args.uid)?.map(Uid::from_raw);
    let gid = wanted(SetattrValid::GID, args.gid)?.map(Gid::from_raw);
    Ok((uid, gid))
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
        dev: (stat.stx_dev_major, stat.stx_dev_minor),
        mount: stat.stx_mnt_id,
    }
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
