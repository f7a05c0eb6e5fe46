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
//! * [`ReadOnly`] makes a filesystem that nobody can change of another, [`Exports`] one filesystem of
//!   several.
//!
//! There is no I/O in here and there are no threads; but for the timestamps of [`MemFs`], there is
//! no clock either. A test drives it all by hand.
//!
//! # A filesystem of one file
//!
//! ```
//! use std::time::Duration;
//!
//! use fuse_fs::abi::{Attr, InHeader, InitIn, Kstatfs, OpenIn, ReadIn};
//! use fuse_fs::*;
//! use fuse_wire::{LookupName, Operation, Request};
//!
//! const FILE: NodeId = NodeId(2);
//! const TEXT: &[u8] = b"Hello, guest!\n";
//! const VALID: Duration = Duration::from_secs(1);
//!
//! struct Hello;
//!
//! fn attr(node: NodeId) -> Result<Attr> {
//!     let (mode, nlink, size) = match node {
//!         NodeId::ROOT => (0o040_555, 2, 0),
//!         FILE => (0o100_444, 1, TEXT.len() as u64),
//!         _ => return Err(Errno::ESTALE.into()),
//!     };
//!     Ok(Attr { ino: node.0, mode, nlink, size, ..Default::default() })
//! }
//!
//! impl FileSystem for Hello {
//!     fn lookup(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Entry> {
//!         if parent != NodeId::ROOT || name.as_bytes() != b"hello" {
//!             return Err(Errno::ENOENT.into());
//!         }
//!         let attr = attr(FILE)?;
//!         Ok(Entry { node: FILE, generation: 0, attr, attr_valid: VALID, entry_valid: VALID })
//!     }
//!
//!     fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<Handle>) -> Result<Attributes> {
//!         Ok(Attributes { attr: attr(node)?, valid: VALID })
//!     }
//!
//!     fn open(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
//!         Ok(Opened::default())
//!     }
//!
//!     fn read(
//!         &self,
//!         _: &Context<'_>,
//!         node: NodeId,
//!         args: &ReadIn,
//!         sink: &mut dyn PayloadSink,
//!     ) -> Result<usize> {
//!         if node != FILE {
//!             return Err(Errno::EISDIR.into());
//!         }
//!         let start = TEXT.len().min(args.offset as usize);
//!         let len = (TEXT.len() - start).min(args.size as usize);
//!         Ok(sink.write(&TEXT[start..start + len]))
//!     }
//!
//!     fn opendir(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
//!         Ok(Opened::default())
//!     }
//!
//!     fn readdir(
//!         &self,
//!         _: &Context<'_>,
//!         _: NodeId,
//!         args: &ReadIn,
//!         entries: &mut DirentWriter<'_>,
//!     ) -> Result<()> {
//!         let all = [(1, 4, "."), (1, 4, ".."), (2, 8, "hello")];
//!         for (cookie, (ino, kind, name)) in (1..).zip(all).skip(args.offset as usize) {
//!             if !entries.push(ino, cookie, kind, name.as_bytes()) {
//!                 break;
//!             }
//!         }
//!         Ok(())
//!     }
//!
//!     fn statfs(&self, _: &Context<'_>, _: NodeId) -> Result<Kstatfs> {
//!         Ok(Kstatfs::default())
//!     }
//! }
//!
//! // What a transport does with each request: here without a guest.
//! let session = Session::with_config(Hello, SessionConfig::new().access(Access::ReadOnly));
//! let ask = |nodeid, operation| {
//!     let header = InHeader { unique: 1, nodeid, ..Default::default() };
//!     let request = Request { header, operation, extensions: Extensions::default() };
//!     let mut message = [0; 256];
//!     let len = request.encode(0, Default::default(), &mut message).unwrap();
//!     let (mut reply, mut payload) = (vec![0; REPLY_BUFFER], [0; 256]);
//!     let outcome = session.serve(
//!         &message[..len],
//!         &mut BufferSource::new(&[]),
//!         Some(&mut BufferSink::new(&mut payload)),
//!         &mut reply,
//!         Blocking::Allowed,
//!     );
//!     match outcome {
//!         Outcome::Reply { head, payload: len } => [&reply[16..head], &payload[..len]].concat(),
//!         other => panic!("{other:?}"),
//!     }
//! };
//! ask(NodeId(0), Operation::Init(InitIn { major: 7, minor: 45, ..Default::default() }));
//! ask(NodeId::ROOT, Operation::Lookup { name: LookupName::new(c"hello").unwrap() });
//! let read = ReadIn { offset: 7, size: 100, ..Default::default() };
//! assert_eq!(ask(FILE, Operation::Read(read)), b"guest!\n");
//! ```

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
mod exports;
mod filesystem;
mod memfs;
mod negotiate;
mod payload;
mod policy;
mod read_only;
mod serve;
mod session;
mod state;
mod types;
mod window;

pub use context::Context;
pub use error::{Error, Result};
pub use exports::{ExportError, Exports};
pub use filesystem::FileSystem;
pub use memfs::MemFs;
pub use payload::{BufferSink, BufferSource, IoFlags, PayloadSink, PayloadSource};
pub use read_only::ReadOnly;
pub use serve::{Blocking, Outcome, REPLY_BUFFER, Serve};
pub use session::{Access, Session, SessionConfig, SessionStats};
pub use state::{State, StateForm, StateReader, StateWriter};
pub use types::{Attributes, Entry, Negotiation, Opened, StatxAttributes};
pub use window::{DaxWindow, Mapping};

pub use fuse_wire::abi;
pub use fuse_wire::flags;
pub use fuse_wire::{
    DirentPlusWriter, DirentWriter, Errno, Extensions, Handle, Name, NodeId, SecurityContext,
    SecurityContexts, SymlinkTarget, XattrName,
};
