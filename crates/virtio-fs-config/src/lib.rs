//! What the two ends of a virtio-fs device both know (virtio 1.x, section 5.11): its tag, its
//! configuration space, its device id, and the feature bits that it uses.
//!
//! A back-end that provides the configuration space and a VMM that does so use the same code here,
//! so that a guest sees no difference. Nothing here does I/O, and nothing is depended on.
//!
//! ```
//! use virtio_fs_config::{ConfigSpace, Tag};
//!
//! let tag: Tag = "myfs".parse()?;
//! let space = ConfigSpace::new(tag, 2);
//! let mut queues = [0; 4];
//! space.read(36, &mut queues);
//! assert_eq!(u32::from_le_bytes(queues), 2);
//! # Ok::<(), virtio_fs_config::TagError>(())
//! ```

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

extern crate alloc;

mod config_space;
mod tag;

pub use config_space::{CONFIG_LEN, ConfigSpace, ConfigSpaceError};
pub use tag::{TAG_LEN, Tag, TagError};

/// The virtio device id of a filesystem device.
pub const DEVICE_ID: u32 = 26;

/// `VIRTIO_F_INDIRECT_DESC`: a descriptor may name a table of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`: each side says at which entry it wants to be notified next.
pub const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`: not a legacy device.
pub const VERSION_1: u64 = 1 << 32;
