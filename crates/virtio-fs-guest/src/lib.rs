//! What the Linux virtio-fs driver does, in user space.
//!
//! Brings up a vhost-user-fs back-end over its socket, drives its rings as Linux drives them, and
//! speaks FUSE over them: for tests, benchmarks and tools that have no virtual machine at hand.
//!
//! * [`Connection`] is the device: vhost-user set-up, memory, rings, stop and reset.
//! * [`Queue`] is one virtqueue, with many requests in flight.
//! * [`Mount`] is a mounted filesystem: a method per operation, one at a time.
//! * [`RawQueue`] posts what no driver would.
//!
//! Chains look as those of Linux do: the request's header, its arguments, its pages, then the room
//! for the reply's header, its arguments, its pages; indirect where there is more than one
//! descriptor and that was offered. Replies are checked as strictly as Linux 7.1 checks them, and
//! every wait has a time-out.
//!
//! ```no_run
//! use fuse_wire::NodeId;
//! use virtio_fs_guest::{Connection, MountOptions, Options};
//!
//! let connection = Connection::connect("/run/vfs.sock", &Options::default())?;
//! let mut mount = connection.mount(&MountOptions::default())?;
//! let file = mount.lookup(NodeId::ROOT, c"os-release")?.nodeid;
//! let handle = mount.open(file, 0)?.fh;
//! let mut text = vec![0; 4096];
//! let len = mount.read(file, handle, 0, &mut text)?;
//! println!("{}", String::from_utf8_lossy(&text[..len]));
//! mount.release(file, handle)?;
//! # Ok::<(), virtio_fs_guest::Error>(())
//! ```

#![deny(unsafe_code)]

mod buffers;
mod completion;
mod connection;
mod control;
mod error;
mod link;
mod memory;
mod mount;
mod options;
mod pages;
mod queue;
mod raw;
mod ring;
mod room;
#[allow(unsafe_code)]
mod sys;
#[cfg(test)]
mod testing;
mod watchdog;

pub use completion::Completion;
pub use connection::{Connection, DeviceConfig, QueueLayout};
pub use error::{Error, ProtocolError};
pub use memory::{Memory, PAGE};
pub use mount::{DirectoryEntry, Limits, Mount, MountOptions};
pub use options::{Backing, Offered, Options};
pub use pages::PageReuse;
pub use queue::{Caller, Notifications, Payload, Queue, Token};
pub use raw::RawQueue;
pub use ring::{Descriptor, Used};
