use zerocopy::FromBytes;

use crate::NodeId;

wire_struct! {
    /// Starts every request (`fuse_in_header`, 40 bytes).
    InHeader {
        /// Length of the whole request in bytes, this header included.
        len: u32,
        /// Number of the operation, see [`crate::Opcode`].
        opcode: u32,
        /// Names the request; the reply repeats it.
        unique: u64,
        /// The inode to act on.
        nodeid: NodeId,
        /// User id of the calling process.
        uid: u32,
        /// Group id of the calling process.
        gid: u32,
        /// Process id of the caller in the guest.
        pid: u32,
        /// Length of the extensions at the end of the request, in units of 8 bytes (7.38).
        total_extlen: u16,
        /// Reserved.
        padding: u16,
    }
}

impl InHeader {
    /// In `unique`: the request was sent before, to a server that was replaced
    /// (`FUSE_UNIQUE_RESEND`, 7.40).
    pub const UNIQUE_RESEND: u64 = 1 << 63;
    /// `uid` and `gid` where the caller's have no meaning to the server: with
    /// [`ALLOW_IDMAP`](crate::flags::InitFlags::ALLOW_IDMAP), for all that creates nothing
    /// (`FUSE_INVALID_UIDGID`, 7.41).
    pub const INVALID_ID: u32 = u32::MAX;

    /// The header at the start of `message`, unchecked; `None` where there are fewer than 40
    /// bytes. For answering a request that does not decode.
    #[must_use]
    pub fn peek(message: &[u8]) -> Option<Self> {
        Self::read_from_prefix(message)
            .ok()
            .map(|(header, _)| header)
    }
}

wire_struct! {
    /// Starts every reply and notification (`fuse_out_header`, 16 bytes).
    OutHeader {
        /// Length of the whole reply in bytes, this header included.
        len: u32,
        /// 0, or a negative error number; in a notification its code.
        error: i32,
        /// The request that is answered; 0 in a notification.
        unique: u64,
    }
}

wire_struct! {
    /// Starts an extension (`fuse_ext_header`, and `fuse_secctx_header`, which it generalises).
    ExtHeader {
        /// Length of the extension in bytes, this header included.
        size: u32,
        /// Up to 31: the number of security contexts that follow. 32: supplementary groups.
        ext_type: u32,
    }
}

wire_struct! {
    /// Starts the body of the extension of supplementary groups (`fuse_supp_groups`); `nr_groups`
    /// times a group id of 4 bytes follows.
    SuppGroups {
        /// Number of groups.
        nr_groups: u32,
    }
}

wire_struct! {
    /// Starts one security context (`fuse_secctx`); its name with NUL and its value follow.
    Secctx {
        /// Length of the value in bytes.
        size: u32,
        /// Reserved.
        padding: u32,
    }
}
