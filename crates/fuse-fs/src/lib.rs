//! What a FUSE filesystem is, apart from how requests reach it.
//!
//! * [`FileSystem`] is the trait to implement: one method per operation, typed arguments, typed
//!   results.
//! * [`Session`] decodes a request, checks it against what INIT agreed on and the session's
//!   policy, calls the filesystem, and encodes the reply.
//! * [`Serve`] is a session without its type parameter, for transports: the queue engine of a
//!   virtio-fs device, a loop over `/dev/fuse`.
//! * [`PayloadSink`] and [`PayloadSource`] carry the data of READ and WRITE. The transport
//!   implements them, so that data moves between a file and a guest's memory without a copy, and
//!   without `unsafe` in the filesystem.
//! * [`MemFs`] is a small, complete filesystem in memory.
//!
//! There are no descriptors, threads or clocks of its own in here; a test drives it by hand.

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

mod context;
mod dispatch;
mod error;
mod filesystem;
mod memfs;
mod negotiate;
mod payload;
mod policy;
mod serve;
mod session;
mod types;

pub use context::Context;
pub use error::{Error, Result};
pub use filesystem::FileSystem;
pub use memfs::MemFs;
pub use payload::{BufferSink, BufferSource, IoFlags, PayloadSink, PayloadSource};
pub use serve::{Blocking, Outcome, REPLY_BUFFER, Serve};
pub use session::{Access, Session, SessionConfig, SessionStats};
pub use types::{Attributes, Entry, Negotiation, Opened, StatxAttributes};

pub use fuse_wire::abi;
pub use fuse_wire::flags;
pub use fuse_wire::{
    DirentPlusWriter, DirentWriter, Errno, Extensions, Handle, Name, NodeId, SymlinkTarget,
    XattrName,
};
