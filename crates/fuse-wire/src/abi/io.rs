use crate::flags::{IoctlFlags, PollFlags, ReadFlags, WriteFlags};
use crate::{Handle, NodeId};

wire_struct! {
    /// READ, READDIR and READDIRPLUS (`fuse_read_in`, 40 bytes).
    ReadIn {
        /// The handle.
        fh: Handle,
        /// Position in bytes; of a directory, the cookie of the last entry seen, or 0.
        offset: u64,
        /// Most bytes to return.
        size: u32,
        /// Whether `lock_owner` counts.
        read_flags: ReadFlags,
        /// Owner of locks that the read must respect.
        lock_owner: u64,
        /// The file's flags of open(2) at this time.
        flags: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// WRITE (`fuse_write_in`, 40 bytes); `size` bytes of data follow.
    WriteIn {
        /// The handle.
        fh: Handle,
        /// Position in bytes.
        offset: u64,
        /// Bytes of data.
        size: u32,
        /// Where the write comes from.
        write_flags: WriteFlags,
        /// Owner of locks that the write must respect.
        lock_owner: u64,
        /// The file's flags of open(2) at this time.
        flags: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// Reply to WRITE and COPY_FILE_RANGE (`fuse_write_out`, 8 bytes).
    WriteOut {
        /// Bytes written.
        size: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// LSEEK (`fuse_lseek_in`, 24 bytes).
    LseekIn {
        /// The handle.
        fh: Handle,
        /// Position in bytes.
        offset: u64,
        /// `SEEK_DATA` or `SEEK_HOLE` of lseek(2).
        whence: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// Reply to LSEEK (`fuse_lseek_out`, 8 bytes).
    LseekOut {
        /// The position found, in bytes.
        offset: u64,
    }
}

wire_struct! {
    /// FALLOCATE (`fuse_fallocate_in`, 32 bytes).
    FallocateIn {
        /// The handle.
        fh: Handle,
        /// Start of the range in bytes.
        offset: u64,
        /// Length of the range in bytes.
        length: u64,
        /// `FALLOC_FL_*` of fallocate(2).
        mode: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64 (`fuse_copy_file_range_in`, 56 bytes). The header's
    /// inode is the source.
    CopyFileRangeIn {
        /// Handle of the source.
        fh_in: Handle,
        /// Position in the source in bytes.
        off_in: u64,
        /// The destination.
        nodeid_out: NodeId,
        /// Handle of the destination.
        fh_out: Handle,
        /// Position in the destination in bytes.
        off_out: u64,
        /// Bytes to copy.
        len: u64,
        /// Flags of copy_file_range(2): none are defined.
        flags: u64,
    }
}

wire_struct! {
    /// Reply to COPY_FILE_RANGE_64 (`fuse_copy_file_range_out`, 8 bytes).
    CopyFileRangeOut {
        /// Bytes copied.
        bytes_copied: u64,
    }
}

wire_struct! {
    /// BMAP (`fuse_bmap_in`, 16 bytes).
    BmapIn {
        /// Block of the file.
        block: u64,
        /// Size of a block in bytes.
        blocksize: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// Reply to BMAP (`fuse_bmap_out`, 8 bytes).
    BmapOut {
        /// Block of the device.
        block: u64,
    }
}

wire_struct! {
    /// IOCTL (`fuse_ioctl_in`, 32 bytes); `in_size` bytes of data follow.
    IoctlIn {
        /// The handle.
        fh: Handle,
        /// How it was called.
        flags: IoctlFlags,
        /// The command.
        cmd: u32,
        /// The argument as the caller passed it.
        arg: u64,
        /// Bytes of input data.
        in_size: u32,
        /// Most bytes of output data.
        out_size: u32,
    }
}

wire_struct! {
    /// A piece of the caller's memory that a retry of an IOCTL shall carry
    /// (`fuse_ioctl_iovec`, 16 bytes).
    IoctlIovec {
        /// Address in the caller.
        base: u64,
        /// Length in bytes.
        len: u64,
    }
}

wire_struct! {
    /// Reply to IOCTL (`fuse_ioctl_out`, 16 bytes); output data follows.
    IoctlOut {
        /// What ioctl(2) shall return.
        result: i32,
        /// [`IoctlFlags::RETRY`] or none.
        flags: IoctlFlags,
        /// Input vectors of a retry.
        in_iovs: u32,
        /// Output vectors of a retry.
        out_iovs: u32,
    }
}

wire_struct! {
    /// POLL (`fuse_poll_in`, 24 bytes).
    PollIn {
        /// The handle.
        fh: Handle,
        /// Names the waiter in a later notification.
        kh: u64,
        /// Whether to notify.
        flags: PollFlags,
        /// `POLL*` events of poll(2) asked for.
        events: u32,
    }
}

wire_struct! {
    /// Reply to POLL (`fuse_poll_out`, 8 bytes).
    PollOut {
        /// `POLL*` events that are there.
        revents: u32,
        /// Reserved.
        padding: u32,
    }
}
