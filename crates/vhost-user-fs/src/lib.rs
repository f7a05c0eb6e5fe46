//! The back-end of a vhost-user-fs device.
//!
//! * [`Backend`] implements [`vhost_user_backend::VhostUserBackend`]: whoever runs a
//!   `VhostUserDaemon` can serve the device with it.
//! * [`Daemon`] runs one for each front-end that connects, one after the other: a guest that
//!   reboots and a VMM that restarts find it there, with a clean session.
//!
//! What is served is any [`fuse_fs::Serve`], such as a session over a passthrough filesystem. The
//! requests themselves are the business of [`virtio_fs_queue`].
//!
//! # The device
//! Virtio device 26 (virtio 1.x, section 5.11). Queue 0 is hiprio, the others are request queues;
//! each has a thread of its own. Offered are VERSION_1, EVENT_IDX and INDIRECT_DESC; there is no
//! notification queue and no DAX window.
//!
//! Protocol features: MQ, REPLY_ACK, CONFIGURE_MEM_SLOTS, RESET_DEVICE, and CONFIG where the device
//! has a [`Tag`]; without one the front-end names it.

#![deny(unsafe_code)]
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

mod backend;
mod config_space;
mod daemon;
mod queues;
mod sys;
mod tag;
mod vring;

pub use backend::{Backend, BackendConfig, ConfigError, MAX_REQUEST_QUEUES};
pub use daemon::{Daemon, DaemonError, StopHandle};
pub use tag::{Tag, TagError};
pub use vring::Vring;

/// Guest memory that remembers what was written to.
pub type Memory = vm_memory::GuestMemoryMmap<vhost_user_backend::bitmap::BitmapMmapRegion>;
/// Guest memory whose map can change while it is in use.
pub type SharedMemory = vm_memory::GuestMemoryAtomic<Memory>;
