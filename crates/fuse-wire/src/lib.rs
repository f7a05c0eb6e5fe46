//! The FUSE protocol as bytes and as types.
//!
//! Covers FUSE 7.31 to 7.45 as virtio-fs and `/dev/fuse` carry it (`linux/fuse.h`), and reads the
//! shorter structures of peers down to 7.27. Both directions are here: a server decodes a
//! [`Request`] and encodes a [`Reply`], a driver encodes the one and decodes the other.
//!
//! Two levels:
//!
//! * [`abi`]: each structure exactly as it lies in memory, plain old data.
//! * [`Request`] and [`Reply`]: validated values that borrow from the message. Whoever holds one
//!   knows that every length agreed, that names are names, and that nothing trailed.
//!
//! Nothing here allocates, does I/O or panics, whatever the bytes: indexing, unchecked arithmetic
//! and `unwrap` are denied by lints.
//!
//! All integers are in the byte order of this machine. A guest of the other byte order is
//! recognised by its byte-swapped INIT opcode and refused ([`RequestError::ByteOrder`]).

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod abi;
mod cursor;
mod errno;
pub mod flags;
mod ids;
mod name;
mod opcode;
mod reply;
mod request;

pub use errno::Errno;
pub use ids::{Handle, NodeId};
pub use name::{LookupName, Name, NameError, SymlinkTarget, XattrName};
pub use opcode::Opcode;
pub use reply::{DirentPlusWriter, DirentWriter, Reply, ReplyTooLong};
pub use request::{
    Extensions, ForgetList, MAX_ARGUMENTS, MappingList, Operation, Request, RequestError,
    SecurityContext, SecurityContexts, argument_len_before_payload,
};

/// Major version of the protocol; a peer with another one cannot be served.
pub const VERSION_MAJOR: u32 = 7;
/// Newest minor version spoken.
pub const VERSION_MINOR: u32 = 45;
/// Oldest minor version that is accepted from a peer.
pub const VERSION_MINOR_OLDEST: u32 = 27;
