use crate::Handle;
use crate::flags::{FsyncFlags, OpenInFlags, OpenOutFlags, ReleaseFlags};

wire_struct! {
    /// OPEN and OPENDIR (`fuse_open_in`, 8 bytes).
    OpenIn {
        /// Flags of open(2), without O_CREAT, O_EXCL and O_NOCTTY.
        flags: u32,
        /// What the server must do besides.
        open_flags: OpenInFlags,
    }
}

wire_struct! {
    /// CREATE and TMPFILE (`fuse_create_in`, 16 bytes); the name follows.
    CreateIn {
        /// Flags of open(2).
        flags: u32,
        /// Type and permissions, the umask applied unless DONT_MASK was agreed.
        mode: u32,
        /// The caller's umask.
        umask: u32,
        /// What the server must do besides.
        open_flags: OpenInFlags,
    }
}

wire_struct! {
    /// Reply to OPEN and OPENDIR, second half of the reply to CREATE (`fuse_open_out`, 16 bytes).
    OpenOut {
        /// The new handle.
        fh: Handle,
        /// What the kernel may do with it.
        open_flags: OpenOutFlags,
        /// With [`OpenOutFlags::PASSTHROUGH`]: the backing file.
        backing_id: i32,
    }
}

wire_struct! {
    /// RELEASE and RELEASEDIR (`fuse_release_in`, 24 bytes).
    ReleaseIn {
        /// The handle, not used again.
        fh: Handle,
        /// The flags of open(2).
        flags: u32,
        /// What the server must do besides.
        release_flags: ReleaseFlags,
        /// Owner of the flock(2) lock to drop.
        lock_owner: u64,
    }
}

wire_struct! {
    /// FLUSH, sent at each close(2) (`fuse_flush_in`, 24 bytes).
    FlushIn {
        /// The handle.
        fh: Handle,
        /// Reserved.
        unused: u32,
        /// Reserved.
        padding: u32,
        /// Owner of the POSIX locks to drop.
        lock_owner: u64,
    }
}

wire_struct! {
    /// FSYNC and FSYNCDIR (`fuse_fsync_in`, 16 bytes).
    FsyncIn {
        /// The handle.
        fh: Handle,
        /// How much to sync.
        fsync_flags: FsyncFlags,
        /// Reserved.
        padding: u32,
    }
}
