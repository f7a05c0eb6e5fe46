use crate::NodeId;
use crate::flags::NotifyInvalEntryFlags;

wire_struct! {
    /// POLL notification (`fuse_notify_poll_wakeup_out`, 8 bytes).
    NotifyPollWakeupOut {
        /// The waiter that POLL named.
        kh: u64,
    }
}

wire_struct! {
    /// INVAL_INODE notification (`fuse_notify_inval_inode_out`, 24 bytes).
    NotifyInvalInodeOut {
        /// The inode.
        ino: NodeId,
        /// First byte of data to drop; negative: attributes only.
        off: i64,
        /// Bytes to drop; 0 or less: to the end.
        len: i64,
    }
}

wire_struct! {
    /// INVAL_ENTRY notification (`fuse_notify_inval_entry_out`, 16 bytes); the name with NUL
    /// follows.
    NotifyInvalEntryOut {
        /// The directory.
        parent: NodeId,
        /// Length of the name in bytes, without NUL.
        namelen: u32,
        /// Drop or expire.
        flags: NotifyInvalEntryFlags,
    }
}

wire_struct! {
    /// DELETE notification (`fuse_notify_delete_out`, 24 bytes); the name with NUL follows.
    NotifyDeleteOut {
        /// The directory.
        parent: NodeId,
        /// The inode that was deleted.
        child: NodeId,
        /// Length of the name in bytes, without NUL.
        namelen: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// STORE notification (`fuse_notify_store_out`, 24 bytes); the data follows.
    NotifyStoreOut {
        /// The inode.
        nodeid: NodeId,
        /// Position in bytes.
        offset: u64,
        /// Bytes of data.
        size: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// RETRIEVE notification (`fuse_notify_retrieve_out`, 32 bytes).
    NotifyRetrieveOut {
        /// Names the NOTIFY_REPLY.
        notify_unique: u64,
        /// The inode.
        nodeid: NodeId,
        /// Position in bytes.
        offset: u64,
        /// Most bytes to return.
        size: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// NOTIFY_REPLY (`fuse_notify_retrieve_in`, 40 bytes); `size` bytes of data follow.
    NotifyRetrieveIn {
        /// Reserved.
        dummy1: u64,
        /// Position in bytes.
        offset: u64,
        /// Bytes of data.
        size: u32,
        /// Reserved.
        dummy2: u32,
        /// Reserved.
        dummy3: u64,
        /// Reserved.
        dummy4: u64,
    }
}

wire_struct! {
    /// PRUNE notification (`fuse_notify_prune_out`, 16 bytes); `count` node ids follow.
    NotifyPruneOut {
        /// Number of inodes.
        count: u32,
        /// Reserved.
        padding: u32,
        /// Reserved.
        spare: u64,
    }
}
