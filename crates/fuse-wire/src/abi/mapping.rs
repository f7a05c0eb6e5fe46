use crate::Handle;
use crate::flags::MappingFlags;

wire_struct! {
    /// SETUPMAPPING (`fuse_setupmapping_in`, 40 bytes): map part of a file into the DAX window.
    SetupmappingIn {
        /// The handle; Linux sends `u64::MAX` and means the inode.
        fh: Handle,
        /// Position in the file in bytes.
        foffset: u64,
        /// Bytes to map.
        len: u64,
        /// Access.
        flags: MappingFlags,
        /// Position in the window in bytes.
        moffset: u64,
    }
}

wire_struct! {
    /// REMOVEMAPPING (`fuse_removemapping_in`, 4 bytes); `count` times [`RemovemappingOne`] follow.
    RemovemappingIn {
        /// Number of ranges.
        count: u32,
    }
}

wire_struct! {
    /// One range to unmap (`fuse_removemapping_one`, 16 bytes).
    RemovemappingOne {
        /// Position in the window in bytes.
        moffset: u64,
        /// Bytes to unmap.
        len: u64,
    }
}
