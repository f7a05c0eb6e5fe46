//! Flag words of the protocol.
//!
//! Unknown bits are kept: a newer peer may set them, and it is not for the codec to drop them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! flags {
    ($(
        $(#[$doc:meta])*
        $name:ident: $int:ty {
            $($(#[$fdoc:ident $($fargs:tt)*])* $flag:ident = $bit:expr,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, Hash,
            FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name($int);

        bitflags::bitflags! {
            impl $name: $int {
                $($(#[$fdoc $($fargs)*])* const $flag = $bit;)*
                const _ = !0;
            }
        }
    )*};
}

flags! {
    /// What the two sides agree on in INIT (`flags` and, from bit 32, `flags2`).
    InitFlags: u64 {
        /// Reads of one handle may be sent concurrently.
        ASYNC_READ = 1 << 0,
        /// POSIX locks go to the server.
        POSIX_LOCKS = 1 << 1,
        /// Unused by Linux.
        FILE_OPS = 1 << 2,
        /// O_TRUNC is part of OPEN instead of a SETATTR of its own.
        ATOMIC_O_TRUNC = 1 << 3,
        /// LOOKUP of `.` and `..` is answered, so that the guest can export the mount by NFS.
        EXPORT_SUPPORT = 1 << 4,
        /// WRITE may exceed 4 KiB.
        BIG_WRITES = 1 << 5,
        /// The server applies the umask.
        DONT_MASK = 1 << 6,
        /// `/dev/fuse`: splice from the device for writes.
        SPLICE_WRITE = 1 << 7,
        /// `/dev/fuse`: splice may move pages.
        SPLICE_MOVE = 1 << 8,
        /// `/dev/fuse`: splice to the device for reads.
        SPLICE_READ = 1 << 9,
        /// flock(2) locks go to the server.
        FLOCK_LOCKS = 1 << 10,
        /// IOCTL on directories.
        HAS_IOCTL_DIR = 1 << 11,
        /// Cached pages are dropped when the modification time or size changes.
        AUTO_INVAL_DATA = 1 << 12,
        /// READDIRPLUS is answered.
        DO_READDIRPLUS = 1 << 13,
        /// READDIRPLUS is used only where entries were looked up before.
        READDIRPLUS_AUTO = 1 << 14,
        /// Direct I/O may be asynchronous.
        ASYNC_DIO = 1 << 15,
        /// Buffered writes are collected by the kernel.
        WRITEBACK_CACHE = 1 << 16,
        /// ENOSYS to OPEN means that no OPEN is needed.
        NO_OPEN_SUPPORT = 1 << 17,
        /// LOOKUP and READDIR of one directory may be sent concurrently.
        PARALLEL_DIROPS = 1 << 18,
        /// The server clears SUID, SGID and capabilities on every write, truncate and chown.
        HANDLE_KILLPRIV = 1 << 19,
        /// POSIX ACLs are checked by the kernel and stored by the server.
        POSIX_ACL = 1 << 20,
        /// `/dev/fuse`: reading after an abort says ECONNABORTED.
        ABORT_ERROR = 1 << 21,
        /// `init_out.max_pages` counts.
        MAX_PAGES = 1 << 22,
        /// Targets of symbolic links are cached.
        CACHE_SYMLINKS = 1 << 23,
        /// ENOSYS to OPENDIR means that no OPENDIR is needed.
        NO_OPENDIR_SUPPORT = 1 << 24,
        /// Cached pages are dropped only on request.
        EXPLICIT_INVAL_DATA = 1 << 25,
        /// `init_out.map_alignment` counts.
        MAP_ALIGNMENT = 1 << 26,
        /// [`AttrFlags::SUBMOUNT`] makes the kernel mount a submount.
        SUBMOUNTS = 1 << 27,
        /// The server clears SUID, SGID and capabilities on chown always, else when told to.
        HANDLE_KILLPRIV_V2 = 1 << 28,
        /// SETXATTR has its long form.
        SETXATTR_EXT = 1 << 29,
        /// INIT carries `flags2`.
        INIT_EXT = 1 << 30,
        /// Reserved by the protocol.
        INIT_RESERVED = 1 << 31,
        /// Creating operations carry security contexts.
        SECURITY_CTX = 1 << 32,
        /// DAX is chosen per inode.
        HAS_INODE_DAX = 1 << 33,
        /// Creating operations carry a supplementary group.
        CREATE_SUPP_GROUP = 1 << 34,
        /// [`NotifyInvalEntryFlags::EXPIRE_ONLY`] is understood.
        HAS_EXPIRE_ONLY = 1 << 35,
        /// Files with direct I/O may be mapped shared.
        DIRECT_IO_ALLOW_MMAP = 1 << 36,
        /// `/dev/fuse`: files may be passed through to a backing file.
        PASSTHROUGH = 1 << 37,
        /// The filesystem cannot be exported by NFS.
        NO_EXPORT_SUPPORT = 1 << 38,
        /// Requests may be sent again after a server was replaced.
        HAS_RESEND = 1 << 39,
        /// The mount may have mapped ids.
        ALLOW_IDMAP = 1 << 40,
        /// `/dev/fuse`: requests over io_uring.
        OVER_IO_URING = 1 << 41,
        /// `init_out.request_timeout` counts.
        REQUEST_TIMEOUT = 1 << 42,
    }

    /// Which fields of SETATTR count (`FATTR_*`).
    SetattrValid: u32 {
        /// `mode`.
        MODE = 1 << 0,
        /// `uid`.
        UID = 1 << 1,
        /// `gid`.
        GID = 1 << 2,
        /// `size`.
        SIZE = 1 << 3,
        /// `atime`.
        ATIME = 1 << 4,
        /// `mtime`.
        MTIME = 1 << 5,
        /// `fh`.
        FH = 1 << 6,
        /// The access time becomes the server's time.
        ATIME_NOW = 1 << 7,
        /// The modification time becomes the server's time.
        MTIME_NOW = 1 << 8,
        /// `lock_owner`.
        LOCKOWNER = 1 << 9,
        /// `ctime`.
        CTIME = 1 << 10,
        /// Clear SUID and SGID.
        KILL_SUIDGID = 1 << 11,
    }

    /// What the kernel may do with an open file (`FOPEN_*`).
    OpenOutFlags: u32 {
        /// Bypass the page cache.
        DIRECT_IO = 1 << 0,
        /// Do not drop cached pages at this open.
        KEEP_CACHE = 1 << 1,
        /// The file has no seekable position.
        NONSEEKABLE = 1 << 2,
        /// The directory's entries may be cached.
        CACHE_DIR = 1 << 3,
        /// The file has no position at all.
        STREAM = 1 << 4,
        /// No FLUSH at close.
        NOFLUSH = 1 << 5,
        /// Direct writes to one inode may be concurrent.
        PARALLEL_DIRECT_WRITES = 1 << 6,
        /// `backing_id` counts.
        PASSTHROUGH = 1 << 7,
    }

    /// `fuse_open_in.open_flags` and `fuse_create_in.open_flags`.
    OpenInFlags: u32 {
        /// Clear SUID and SGID if this open truncates.
        KILL_SUIDGID = 1 << 0,
    }

    /// `fuse_getattr_in.getattr_flags`.
    GetattrFlags: u32 {
        /// `fh` counts.
        FH = 1 << 0,
    }

    /// `fuse_read_in.read_flags`.
    ReadFlags: u32 {
        /// `lock_owner` counts.
        LOCKOWNER = 1 << 1,
    }

    /// `fuse_write_in.write_flags`.
    WriteFlags: u32 {
        /// From the page cache: the handle is a guess and the credentials are the kernel's.
        CACHE = 1 << 0,
        /// `lock_owner` counts.
        LOCKOWNER = 1 << 1,
        /// Clear SUID and SGID.
        KILL_SUIDGID = 1 << 2,
    }

    /// `fuse_release_in.release_flags`.
    ReleaseFlags: u32 {
        /// Flush first.
        FLUSH = 1 << 0,
        /// Drop the flock(2) lock of `lock_owner`.
        FLOCK_UNLOCK = 1 << 1,
    }

    /// `fuse_fsync_in.fsync_flags`.
    FsyncFlags: u32 {
        /// The data only, as fdatasync(2).
        FDATASYNC = 1 << 0,
    }

    /// `fuse_lk_in.lk_flags`.
    LkFlags: u32 {
        /// A flock(2) lock, not a POSIX one.
        FLOCK = 1 << 0,
    }

    /// `fuse_ioctl_in.flags` and `fuse_ioctl_out.flags`.
    IoctlFlags: u32 {
        /// From a 32-bit program on a 64-bit kernel.
        COMPAT = 1 << 0,
        /// The kernel does not know the argument's layout.
        UNRESTRICTED = 1 << 1,
        /// Reply: ask again with these vectors.
        RETRY = 1 << 2,
        /// A 32-bit ioctl.
        IOCTL_32BIT = 1 << 3,
        /// On a directory.
        DIR = 1 << 4,
        /// From an x32 program.
        COMPAT_X32 = 1 << 5,
    }

    /// `fuse_poll_in.flags`.
    PollFlags: u32 {
        /// Notify when ready.
        SCHEDULE_NOTIFY = 1 << 0,
    }

    /// `fuse_setxattr_in.setxattr_flags`.
    SetxattrFlags: u32 {
        /// Clear SGID, as system.posix_acl_access is being set.
        ACL_KILL_SGID = 1 << 0,
    }

    /// `fuse_setupmapping_in.flags`.
    MappingFlags: u64 {
        /// Map writable.
        WRITE = 1 << 0,
        /// Map readable.
        READ = 1 << 1,
    }

    /// `fuse_attr.flags`.
    AttrFlags: u32 {
        /// The root of a submount.
        SUBMOUNT = 1 << 0,
        /// Use DAX for this file.
        DAX = 1 << 1,
    }

    /// `fuse_notify_inval_entry_out.flags`.
    NotifyInvalEntryFlags: u32 {
        /// Let the entry expire; do not drop it.
        EXPIRE_ONLY = 1 << 0,
    }

    /// `fuse_rename2_in.flags` (renameat2(2)).
    RenameFlags: u32 {
        /// Fail if the new name exists.
        NOREPLACE = 1 << 0,
        /// Swap the two names.
        EXCHANGE = 1 << 1,
        /// Leave a whiteout at the old name.
        WHITEOUT = 1 << 2,
    }
}
