//! A virtio-fs device on PCI, for a VMM: the transport between the guest's driver and the
//! [`Device`](virtio_fs_device::Device) of `virtio-fs-device`.
//!
//! A [`Function`] is a modern virtio device (virtio 1.2, section 4.1): its configuration space with the
//! capabilities, MSI-X, the common, notification, interrupt status and device configuration registers,
//! and the DAX window as shared memory region 0. The VMM passes the guest's accesses in; what they ask
//! of the machine comes out by the [`Host`] that the VMM implements. The crate knows nothing of KVM, of
//! an event loop or of a thread: requests go from the guest's memory to the device by the events that
//! the VMM was told to connect, and nothing of this is in their way.
//!
//! # How to embed it in a VMM
//! 1. Make the [`Device`](virtio_fs_device::Device), and decide on its [`Places`]: where the registers
//!    are (a BAR of 32 bits), and the DAX window, as [`WindowMemory`] says (a BAR of 64 bits).
//! 2. Implement [`Host`]: five calls, for which KVM has an ioctl or two each.
//! 3. Make a [`Function`] of it, for each time that the machine is switched on. Pass accesses to its
//!    configuration space to [`Function::read_config`] and [`Function::write_config`], and those to
//!    its registers to [`Function::read_memory`] and [`Function::write_memory`]. A VMM that has no PCI
//!    bus can have the functions on a [`Bus`].
//! 4. Tell the guest of the bus as usual: where the windows and the registers are, in `_CRS` of its
//!    host bridge. There are no interrupts by lines: the driver has to use MSI-X, as all do.
//! 5. Pause, save and restore with the machine: the device is [paused](virtio_fs_device::Device::pause)
//!    and [resumed](virtio_fs_device::Device::resume) by the VMM, [`Function::save`] and
//!    [`Function::restore`] include its state.
//!
//! ```
//! use std::io;
//! use std::sync::{Arc, Mutex};
//!
//! use fuse_fs::{MemFs, Session};
//! use virtio_fs_device::{Device, DeviceConfig, InProcess};
//! use virtio_fs_pci::{Bus, Function, Host, Message, Places};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//! use vmm_sys_util::eventfd::EventFd;
//!
//! /// A VMM on KVM has the file of the machine here, and calls of kvm-ioctls below.
//! #[derive(Default)]
//! struct Vmm {
//!     notifications: Vec<u64>,
//! }
//!
//! impl Host for Vmm {
//!     fn connect_vector(&mut self, _: u16, _: &EventFd, _: Message) -> io::Result<()> {
//!         // A route for the message, then VmFd::register_irqfd.
//!         Ok(())
//!     }
//!
//!     fn disconnect_vector(&mut self, _: u16, _: &EventFd) -> io::Result<()> {
//!         // VmFd::unregister_irqfd.
//!         Ok(())
//!     }
//!
//!     fn connect_notification(&mut self, _: &EventFd, address: u64) -> io::Result<()> {
//!         // VmFd::register_ioevent, without a value.
//!         self.notifications.push(address);
//!         Ok(())
//!     }
//!
//!     fn disconnect_notification(&mut self, _: &EventFd, address: u64) -> io::Result<()> {
//!         // VmFd::unregister_ioevent.
//!         self.notifications.retain(|other| *other != address);
//!         Ok(())
//!     }
//!
//!     fn place_window(&mut self, _: Option<u64>) -> io::Result<()> {
//!         // VmFd::set_user_memory_region.
//!         Ok(())
//!     }
//! }
//!
//! // When the machine is built.
//! let config = DeviceConfig {
//!     tag: Some("myfs".parse()?),
//!     request_queues: Some(1),
//!     ..DeviceConfig::default()
//! };
//! let filesystem = InProcess::new(Arc::new(Session::new(MemFs::new())));
//! let device = Arc::new(Mutex::new(Device::in_process(&config, filesystem)?));
//! let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?);
//! let places = Places { registers: 0xc000_0000, ..Places::default() };
//! let function = Function::new(device, memory, &places, Vmm::default())?;
//! let bus: Bus<Arc<GuestMemoryMmap>, Vmm> = Bus::new(vec![function])?;
//!
//! // The guest looks what device 1 on the bus is, ...
//! let select = |register: u32| 0x8000_0000 | 1 << 11 | register;
//! let mut id = [0; 4];
//! bus.write_port(0, &select(0).to_le_bytes());
//! bus.read_port(4, &mut id);
//! assert_eq!(u32::from_le_bytes(id), 0x105a_1af4);
//! // ... enables its memory, ...
//! bus.write_port(0, &select(4).to_le_bytes());
//! bus.write_port(4, &6_u32.to_le_bytes());
//! // ... and finds two queues there: hiprio and one for requests.
//! let mut queues = [0; 2];
//! bus.read_memory(0xc000_0012, &mut queues);
//! assert_eq!(u16::from_le_bytes(queues), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `vmm` among the examples is a whole VMM around it, with KVM.
//!
//! # What a guest can do
//! Anything: accesses of any offset and length are answered, those to nothing with zeros, and what a
//! driver must not write is ignored. No access panics, allocates by what the guest says, or makes more
//! than one call of a kind per vector or queue. The guest chooses where its registers and its window
//! are: a window outside of [`Places::windows`] is nowhere; registers that it puts over its memory, or
//! over another function's, harm only itself. What fails by what it does is logged, a few times for
//! each function, and the driver is told that the device needs a reset.
//!
//! # Locks and threads
//! A function takes the lock of the device for as long as a call of the device's takes. Those at the
//! driver's `FEATURES_OK`, `DRIVER_OK` and reset can take long: with a daemon that does not answer, as
//! long as [`Timeouts::message`](virtio_fs_device::Timeouts::message) allows. Interrupts and
//! notifications that the VMM has connected wait for no lock.
//!
//! # What is not there
//! Interrupts by lines (INTx), the legacy interface of virtio before 1.0, PCI Express capabilities,
//! hot-plug, resets of single queues (`VIRTIO_F_RING_RESET`), and power management. Queues and their
//! vectors are what they are when the driver says that it is ready: what it enables or assigns later
//! has no effect before the next reset.

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

mod bus;
mod bytes;
mod capabilities;
mod config_space;
mod error;
mod function;
mod host;
mod interrupts;
mod line;
mod msix;
mod registers;
mod window;

pub use bus::{Bus, BusState};
pub use error::Error;
pub use function::{Function, FunctionState, Places};
pub use host::{Host, Message};
pub use window::WindowMemory;
