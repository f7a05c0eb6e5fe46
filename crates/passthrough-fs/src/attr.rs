use std::ffi::CStr;
use std::os::fd::AsFd;

use fuse_fs::abi::{Attr, Kstatfs, SetattrIn, Statx as WireStatx, SxTime};
use fuse_fs::flags::{AttrFlags, SetattrValid};
use fuse_fs::{Attributes, Context, Errno, Error, NodeId, Result, StatxAttributes};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    Uid,
};

use crate::PassthroughFs;
use crate::credentials::KillPrivileges;
use crate::inode_table::{Identity, Inode, Kind};
use crate::proc::FdName;
use crate::volume::Storage;

/// What is asked of statx(2), always.
const MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);
/// Bits of a mode that chmod(2) can change.
const PERMISSIONS: u32 = 0o7777;
/// Nanoseconds in a second. Larger values have meanings of their own to utimensat(2).
const SECOND: u32 = 1_000_000_000;

impl PassthroughFs {
    pub(crate) fn do_getattr(&self, node: NodeId) -> Result<Attributes> {
        self.attributes(&*self.inode(node)?)
    }

    pub(crate) fn do_statx(&self, node: NodeId) -> Result<StatxAttributes> {
        let inode = self.inode(node)?;
        let mask = MASK | StatxFlags::BTIME;
        let stat = rustix::fs::statx(&inode.fd, c"", AtFlags::EMPTY_PATH, mask)?;
        Ok(StatxAttributes {
            stat: wire_statx(&stat),
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
        let inode = self.inode(node)?;
        let valid = args.valid;
        if valid.contains(SetattrValid::MODE) {
            self.change_mode(&inode, args.mode)?;
        }
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) {
            change_owner(&inode, args)?;
        }
        if valid.contains(SetattrValid::SIZE) {
            self.change_size(cx, node, &inode, args)?;
        }
        let times = SetattrValid::ATIME
            | SetattrValid::MTIME
            | SetattrValid::ATIME_NOW
            | SetattrValid::MTIME_NOW;
        if valid.intersects(times) {
            self.change_times(&inode, args)?;
        }
        // No system call sets the change time; what was changed has just set it to now.
        self.attributes(&inode)
    }

    pub(crate) fn do_statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<Kstatfs> {
        let inode = self.inode(node)?;
        if !cx.may_block() && inode.volume.storage == Storage::Remote {
            return Err(Error::WouldBlock);
        }
        let stat = rustix::fs::fstatvfs(&inode.fd)?;
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

    fn attributes(&self, inode: &Inode) -> Result<Attributes> {
        Ok(Attributes {
            attr: attr(&stat_fd(&inode.fd)?),
            valid: self.timeout,
        })
    }

    fn change_mode(&self, inode: &Inode, mode: u32) -> Result<()> {
        let name = FdName::new(&inode.fd)?;
        let mode = Mode::from_raw_mode(mode & PERMISSIONS);
        let empty = AtFlags::empty();
        Ok(rustix::fs::chmodat(
            self.proc.dir(),
            name.as_c_str(),
            mode,
            empty,
        )?)
    }

    fn change_size(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        inode: &Inode,
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

    fn change_times(&self, inode: &Inode, args: &SetattrIn) -> Result<()> {
        let valid = args.valid;
        let times = Timestamps {
            last_access: timespec(
                valid.contains(SetattrValid::ATIME),
                valid.contains(SetattrValid::ATIME_NOW),
                (args.atime, args.atimensec),
            )?,
            last_modification: timespec(
                valid.contains(SetattrValid::MTIME),
                valid.contains(SetattrValid::MTIME_NOW),
                (args.mtime, args.mtimensec),
            )?,
        };
        let name = FdName::new(&inode.fd)?;
        let empty = AtFlags::empty();
        Ok(rustix::fs::utimensat(
            self.proc.dir(),
            name.as_c_str(),
            &times,
            empty,
        )?)
    }
}

fn change_owner(inode: &Inode, args: &SetattrIn) -> Result<()> {
    let wanted = |bit, id| match (args.valid.contains(bit), id) {
        (false, _) => Ok(None),
        // To chown(2) this is no id but "leave as it is".
        (true, u32::MAX) => Err(Errno::EINVAL),
        (true, id) => Ok(Some(id)),
    };
    let uid = wanted(SetattrValid::UID, args.uid)?.map(Uid::from_raw);
    let gid = wanted(SetattrValid::GID, args.gid)?.map(Gid::from_raw);
    Ok(rustix::fs::chownat(
        &inode.fd,
        c"",
        uid,
        gid,
        AtFlags::EMPTY_PATH,
    )?)
}

fn timespec(set: bool, now: bool, (seconds, nanoseconds): (u64, u32)) -> Result<Timespec> {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    if now {
        return Ok(special(rustix::fs::UTIME_NOW));
    }
    if !set {
        return Ok(special(rustix::fs::UTIME_OMIT));
    }
    if nanoseconds >= SECOND {
        return Err(Errno::EINVAL.into());
    }
    Ok(Timespec {
        tv_sec: seconds.cast_signed(),
        tv_nsec: nanoseconds.into(),
    })
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

/// Attributes as the guest reads them. Seconds before 1970 are negative numbers in two's
/// complement.
pub(crate) fn attr(stat: &Statx) -> Attr {
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

fn wire_statx(stat: &Statx) -> WireStatx {
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
