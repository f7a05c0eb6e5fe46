//! The back-end of a vhost-user-fs device.
//!
//! * [`Backend`] is the device: what it serves, and with how many queues.
//! * [`Daemon`] serves it to one front-end after the other: a guest that reboots and a VMM that
//!   restarts find it there, with a clean session.
//! * [`front_end`] is for programs that serve front-ends with something else than a `Backend`.
//!
//! What is served is any [`fuse_fs::Serve`], such as a session over a passthrough filesystem. The
//! requests themselves are the business of [`virtio_fs_queue`].
//!
//! # The device
//! Virtio device 26 (virtio 1.x, section 5.11). Queue 0 is hiprio, the others are request queues;
//! each that a front-end uses has a thread of its own, from when it is started until it is stopped.
//! Offered are VERSION_1, EVENT_IDX and INDIRECT_DESC; there is no notification queue.
//!
//! Protocol features: MQ, REPLY_ACK, CONFIGURE_MEM_SLOTS, RESET_DEVICE, INFLIGHT_SHMFD, LOG_SHMFD,
//! DEVICE_STATE, CONFIG and BACKEND_REQ where the device has a [`Tag`] (without one the front-end
//! names it), SHMEM and BACKEND_REQ where it has a DAX window. A ring without a kick event is polled,
//! every millisecond; a front-end that wants to know is told of a ring that its driver broke.
//!
//! With INFLIGHT_SHMFD, a front-end keeps a record of what is in flight. When this process dies, the
//! next one answers what it had not: each request is answered once, though it may be done twice. What
//! the guest had open is another matter, which that record does not tell.
//!
//! With LOG_SHMFD and VHOST_F_LOG_ALL, all pages of guest memory that are written to are noted in the
//! front-end's log while the guest is moved. A log that is shorter than guest memory is refused. Used
//! rings are noted where they are, and where `log_guest_addr` says, if that is elsewhere.
//!
//! With DEVICE_STATE, offered where the filesystem has a [`State`](fuse_fs::State), that is sent to the
//! front-end, or taken from there, while no ring is served; no more than 1 GiB of it. A front-end that
//! does nothing about a transfer for a minute, or asks for its outcome and keeps it from ending, finds
//! it failed.
//!
//! # The front-end
//! A *kick* is an eventfd; a *call* and an *err* are eventfds, or sockets of which only the half that
//! signals stays open; so is the back-end channel, unless it is used for a DAX window. Anything else is
//! refused: what is held for a front-end must not hold the other end of its connection, or nobody would
//! see that it is gone.
//!
//! A front-end that fills up a *call* which is not in non-blocking mode, and does so just when it is
//! to be signalled, has the threads wait which serve its own queue. They go on when that queue is
//! stopped, when it has another *call* and when the connection ends.
//!
//! With SHMEM, offered where the device has a [`DaxWindow`], the front-end is asked over its back-end
//! channel to map parts of files for the guest. It needs REPLY_ACK for that, and five seconds at most
//! for each; one that is slower, or gives another answer, is asked for nothing any more. What it has
//! mapped it shares with this process and everybody else who has the file: a file that is cut short on
//! the host takes its memory from the guest, which its VMM sees as a fault (SIGBUS). A state is not
//! saved while anything is mapped.
//!
//! A ring that is not in the guest's memory is not served; it goes on where it was when that memory is
//! there again.

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

/// What the tests of the whole share with those of a part.
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(test)]
extern crate self as vhost_user_fs;

mod backend;
mod connection;
mod daemon;
mod device;
mod dirty_log;
mod event;
pub mod front_end;
mod inflight;
mod mapping;
mod memory;
mod patience;
mod session;
mod transfer;
mod vring;
mod window;

pub use backend::{Backend, BackendConfig, ConfigError, MAX_REQUEST_QUEUES};
pub use daemon::{Daemon, DaemonError, StopHandle};
pub use virtio_fs_config::{Tag, TagError};
pub use virtio_fs_queue::{AffinityError, QueueAffinity};
pub use window::{DaxWindow, DaxWindowError};
