//! A virtio-fs device on PCI (virtio 1.2, section 4.1): how the guest sees it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use serde::{Deserialize, Serialize};
use virtio_fs_config::CONFIG_LEN;
use virtio_fs_device::{Activation, Event, Interrupt, QueueSetup, RingAddresses, SavedState, Tag};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::config_space::{ConfigSpace, Identity, LARGE_MEMORY};
use super::fs::FsDevice;
use super::msix::{self, Msix, MsixState};
use super::registers::{self, Registers, Request};
use super::vm::Vm;
use super::window::{Slot, Window};

/// What lies where in the function's memory.
pub(super) const MEMORY_LEN: u32 = 0x4000;
const COMMON: usize = 0x0000;
const INTERRUPT_STATUS: usize = 0x0800;
const DEVICE: usize = 0x0c00;
const VECTORS: usize = 0x1000;
const PENDING: usize = 0x2800;
const NOTIFY: usize = 0x3000;
/// Bytes from one queue's notification address to the next one's.
const NOTIFY_STRIDE: usize = 4;

/// What a snapshot has of it.
#[derive(Serialize, Deserialize)]
pub(super) struct FunctionState {
    config: ConfigSpace,
    registers: Registers,
    vectors: MsixState,
    device: SavedState,
}

/// Why the device cannot be part of a machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no eventfd: {0}")]
    Event(#[from] io::Error),
    #[error("KVM takes no eventfd: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    #[error("it was saved as another one: by a daemon, or --fs, with other options")]
    Other,
    #[error(transparent)]
    Device(#[from] virtio_fs_device::Error),
}

/// A virtio-fs device as a PCI function of one machine.
pub(super) struct Function {
    config: ConfigSpace,
    /// Where in that the capability of the vectors is.
    msix: usize,
    registers: Registers,
    vectors: Msix,
    kicks: Vec<EventFd>,
    lines: Arc<Lines>,
    memory: &'static GuestMemoryMmap,
    device: FsDevice,
    window: Option<Slot>,
}

impl Function {
    /// Makes `device` a function whose memory is at `address` at first, and its window, in that slot,
    /// at the address beside it. The guest's notifications go from KVM to the device.
    pub(super) fn new(
        vm: &Arc<Vm>,
        device: &FsDevice,
        memory: &'static GuestMemoryMmap,
        address: u32,
        window: Option<(Slot, u64)>,
    ) -> Result<Self, Error> {
        let (features, queue_sizes) = device.offer();
        let queues = queue_sizes.len();
        // One more for changes of the configuration.
        let vectors = Msix::new(vm, queues + 1)?;
        let vector_count = u16::try_from(queues + 1).unwrap_or(u16::MAX);
        let mut kicks = Vec::with_capacity(queues);
        for queue in 0..queues {
            let kick = EventFd::new(EFD_NONBLOCK)?;
            let at = u64::from(address) + (NOTIFY + queue * NOTIFY_STRIDE) as u64;
            let at = IoEventAddress::Mmio(at);
            vm.fd.register_ioevent(&kick, &at, NoDatamatch)?;
            kicks.push(kick);
        }
        let (mut config, msix) = config_space(address, vector_count);
        if let Some((slot, address)) = &window {
            add_window(&mut config, slot.window(), *address);
        }
        Ok(Self {
            config,
            msix,
            registers: Registers::new(features, &queue_sizes, vector_count),
            vectors,
            kicks,
            lines: Arc::default(),
            memory,
            device: device.clone(),
            window: window.map(|(slot, _)| slot),
        })
    }

    /// Reads the configuration space.
    pub(super) fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    /// Writes to the configuration space.
    pub(super) fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        if let Err(error) = self.vectors.set_control(self.msix_control_word()) {
            self.fail("KVM does not take an interrupt", &error);
        }
        if let Err(error) = self.place_window() {
            self.fail("KVM does not place the DAX window", &error);
        }
    }

    /// Reads the function's memory at the guest address `address`. `false` where that is not its.
    pub(super) fn read_memory(&mut self, address: u64, data: &mut [u8]) -> bool {
        let Some(offset) = self.memory_offset(address) else {
            return false;
        };
        if self.lines.needs_reset.load(Ordering::Acquire) {
            self.registers.fail();
        }
        match offset {
            COMMON..INTERRUPT_STATUS => self.registers.read(offset - COMMON, data),
            DEVICE..VECTORS => self
                .device
                .lock()
                .read_config((offset - DEVICE) as u64, data),
            VECTORS..PENDING => self.vectors.read(offset - VECTORS, data),
            // Without interrupts by lines there is no status of them, and what is pending is not
            // told: KVM has it as soon as it is unmasked.
            _ => data.fill(0),
        }
        true
    }

    /// Writes to the function's memory.
    pub(super) fn write_memory(&mut self, address: u64, data: &[u8]) -> bool {
        let Some(offset) = self.memory_offset(address) else {
            return false;
        };
        match offset {
            COMMON..INTERRUPT_STATUS => match self.registers.write(offset - COMMON, data) {
                Some(Request::Negotiate) => self.negotiate(),
                Some(Request::Activate) => self.activate(),
                Some(Request::Reset) => self.reset(),
                None => {}
            },
            VECTORS..PENDING => {
                if let Err(error) = self.vectors.write(offset - VECTORS, data) {
                    self.fail("KVM does not take an interrupt", &error);
                }
            }
            // Only where the guest has moved the memory: else KVM has the addresses.
            NOTIFY.. => {
                if let Some(kick) = self.kicks.get((offset - NOTIFY) / NOTIFY_STRIDE) {
                    // It fails where it is signalled already.
                    let _ = kick.write(1);
                }
            }
            _ => {}
        }
        true
    }

    /// What there is to save while nothing runs, and the device is paused.
    pub(super) fn state(&self) -> Result<FunctionState, Error> {
        Ok(FunctionState {
            config: self.config.clone(),
            registers: self.registers.clone(),
            vectors: self.vectors.state(),
            device: self.device.lock().save()?,
        })
    }

    /// Takes over what was saved. The device is paused then.
    pub(super) fn restore(&mut self, state: FunctionState) -> Result<(), Error> {
        if !self.config.is_like(&state.config) {
            return Err(Error::Other);
        }
        self.config = state.config;
        self.place_window()?;
        self.registers = state.registers;
        self.vectors.restore(&state.vectors)?;
        self.vectors.set_control(self.msix_control_word())?;
        let kicks = self.kicks.iter().map(EventFd::try_clone);
        let kicks = kicks.map(|kick| kick.map(Event::from));
        let kicks: Vec<_> = kicks.collect::<io::Result<_>>()?;
        self.lines = Arc::new(self.lines()?);
        let lines = Arc::clone(&self.lines);
        let mut device = self.device.lock();
        device.restore(&state.device, self.memory, &kicks, lines)?;
        Ok(())
    }

    pub(super) fn tag(&self) -> &Tag {
        self.device.tag()
    }

    fn negotiate(&mut self) {
        let features = self.registers.driver_features();
        if let Err(error) = self.device.lock().ack_features(features) {
            tracing::warn!(tag = %self.tag(), %error, "the driver's features are not taken");
            self.registers.refuse_features();
        }
    }

    fn activate(&mut self) {
        let activated = self.activation().and_then(|activation| {
            self.device.lock().activate(activation)?;
            Ok(())
        });
        if let Err(error) = activated {
            self.fail("the device does not start", &error);
        }
    }

    fn reset(&mut self) {
        self.lines = Arc::default();
        let reset = self.device.lock().reset();
        if let Err(error) = reset {
            self.fail("the device is not reset", &error);
        }
    }

    fn activation(&mut self) -> Result<Activation<&'static GuestMemoryMmap>, Error> {
        let mut queues = Vec::new();
        let registers = (0..).zip(self.registers.queues());
        for ((index, queue), kick) in registers.zip(&self.kicks) {
            if queue.enabled {
                let ring = RingAddresses {
                    size: queue.size,
                    descriptors: GuestAddress(queue.desc),
                    avail: GuestAddress(queue.driver),
                    used: GuestAddress(queue.device),
                };
                let kick = kick.try_clone()?.into();
                queues.push(QueueSetup { index, ring, kick });
            }
        }
        self.lines = Arc::new(self.lines()?);
        Ok(Activation {
            memory: self.memory,
            queues,
            interrupt: Arc::clone(&self.lines) as _,
        })
    }

    /// The vectors that the driver has assigned.
    fn lines(&self) -> io::Result<Lines> {
        let event = |vector| {
            let event = self.vectors.event(vector);
            event
                .map(|event| event.try_clone().map(Event::from))
                .transpose()
        };
        let queues = self.registers.queues().iter();
        Ok(Lines {
            queues: queues
                .map(|queue| event(queue.vector))
                .collect::<io::Result<_>>()?,
            config: event(self.registers.config_vector())?,
            needs_reset: AtomicBool::new(false),
        })
    }

    /// Has the guest find the window where it has put it.
    fn place_window(&mut self) -> Result<(), kvm_ioctls::Error> {
        let address = self.config.large_memory();
        self.window
            .as_mut()
            .map_or(Ok(()), |slot| slot.place(address))
    }

    fn fail(&mut self, what: &str, error: &impl std::error::Error) {
        tracing::error!(tag = %self.tag(), %error, "{what}");
        self.registers.fail();
    }

    fn memory_offset(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.config.memory().into())?;
        let offset = usize::try_from(offset).ok()?;
        (offset < MEMORY_LEN as usize).then_some(offset)
    }

    fn msix_control_word(&self) -> u16 {
        (self.config.u32_at(self.msix) >> 16) as u16
    }
}

/// How the device interrupts the driver.
#[derive(Default)]
struct Lines {
    queues: Vec<Option<Event>>,
    config: Option<Event>,
    needs_reset: AtomicBool,
}

impl Interrupt for Lines {
    fn signal_queue(&self, index: u16) {
        signal(self.queue_event(index));
    }

    fn signal_needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
        signal(self.config.clone());
    }

    fn queue_event(&self, index: u16) -> Option<Event> {
        self.queues.get(usize::from(index))?.clone()
    }
}

fn signal(event: Option<Event>) {
    if let Some(event) = event
        && let Err(error) = event.signal()
    {
        tracing::error!(%error, "the guest misses an interrupt");
    }
}

/// The configuration space, and where in it the capability of the vectors is.
fn config_space(address: u32, vectors: u16) -> (ConfigSpace, usize) {
    const MSIX: u8 = 0x11;
    let mut space = ConfigSpace::new(&Identity {
        vendor: 0x1af4,
        // Those of virtio 1 begin here.
        device: 0x1040 + 26,
        revision: 1,
        // Mass storage, of another kind than those that have numbers.
        class: 0x0180,
    });
    space.add_memory(address, MEMORY_LEN);
    let last = vectors.saturating_sub(1).to_le_bytes();
    let [table, pending] = [VECTORS, PENDING].map(offset_bytes);
    let msix = space.add_capability(MSIX, &[&last[..], &table, &pending].concat());
    let writable = (msix::ENABLED | msix::ALL_MASKED).to_le_bytes();
    space.allow(msix + 2, &writable);
    let stride = offset_bytes(NOTIFY_STRIDE);
    for (kind, offset, len, more) in [
        (1, COMMON, registers::LEN, &[][..]),
        (2, NOTIFY, MEMORY_LEN as usize - NOTIFY, &stride),
        (3, INTERRUPT_STATUS, 1, &[]),
        (4, DEVICE, CONFIG_LEN, &[]),
    ] {
        add_virtio_capability(&mut space, [kind, 0], [offset, len].map(offset_bytes), more);
    }
    (space, msix)
}

/// Says where the DAX window is: `virtio_pci_cap64`. It is the shared memory region 0.
fn add_window(space: &mut ConfigSpace, window: Window, address: u64) {
    const SHARED_MEMORY: u8 = 8;
    space.add_large_memory(address, window.memory_len());
    let [low, high] = [window.size as u32, (window.size >> 32) as u32].map(u32::to_le_bytes);
    let nothing = [0; 4];
    let more = [nothing, high].concat();
    add_virtio_capability(space, [SHARED_MEMORY, LARGE_MEMORY], [nothing, low], &more);
}

/// Says in which memory, and where in it, what is of a kind: `virtio_pci_cap`, and what follows it.
fn add_virtio_capability(
    space: &mut ConfigSpace,
    [kind, memory]: [u8; 2],
    [offset, len]: [[u8; 4]; 2],
    more: &[u8],
) {
    const VENDOR_SPECIFIC: u8 = 0x09;
    const HEADER_LEN: usize = 16;
    let total = u8::try_from(HEADER_LEN + more.len()).unwrap_or(u8::MAX);
    // The first, or the only one, of its kind.
    let id = 0;
    let head = [total, kind, memory, id, 0, 0];
    let body = [&head[..], &offset, &len, more].concat();
    space.add_capability(VENDOR_SPECIFIC, &body);
}

fn offset_bytes(offset: usize) -> [u8; 4] {
    u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes()
}
