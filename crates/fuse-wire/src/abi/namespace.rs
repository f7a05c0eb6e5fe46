use crate::NodeId;
use crate::flags::RenameFlags;

wire_struct! {
    /// FORGET (`fuse_forget_in`, 8 bytes).
    ForgetIn {
        /// Lookups to take back.
        nlookup: u64,
    }
}

wire_struct! {
    /// One of BATCH_FORGET's (`fuse_forget_one`, 16 bytes).
    ForgetOne {
        /// The inode.
        nodeid: NodeId,
        /// Lookups to take back.
        nlookup: u64,
    }
}

wire_struct! {
    /// BATCH_FORGET (`fuse_batch_forget_in`, 8 bytes); `count` times [`ForgetOne`] follow.
    BatchForgetIn {
        /// Number of inodes.
        count: u32,
        /// Reserved.
        dummy: u32,
    }
}

wire_struct! {
    /// MKNOD (`fuse_mknod_in`, 16 bytes); the name follows.
    MknodIn {
        /// Type and permissions, the umask applied unless DONT_MASK was agreed.
        mode: u32,
        /// Device number, in the kernel's 32-bit encoding.
        rdev: u32,
        /// The caller's umask.
        umask: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// MKDIR (`fuse_mkdir_in`, 8 bytes); the name follows.
    MkdirIn {
        /// Permissions, the umask applied unless DONT_MASK was agreed.
        mode: u32,
        /// The caller's umask.
        umask: u32,
    }
}

wire_struct! {
    /// RENAME (`fuse_rename_in`, 8 bytes); the old and the new name follow.
    RenameIn {
        /// Directory of the new name.
        newdir: NodeId,
    }
}

wire_struct! {
    /// RENAME2 (`fuse_rename2_in`, 16 bytes); the old and the new name follow.
    Rename2In {
        /// Directory of the new name.
        newdir: NodeId,
        /// As of renameat2(2).
        flags: RenameFlags,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// LINK (`fuse_link_in`, 8 bytes); the new name follows.
    LinkIn {
        /// The inode that gets another name.
        oldnodeid: NodeId,
    }
}

wire_struct! {
    /// ACCESS (`fuse_access_in`, 8 bytes).
    AccessIn {
        /// `R_OK`, `W_OK`, `X_OK` of access(2).
        mask: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// INTERRUPT (`fuse_interrupt_in`, 8 bytes).
    InterruptIn {
        /// The request that its caller no longer waits for.
        unique: u64,
    }
}

wire_struct! {
    /// SYNCFS (`fuse_syncfs_in`, 8 bytes).
    SyncfsIn {
        /// Reserved.
        padding: u64,
    }
}
