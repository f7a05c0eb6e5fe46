use crate::Handle;
use crate::flags::LkFlags;

wire_struct! {
    /// A lock on a range of a file (`fuse_file_lock`, 24 bytes).
    FileLock {
        /// First byte.
        start: u64,
        /// Last byte, inclusive; `i64::MAX` is the end of the file, wherever it will be.
        end: u64,
        /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK` of fcntl(2).
        lock_type: u32,
        /// Process that holds the lock.
        pid: u32,
    }
}

wire_struct! {
    /// GETLK, SETLK and SETLKW (`fuse_lk_in`, 48 bytes).
    LkIn {
        /// The handle.
        fh: Handle,
        /// Owner of the lock.
        owner: u64,
        /// The lock.
        lk: FileLock,
        /// POSIX or flock(2).
        lk_flags: LkFlags,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// Reply to GETLK (`fuse_lk_out`, 24 bytes).
    LkOut {
        /// The lock that stands in the way, or one of type `F_UNLCK`.
        lk: FileLock,
    }
}
