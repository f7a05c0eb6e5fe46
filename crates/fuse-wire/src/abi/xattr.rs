use crate::flags::SetxattrFlags;

wire_struct! {
    /// SETXATTR (`fuse_setxattr_in`, 16 bytes with
    /// [`SETXATTR_EXT`](crate::flags::InitFlags::SETXATTR_EXT), else 8); name and value follow.
    SetxattrIn {
        /// Bytes of the value.
        size: u32,
        /// `XATTR_CREATE` or `XATTR_REPLACE` of setxattr(2).
        flags: u32,
        /// What the server must do besides.
        setxattr_flags: SetxattrFlags,
        /// Reserved.
        padding: u32,
    }
}

impl SetxattrIn {
    /// Length without `SETXATTR_EXT`.
    pub const COMPAT_SIZE: usize = 8;
}

wire_struct! {
    /// GETXATTR and LISTXATTR (`fuse_getxattr_in`, 8 bytes); for GETXATTR the name follows.
    GetxattrIn {
        /// Most bytes to return; 0 asks for the size.
        size: u32,
        /// Reserved.
        padding: u32,
    }
}

wire_struct! {
    /// Reply to GETXATTR and LISTXATTR of size 0 (`fuse_getxattr_out`, 8 bytes).
    GetxattrOut {
        /// Bytes that the value or the list has.
        size: u32,
        /// Reserved.
        padding: u32,
    }
}
