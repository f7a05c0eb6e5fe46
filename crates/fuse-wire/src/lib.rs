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
//! # Example
//!
//! A driver asks for the attributes of the root, a server answers.
//!
//! ```
//! use fuse_wire::abi::{Attr, AttrOut, GetattrIn, InHeader};
//! use fuse_wire::flags::InitFlags;
//! use fuse_wire::{Extensions, NodeId, Operation, Reply, Request};
//!
//! // What INIT settled.
//! let agreed = InitFlags::SETXATTR_EXT;
//!
//! // The driver.
//! let request = Request {
//!     header: InHeader { unique: 7, nodeid: NodeId::ROOT, ..Default::default() },
//!     operation: Operation::GetAttr(GetattrIn::default()),
//!     extensions: Extensions::default(),
//! };
//! let mut wire = [0; 256];
//! let len = request.encode(0, agreed, &mut wire)?;
//! assert_eq!(len, 56);
//!
//! // The server.
//! let received = Request::decode(&wire[..len], 0, agreed)?;
//! assert_eq!(received.operation, request.operation);
//! let attr = Attr { ino: 1, mode: 0o40755, nlink: 2, ..Default::default() };
//! let reply = Reply::Attr(AttrOut { attr, ..Default::default() });
//! let mut wire = [0; 256];
//! let len = reply.encode(received.header.unique, &mut wire)?;
//!
//! // The driver again.
//! let form = request.operation.reply_form().expect("GETATTR has a reply");
//! let answer = Reply::decode(form, &wire[..len])?;
//! assert_eq!((answer.unique, answer.result), (7, Ok(reply)));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Supported, and not
//!
//! * Every operation of `linux/fuse.h` 7.45, its extensions (security contexts, supplementary
//!   groups) included. Which are served is decided elsewhere.
//! * The 16 bytes of INIT before 7.36, the 8 bytes of SETXATTR without `SETXATTR_EXT`, security
//!   contexts that are not announced in the header (7.36 and 7.37), and INIT's replies of 8 and
//!   24 bytes. The structures of 7.11 and before are not read, nor CUSE, nor what macOS added.
//! * The headers of `/dev/fuse` over io_uring are not part of this crate.
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
mod list;
mod name;
mod notification;
mod opcode;
mod reply;
mod request;
mod writer;

pub use errno::Errno;
pub use ids::{Handle, NodeId};
pub use list::{ForgetList, MappingList, NodeIdList, Records};
pub use name::{LookupName, Name, NameError, SymlinkTarget, XattrName};
pub use notification::{Notification, NotificationError, NotifyCode};
pub use opcode::Opcode;
pub use reply::{
    Answer, DirEntry, DirEntryPlus, DirentError, DirentPlusWriter, DirentWriter, Dirents,
    DirentsPlus, Reply, ReplyError, ReplyForm,
};
pub use request::{
    EncodeError, Extensions, MAX_ARGUMENTS, Operation, Request, RequestError, SecurityContext,
    SecurityContexts, argument_len_before_payload,
};
pub use writer::MessageTooLong;

/// Major version of the protocol; a peer with another one cannot be served.
pub const VERSION_MAJOR: u32 = 7;
/// Newest minor version spoken.
pub const VERSION_MINOR: u32 = 45;
/// Oldest minor version that is accepted from a peer.
pub const VERSION_MINOR_OLDEST: u32 = 27;
/// First minor version whose INIT has 64 bytes.
const VERSION_MINOR_INIT_EXT: u32 = 36;
