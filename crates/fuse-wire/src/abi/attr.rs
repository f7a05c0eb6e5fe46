use crate::flags::{AttrFlags, GetattrFlags, SetattrValid};
use crate::{Handle, NodeId};

wire_struct! {
    /// What stat(2) tells of an inode (`fuse_attr`, 88 bytes).
    Attr {
        /// Inode number as the guest shall see it.
        ino: u64,
        /// Size in bytes.
        size: u64,
        /// Allocated units of 512 bytes.
        blocks: u64,
        /// Access time, seconds.
        atime: u64,
        /// Modification time, seconds.
        mtime: u64,
        /// Change time, seconds.
        ctime: u64,
        /// Access time, nanoseconds.
        atimensec: u32,
        /// Modification time, nanoseconds.
        mtimensec: u32,
        /// Change time, nanoseconds.
        ctimensec: u32,
        /// Type and permissions (`st_mode`).
        mode: u32,
        /// Number of hard links.
        nlink: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Device number of a device node, in the kernel's 32-bit encoding.
        rdev: u32,
        /// Preferred size of I/O in bytes.
        blksize: u32,
        /// Submount and DAX marks.
        flags: AttrFlags,
    }
}

wire_struct! {
    /// Reply to GETATTR and SETATTR (`fuse_attr_out`, 104 bytes).
    AttrOut {
        /// Seconds for which the attributes may be cached.
        attr_valid: u64,
        /// Nanoseconds of it.
        attr_valid_nsec: u32,
        /// Reserved.
        dummy: u32,
        /// The attributes.
        attr: Attr,
    }
}

wire_struct! {
    /// Reply to LOOKUP and to what creates an entry (`fuse_entry_out`, 128 bytes).
    EntryOut {
        /// The inode, or [`NodeId::NEGATIVE`].
        nodeid: NodeId,
        /// Makes (node id, generation) unique for the life of the filesystem.
        generation: u64,
        /// Seconds for which the name may be cached.
        entry_valid: u64,
        /// Seconds for which the attributes may be cached.
        attr_valid: u64,
        /// Nanoseconds of `entry_valid`.
        entry_valid_nsec: u32,
        /// Nanoseconds of `attr_valid`.
        attr_valid_nsec: u32,
        /// The attributes.
        attr: Attr,
    }
}

wire_struct! {
    /// GETATTR (`fuse_getattr_in`, 16 bytes).
    GetattrIn {
        /// Whether `fh` counts.
        getattr_flags: GetattrFlags,
        /// Reserved.
        dummy: u32,
        /// An open handle of the inode.
        fh: Handle,
    }
}

wire_struct! {
    /// SETATTR (`fuse_setattr_in`, 88 bytes).
    SetattrIn {
        /// Which fields count.
        valid: SetattrValid,
        /// Reserved.
        padding: u32,
        /// An open handle of the inode.
        fh: Handle,
        /// New size in bytes.
        size: u64,
        /// Owner of locks that the change must respect.
        lock_owner: u64,
        /// New access time, seconds.
        atime: u64,
        /// New modification time, seconds.
        mtime: u64,
        /// New change time, seconds.
        ctime: u64,
        /// New access time, nanoseconds.
        atimensec: u32,
        /// New modification time, nanoseconds.
        mtimensec: u32,
        /// New change time, nanoseconds.
        ctimensec: u32,
        /// New type and permissions; only the permissions can change.
        mode: u32,
        /// Reserved.
        unused4: u32,
        /// New owner.
        uid: u32,
        /// New group.
        gid: u32,
        /// Reserved.
        unused5: u32,
    }
}

wire_struct! {
    /// Space and inodes of a filesystem (`fuse_kstatfs`, 80 bytes; the reply to STATFS).
    Kstatfs {
        /// Blocks in all, in units of `frsize`.
        blocks: u64,
        /// Free blocks.
        bfree: u64,
        /// Free blocks for an ordinary user.
        bavail: u64,
        /// Inodes in all.
        files: u64,
        /// Free inodes.
        ffree: u64,
        /// Preferred size of I/O in bytes.
        bsize: u32,
        /// Longest name in bytes.
        namelen: u32,
        /// Size of a block in bytes.
        frsize: u32,
        /// Reserved.
        padding: u32,
        /// Reserved.
        spare: [u32; 6],
    }
}

wire_struct! {
    /// STATX (`fuse_statx_in`, 24 bytes).
    StatxIn {
        /// Whether `fh` counts.
        getattr_flags: GetattrFlags,
        /// Reserved.
        reserved: u32,
        /// An open handle of the inode.
        fh: Handle,
        /// `AT_STATX_*` flags of statx(2).
        sx_flags: u32,
        /// `STATX_*`: the fields asked for.
        sx_mask: u32,
    }
}

wire_struct! {
    /// A time in [`Statx`] (`fuse_sx_time`, 16 bytes).
    SxTime {
        /// Seconds.
        sec: i64,
        /// Nanoseconds.
        nsec: u32,
        /// Reserved.
        reserved: i32,
    }
}

wire_struct! {
    /// What statx(2) tells of an inode (`fuse_statx`, 256 bytes).
    Statx {
        /// `STATX_*`: the fields that are filled in.
        mask: u32,
        /// Preferred size of I/O in bytes.
        blksize: u32,
        /// `STATX_ATTR_*` of the file.
        attributes: u64,
        /// Number of hard links.
        nlink: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Type and permissions.
        mode: u16,
        /// Reserved.
        spare0: u16,
        /// Inode number.
        ino: u64,
        /// Size in bytes.
        size: u64,
        /// Allocated units of 512 bytes.
        blocks: u64,
        /// Which `attributes` are supported.
        attributes_mask: u64,
        /// Access time.
        atime: SxTime,
        /// Time of creation.
        btime: SxTime,
        /// Change time.
        ctime: SxTime,
        /// Modification time.
        mtime: SxTime,
        /// Major number of a device node.
        rdev_major: u32,
        /// Minor number of a device node.
        rdev_minor: u32,
        /// Major number of the device that holds the inode.
        dev_major: u32,
        /// Minor number of the device that holds the inode.
        dev_minor: u32,
        /// Reserved.
        spare2: [u64; 14],
    }
}

wire_struct! {
    /// Reply to STATX (`fuse_statx_out`, 288 bytes).
    StatxOut {
        /// Seconds for which the attributes may be cached.
        attr_valid: u64,
        /// Nanoseconds of it.
        attr_valid_nsec: u32,
        /// Submount and DAX marks.
        flags: AttrFlags,
        /// Reserved.
        spare: [u64; 2],
        /// The attributes.
        stat: Statx,
    }
}
