//! The virtio-fs device model that a VMM embeds.
//!
//! [`Device`] is a virtio-fs device (virtio 1.x, section 5.11) as a VMM's transport sees it: feature
//! bits, configuration space, activation, reset, pause, migration. Behind it is a vhost-user daemon
//! ([`VhostUser`]), or a filesystem of the same process. It knows nothing of FUSE, nor of a VMM's
//! bus, interrupt controller or event loop.
//!
//! # How to embed it in a VMM
//! A [`Device`] is made with the machine, and stays the same over reboots of the guest. The VMM brings a
//! transport (virtio-pci, virtio-mmio), an [`Interrupt`], and memory by way of [vm-memory], and makes
//! these calls:
//!
//! | when | call | and |
//! |---|---|---|
//! | the machine is built | [`Device::vhost_user`], or `Device::in_process` | tell the transport of the [`device_type`](Device::device_type), the [`features`](Device::features), the [`queue_max_sizes`](Device::queue_max_sizes), and the [`window_size`](Device::window_size) |
//! | the driver reads the configuration space | [`read_config`](Device::read_config) | it never changes, nor does its generation; what is written there is ignored ([`write_config`](Device::write_config)) |
//! | the driver sets `FEATURES_OK` | [`ack_features`](Device::ack_features), with all that it accepted | leave `FEATURES_OK` unset where that fails |
//! | the driver sets `DRIVER_OK` | [`activate`](Device::activate), with the queues that it enabled | set `DEVICE_NEEDS_RESET` where that fails |
//! | the driver notifies a queue | none: KVM signals the queue's kick (ioeventfd), or the VMM does ([`Event::signal`]) | |
//! | the driver enables a queue after `DRIVER_OK`, or resets one | [`start_queue`](Device::start_queue), [`stop_queue`](Device::stop_queue) | |
//! | what interrupts for a queue is another event than before, as when the driver masks its vector | [`update_interrupt`](Device::update_interrupt) | only where [`Interrupt::queue_event`] says so |
//! | the driver writes 0 to the device status | [`reset`](Device::reset) | clear `DEVICE_NEEDS_RESET`; it can be negotiated anew |
//! | memory was plugged, or is to be unplugged | [`update_memory`](Device::update_memory), with all that there is | before the guest knows of new memory, and before old memory is unmapped |
//! | the machine stops for a while | [`pause`](Device::pause), once its processors stand still; [`resume`](Device::resume), before they run | |
//! | it moves while it runs | [`start_dirty_log`](Device::start_dirty_log), then [`take_dirty`](Device::take_dirty) until it is paused, and once after that | |
//! | it is saved | [`save`](Device::save), while it is paused | with all of the guest's memory |
//! | it is restored | [`restore`](Device::restore), of a device just made, then [`resume`](Device::resume) | the transport restores its own registers |
//! | from time to time | [`status`](Device::status) | it says whether the daemon is there, and what went wrong |
//!
//! Calls take `&mut self`, so a device that processors of the guest share is behind a lock. The calls
//! that talk with a daemon take as long as it does, within [`Timeouts`]; most answer in microseconds,
//! so that the thread of a virtual processor may well make them. [`Interrupt`] is called by other
//! threads, and must not take that lock.
//!
//! [vm-memory]: https://docs.rs/vm-memory/0.18
//!
//! ```
//! # use std::sync::Arc;
//! # use fuse_fs::Session;
//! # use passthrough_fs::{Config, PassthroughFs};
//! # use vhost_user_fs::{Backend, BackendConfig, Daemon};
//! # use virtio_fs_queue::{Polling, Pool};
//! # // A daemon, and the driver of a guest.
//! # let folder = tempfile::tempdir()?;
//! # let socket = folder.path().join("virtiofsd.sock");
//! # let daemon = Daemon::new(
//! #     Backend::new(BackendConfig {
//! #         filesystem: Arc::new(Session::new(PassthroughFs::new(Config::new(folder.path()))?)),
//! #         tag: None,
//! #         request_queues: None,
//! #         queue_affinity: None,
//! #         pool: Arc::new(Pool::new(1)),
//! #         polling: Arc::new(Polling::never()),
//! #     })?,
//! #     std::os::unix::net::UnixListener::bind(&socket)?,
//! # )?;
//! # let stop = daemon.stop_handle();
//! # let serving = std::thread::spawn(move || daemon.run());
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use virtio_fs_device::{
//!     Activation, Device, DeviceConfig, Event, Interrupt, QueueSetup, RingAddresses, VhostUser,
//! };
//! use vm_memory::GuestAddress;
//!
//! /// An event for each queue, such as KVM's irqfd.
//! struct Interrupts {
//!     queues: Vec<Event>,
//!     needs_reset: AtomicBool,
//! }
//!
//! impl Interrupt for Interrupts {
//!     fn signal_queue(&self, index: u16) {
//!         // What this cannot say, it says the next time.
//!         let _ = self.queues[usize::from(index)].signal();
//!     }
//!
//!     fn signal_needs_reset(&self) {
//!         // The transport shows it as DEVICE_NEEDS_RESET; then it interrupts the driver.
//!         self.needs_reset.store(true, Ordering::Release);
//!     }
//!
//!     fn queue_event(&self, index: u16) -> Option<Event> {
//!         self.queues.get(usize::from(index)).cloned()
//!     }
//! }
//!
//! // When the machine is built.
//! let config = DeviceConfig {
//!     tag: Some("myfs".parse()?),
//!     request_queues: Some(1),
//!     ..DeviceConfig::default()
//! };
//! let mut device = Device::vhost_user(&config, VhostUser::new(&socket))?;
//! assert_eq!(device.device_type(), 26);
//! assert_eq!(device.queue_max_sizes(), [1024, 1024]);
//!
//! # let options = virtio_fs_guest::Options { queue_size: 64, ..Default::default() };
//! # let guest = virtio_fs_guest::Connection::driver(device.features(), &options)?;
//! # let layouts = guest.layouts()?;
//! # let calls: Vec<Event> =
//! #     layouts.iter().map(|layout| layout.call.try_clone().map(Event::from)).collect::<Result<_, _>>()?;
//! # let memory = Arc::new(guest.guest_memory()?);
//! // The driver reads the configuration space, ...
//! let mut tag = [0; 36];
//! device.read_config(0, &mut tag);
//! assert_eq!(&tag[..5], b"myfs\0");
//! // ... accepts features, ...
//! device.ack_features(guest.features())?;
//! // ... and sets the queues up.
//! let queues = (0..).zip(&layouts).map(|(index, layout)| QueueSetup {
//!     index,
//!     ring: RingAddresses {
//!         size: layout.size,
//!         descriptors: GuestAddress(layout.descriptors),
//!         avail: GuestAddress(layout.available),
//!         used: GuestAddress(layout.used),
//!     },
//!     kick: layout.kick.try_clone().expect("a descriptor").into(),
//! });
//! # let kicks: Vec<Event> =
//! #     layouts.iter().map(|layout| layout.kick.try_clone().map(Event::from)).collect::<Result<_, _>>()?;
//! let interrupt =
//!     Arc::new(Interrupts { queues: calls, needs_reset: AtomicBool::new(false) });
//! device.activate(Activation {
//!     memory: Arc::clone(&memory),
//!     queues: queues.collect(),
//!     interrupt: interrupt.clone(),
//! })?;
//!
//! // The guest uses it.
//! let mut mount = guest.mount(&virtio_fs_guest::MountOptions::default())?;
//! mount.getattr(fuse_wire::NodeId::ROOT, None)?;
//!
//! // The machine stands still for a while.
//! device.pause()?;
//! device.resume()?;
//! mount.getattr(fuse_wire::NodeId::ROOT, None)?;
//!
//! // The machine moves: its memory is copied while it runs, ...
//! device.start_dirty_log()?;
//! mount.getattr(fuse_wire::NodeId::ROOT, None)?;
//! device.take_dirty(0..u64::MAX, |page| println!("copy the page at {page:#x} again"));
//! // ... and what was written last, and the device, while it stands still.
//! device.pause()?;
//! device.take_dirty(0..u64::MAX, |page| println!("copy the page at {page:#x} again"));
//! let saved = serde_json::to_string(&device.save()?)?;
//! # drop(device);
//! // There, with a daemon that serves the same files.
//! let mut device = Device::vhost_user(&config, VhostUser::new(&socket))?;
//! device.restore(&serde_json::from_str(&saved)?, memory, &kicks, interrupt)?;
//! device.resume()?;
//! mount.getattr(fuse_wire::NodeId::ROOT, None)?;
//!
//! // The driver is unloaded.
//! device.reset()?;
//! # drop(device);
//! # stop.stop();
//! # serving.join().expect("no panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For a VMM with PCI, the crate `virtio-fs-pci` does all of this; `vmm` among the examples is a whole
//! VMM around both.
//!
//! # What the VMM provides
//!
//! | what | when | for which calls |
//! |---|---|---|
//! | a tag, unless the daemon has one (`--tag`) | the machine is built | [`Device::vhost_user`] |
//! | where it wants one, a [`Window`]: address space of the guest, and what maps files there | the machine is built | [`Device::vhost_user`] |
//! | the guest's memory; for a daemon each region has to be a file that is mapped as shared, such as a memfd, and best sealed, as a daemon could cut it short | the driver begins, or memory is plugged | [`activate`](Device::activate), [`restore`](Device::restore), [`update_memory`](Device::update_memory) |
//! | for each queue an [`Event`] (an eventfd) that is signalled when the driver notifies it | the driver begins | [`activate`](Device::activate), [`start_queue`](Device::start_queue), [`restore`](Device::restore) |
//! | an [`Interrupt`]; with an event for each queue, such as an irqfd, no thread of the VMM has a part in a request | the driver begins | [`activate`](Device::activate), [`restore`](Device::restore) |
//! | where the driver put the queues ([`RingAddresses`]) | the driver begins | [`activate`](Device::activate), [`start_queue`](Device::start_queue) |
//! | a place for a [`SavedState`], with all of the guest's memory | the machine is saved | [`save`](Device::save), [`restore`](Device::restore) |
//! | somebody who starts the daemon again | it died | none: a device looks for it by itself |
//!
//! What goes wrong is an [`Error`]; one of a daemon's says what it was to do, at which message of the
//! protocol, and where the device was ([`During`]).
//!
//! # When the daemon dies
//! A device has one thread, which sees at once that its daemon is gone, before activation too, and
//! looks for the next one where that was. The VMM is not held up: it can reset, pause and drop the
//! device all the time. What becomes of a device in use is up to [`Recovery`]: it goes on with the next
//! daemon, unnoticed by the guest, where that knows the guest's open files and nothing that was in
//! flight is lost; else the driver is told that the device needs a reset, rather than left to hang.
//!
//! A daemon that breaks the protocol, or takes longer than the [`Timeouts`] allow, is given up in the
//! same way. Nothing that it says makes a call wait for ever, or panic. It has the guest's memory
//! mapped, though, and one that was given up while it was busy may still write what it was about to
//! write: to be sure, end its process.
//!
//! The events of the queues are shared with it. Calls that signal them do not wait where it fills them up
//! at that very moment; what the VMM signals by itself may ([`Event::signal`]), as may a relayed
//! interrupt whose event a daemon was given before ([`Interrupt::queue_event`]).
//!
//! A file system of its own, mounted by way of `/dev/fuse`, is more than a daemon should have. When a
//! process closes or unmaps a file of one, the kernel writes it back and waits for whoever serves it,
//! in the thread that did so and however long that takes; with `FUSE_WRITEBACK_CACHE` even where the
//! file was still in the socket. So little is taken as can be: no descriptor but the record of what is
//! in flight, which has to be in memory (a memfd, tmpfs), and files for a window. What was sent all the
//! same can have a call of the device, or the end of the VMM, wait: keep `/dev/fuse` from a daemon that
//! is not trusted. Whoever waits is let go once the connection is aborted
//! (`/sys/fs/fuse/connections`).
//!
//! # The DAX window
//! With a [`Window`] ([`VhostUser::window`]), a daemon that offers to (`SHMEM`) maps files where the
//! guest finds them, and a guest that mounts with `-o dax` reads and writes them without a request and
//! without a copy of its own. The VMM sets address space of the guest aside, such as the memory of a
//! KVM slot that lies in a PCI bar, shows as much of it as [`Device::window_size`] says as shared
//! memory region 0 (`VIRTIO_FS_SHMCAP_ID_CACHE`; over PCI the capability
//! `VIRTIO_PCI_CAP_SHARED_MEMORY_CFG`), and says how files get there: a [`ReservedWindow`] does.
//!
//! What a daemon asks for is checked here: that it is within the window, of whole pages, a regular file
//! but none of larger pages (hugetlbfs), and not over another mapping; there are 16384 at most. It has
//! the guest's driver wait for each, within [`Timeouts::message`], in the thread of the device.
//!
//! Which file system it is on is not checked, as that could not be asked without waiting for it. It
//! should be one that the kernel serves by itself, in memory (tmpfs) or on a disk (ext4, XFS, Btrfs, ...),
//! or an overlay of such. On others, FUSE and those of a network, mapping, closing and unmapping a file
//! take as long as their server does, beyond any time-out: and with them the thread of the device, a
//! reset, and the drop of the device.
//!
//! What is mapped goes with the reset of the device, with its daemon, and with the device. Until a
//! driver resets it, it may still touch what went with a daemon, and finds then what the
//! [`WindowMapper`] leaves there: with a `ReservedWindow`, `KVM_RUN` fails with EFAULT, as for a file
//! that somebody on the host cut short, and for a moment where a daemon replaces a mapping, as when a
//! guest writes to a file that it has only read until then. A VMM that does not stop the guest there has
//! to look out for it, and let the processor try again: [`Patience`] knows for how long. A device is
//! not saved while files are mapped ([`Error::Mapped`]): where it is restored, nobody could map them
//! again, and the guest would not ask.
//!
//! # What works with which daemon
//! The tests in `examples/tests/device.rs` run with both daemons, those in `tests/suite` with ours and
//! within the process. [`Status::capabilities`] has what the one at hand offers.
//!
//! | | `virtiofsd` of this workspace | virtiofsd 1.14 | in the process |
//! |---|---|---|---|
//! | tag by the daemon | with `--tag` | with `--tag` | no |
//! | request queues | up to 63 | one | up to 255 |
//! | pausing and resuming | yes | yes | yes |
//! | plugging memory, region by region | yes | yes | yes |
//! | reset of the whole session | yes | yes | yes |
//! | a driver that breaks a queue is told | yes | no | yes |
//! | pages that were written (`LOG_SHMFD`) | yes | yes | yes |
//! | saving and restoring (`DEVICE_STATE`) | yes | yes | where the filesystem can, as `passthrough-fs`; `MemFs` cannot |
//! | what is in flight is kept when it dies (`INFLIGHT_SHMFD`) | yes | no | – |
//! | the driver is told to reset the device when it dies or hangs | yes | yes | when it hangs |
//! | files in the DAX window (`SHMEM`) | with `--dax-window` | no | no |
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
//! cannot. A filesystem that waits for ever, as on a server that does not answer, is waited for as
//! long as `InProcess::stop_limit` says. Then [`pause`](Device::pause) fails, and with it the
//! device. It can be [`reset`](Device::reset), but not activated again before the filesystem has
//! returned: the threads that wait for it have the guest's memory, and may still write there.
//! [`save`](Device::save) and [`restore`](Device::restore) fail as late, and change nothing.

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
mod bitmap;
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
mod window;

pub use activation::{Activation, GuestSpace, QueueSetup, RingAddresses};
pub use config::{DeviceConfig, MAX_QUEUE_SIZE, MAX_REQUEST_QUEUES};
pub use device::{DIRTY_PAGE, Device};
pub use error::{During, Error};
pub use event::Event;
#[cfg(feature = "in-process")]
pub use in_process::InProcess;
pub use interrupt::Interrupt;
pub use saved::SavedState;
pub use state::{Call, State};
pub use status::{Capabilities, Status};
pub use vhost_user::{Recovery, Timeouts, VhostUser};
pub use virtio_fs_config::{ConfigSpaceError, Tag, TagError};
pub use window::{FileMapping, Patience, ReservedWindow, Window, WindowMapper, WindowStatus};
