//! The virtio-fs device model that a VMM embeds.
//!
//! [`Device`] is a virtio-fs device (virtio 1.x, section 5.11) as a VMM's transport sees it: feature
//! bits, configuration space, activation, reset, pause, migration. Behind it is a vhost-user daemon
//! ([`VhostUser`]), or a filesystem of the same process. It knows nothing of FUSE, nor of a VMM's bus, interrupt controller or event
//! loop.
//!
//! # How to embed it in a VMM
//! 1. Make the [`Device`] when the machine is built. It tells the transport its
//!    [`device_type`](Device::device_type), [`queue_max_sizes`](Device::queue_max_sizes) and
//!    [`features`](Device::features).
//! 2. Pass on what the driver does: reads of the configuration space to
//!    [`read_config`](Device::read_config), `FEATURES_OK` to
//!    [`ack_features`](Device::ack_features), `DRIVER_OK` to [`activate`](Device::activate), a write
//!    of 0 to the device status to [`reset`](Device::reset).
//! 3. Implement [`Interrupt`] for what raises the guest's interrupts, and have KVM signal each
//!    queue's kick (ioeventfd), or do so when the driver notifies.
//! 4. Call [`pause`](Device::pause) and [`resume`](Device::resume) with the machine's, and
//!    [`update_memory`](Device::update_memory) where memory is plugged.
//!
//! ```no_run
//! use std::sync::Arc;
//! use virtio_fs_device::{
//!     Activation, Device, DeviceConfig, Error, Event, Interrupt, QueueSetup, RingAddresses, VhostUser,
//! };
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! struct Msi;
//!
//! impl Interrupt for Msi {
//!     fn signal_queue(&self, index: u16) { /* the queue's vector */ }
//!     fn signal_config(&self) { /* the vector for configuration changes */ }
//!     fn signal_needs_reset(&self) { /* set DEVICE_NEEDS_RESET, then as above */ }
//! }
//!
//! # fn memory() -> Arc<GuestMemoryMmap> { unimplemented!() }
//! # fn accepted() -> u64 { 0 }
//! # fn ring(index: u16) -> RingAddresses { unimplemented!() }
//! let mut device = Device::vhost_user(
//!     &DeviceConfig { tag: Some("myfs".parse().expect("a tag")), ..DeviceConfig::default() },
//!     VhostUser::new("/run/virtiofsd.sock"),
//! )?;
//! // The driver reads the configuration space, ...
//! let mut tag = [0; 36];
//! device.read_config(0, &mut tag);
//! // ... accepts features, ...
//! device.ack_features(device.features() & accepted())?;
//! // ... and sets the queues up.
//! let queues = (0..2)
//!     .map(|index| QueueSetup { index, ring: ring(index), kick: Event::new().expect("an eventfd") })
//!     .collect();
//! device.activate(Activation { memory: memory(), queues, interrupt: Arc::new(Msi) })?;
//! # Ok::<(), Error>(())
//! ```
//!
//! # Without a daemon
//! With the feature `in-process`, a device can be served by threads of the VMM itself:
//! `Device::in_process` takes any [`fuse_fs::Serve`](https://docs.rs/fuse-fs), such as a session over a
//! shared directory or over a filesystem in memory. There is no socket, no second process to start
//! and to look after, and the guest's memory need not be shared: anonymous memory does. What the
//! VMM calls is the same, and so is what it saves, but for the part that is the filesystem's.
//!
#![cfg_attr(feature = "in-process", doc = "```")]
#![cfg_attr(not(feature = "in-process"), doc = "```ignore")]
//! use std::sync::Arc;
//! use fuse_fs::{MemFs, Session};
//! use virtio_fs_device::{Device, DeviceConfig, InProcess};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let filesystem = Arc::new(Session::new(MemFs::new()));
//! let mut device = Device::<Arc<GuestMemoryMmap>>::in_process(
//!     &DeviceConfig {
//!         tag: Some("myfs".parse()?),
//!         request_queues: Some(2),
//!         ..DeviceConfig::default()
//!     },
//!     InProcess::new(filesystem),
//! )?;
//! assert_eq!(device.queue_max_sizes(), [1024, 1024, 1024]);
//! device.ack_features(device.features())?;
//! // From here on as above.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each queue that the driver uses has a thread, and a pool has more for requests that wait. A guest
//! that attacks the device attacks the VMM then: a daemon can be confined to what it shares, a VMM
//! cannot. A filesystem that waits for ever, as on a server that does not answer, makes
//! [`pause`](Device::pause) and [`reset`](Device::reset) wait, too: there is nothing that could be
//! given up.

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

mod activation;
mod backend;
mod config;
mod device;
mod error;
mod event;
#[cfg(feature = "in-process")]
mod in_process;
mod interrupt;
mod saved;
mod state;
mod status;
#[allow(unsafe_code)]
mod sys;
mod vhost_user;

pub use activation::{Activation, GuestSpace, QueueSetup, RingAddresses};
pub use config::{DeviceConfig, MAX_QUEUE_SIZE, MAX_REQUEST_QUEUES};
pub use device::{DIRTY_PAGE, Device};
pub use error::Error;
pub use event::Event;
#[cfg(feature = "in-process")]
pub use in_process::InProcess;
pub use interrupt::Interrupt;
pub use saved::SavedState;
pub use state::{Call, State};
pub use status::{Capabilities, Status};
pub use vhost_user::{Recovery, Timeouts, VhostUser};
pub use virtio_fs_config::{ConfigSpaceError, Tag, TagError};
