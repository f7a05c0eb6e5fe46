//! The queue engine of a virtio-fs device.
//!
//! A [`Queue`] takes descriptor chains from the available ring of one split virtqueue (virtio 1.x,
//! section 2.7), has each served as a FUSE request by a [`fuse_fs::Serve`], and gives the chains
//! back through the used ring. It knows nothing of how the ring was negotiated: a vhost-user back-end
//! and a device inside a VMM use it alike.
//!
//! * [`QueueConfig`] says where the ring is, [`Resources`] what its requests need.
//! * [`Queue::drain`] is called when the driver kicks: by a [`Worker`], a thread that waits for that,
//!   or by whoever learns of it otherwise.
//! * [`Pool`] serves what would have to wait, so that it holds up nobody: for a device on one of a
//!   few threads, for a lock of somebody else on one of its own. Where several large READs are
//!   available at once, its threads serve some of them beside the queue's own, and where it is a
//!   single one of 512 KiB or more, one of them reads along: one queue is not limited to what one
//!   processor can copy.
//! * [`Polling`] says for how long a queue that has served everything looks out for more before it
//!   asks for a kick.
//! * [`Queue::stop`] waits for what is in flight and tells where to continue.
//! * [`WriteLog`] learns what is written to the guest's memory.
//! * [`InFlightRecord`] keeps what is in flight where it outlives the process.
//!
//! **The way of a request.** Header and arguments are copied out of guest memory once, then
//! decoded; the payload of READ and WRITE moves between the file and guest memory in one
//! `preadv2` or `pwritev2` each, or in up to 16 that several threads make. No reference to guest
//! memory is ever formed, and nothing is allocated for a request that is not left to the pool.
//!
//! **Hostile drivers.** A chain that breaks a rule is given back with length 0, or with an error for
//! an answer ([`ChainError`]); a ring that does is served no more until it is set up anew
//! ([`RingError`]). Both are counted in [`Stats`] and logged at a bounded rate.
//!
//! # io_uring
//! It is not used: where data is in the page cache it saves nothing. Microseconds of processor time
//! (and of time) for a read of 4 KiB at random, by `cargo bench -p benches --bench io_uring`, on two
//! virtual processors of an AMD EPYC with Linux 6.18, io_uring with a registered file and registered
//! memory:
//!
//! | | one by one | 16 threads | io_uring x32 | io_uring x64 |
//! |---|---|---|---|---|
//! | tmpfs | 1.8 (2.0) | 1.9 (1.0) | 6.9 (11.5) | 4.7 (5.3) |
//! | ext4, cached | 1.5 (1.5) | 1.6 (0.8) | 1.5 (1.6) | 1.5 (1.6) |
//! | ext4, O_DIRECT | 53 (112) | 36 (68) | 6.2 (37) | 6.8 (36) |
//!
//! tmpfs cannot tell whether a read would wait, so io_uring has threads of the kernel read from it.
//! What is read past the page cache would take a fifth of the processor time that the threads of a
//! [`Pool`] take, and half the time on this disk; a queue that did so would have to keep chains in
//! flight without a thread. That is missing.
//!
//! # Prefetching
//! What the next chains consist of is not fetched into the processor's cache while one is served:
//! tried with prefetch instructions for their descriptors (1), for their request headers besides (2)
//! and for the room for their replies, too (3), up to three chains ahead, it made no difference
//! beyond the noise. Operations per second to those without, by the `compare` benchmark with 32 in
//! flight, on the same machine; medians of 45 rounds, half of which lie between 0.7 and 1.3:
//!
//! | | 1 | 2 | 3 |
//! |---|---|---|---|
//! | GETATTR | 1.00 | 1.02 | 0.96 |
//! | LOOKUP | 1.00 | 0.99 | 0.95 |
//! | READ of 4 KiB | 1.03 | 1.01 | 0.99 |
//! | WRITE of 4 KiB | 1.05 | 1.04 | 1.04 |
//!
//! To fetch the data of a WRITE of 128 KiB, or the first lines of each of its pages, showed nothing in
//! a small test: nine tenths of the thread's time for those are one pwritev2(2), more than half of that
//! the copy, and a fifth the wait for what the kernel knows of the file's pages.

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

// For the tests of this crate that share a driver with those that see it from outside.
#[cfg(test)]
extern crate self as virtio_fs_queue;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

mod affinity;
mod chain;
mod config;
mod error;
mod help;
mod in_flight;
mod offload;
mod payload;
mod poll;
mod pool;
mod queue;
mod record;
mod request;
mod ring;
mod segment;
mod split;
mod stats;
mod storage;
mod sys;
mod used;
mod worker;
mod write_log;

pub use affinity::{AffinityError, Processors, QueueAffinity};
pub use config::{Position, QueueConfig, Resources};
pub use error::{ChainError, RingArea, RingError, StartError};
pub use poll::{PollLimit, PollLimitError, Polling};
pub use pool::Pool;
pub use queue::{Drained, Queue};
pub use record::{InFlightRecord, RecordError};
pub use stats::{Counts, Stats};
pub use worker::{Kick, Place, Worker};
pub use write_log::WriteLog;

use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

/// Guest memory as the engine needs it: an address space that can be shared by threads, such as
/// `Arc<GuestMemoryMmap>` or `GuestMemoryAtomic<GuestMemoryMmap>`.
pub trait GuestSpace: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static {}

impl<T: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static> GuestSpace for T {}
