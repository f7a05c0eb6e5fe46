use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use virtio_fs_device::{
    Activation, Device, Event, GuestSpace, Interrupt as _, QueueSetup, RingAddresses, SavedState,
    Tag,
};
use vm_memory::GuestAddress;

use crate::capabilities::{
    COMMON, DEVICE, Described, INTERRUPT_STATUS, MEMORY_LEN, NOTIFY, NOTIFY_STRIDE, PENDING,
    VECTORS,
};
use crate::interrupts::Interrupts;
use crate::line::Line;
use crate::msix::{Msix, MsixState};
use crate::registers::{DriverRegisters, Offer, Registers, Request};
use crate::{Error, Host, WindowMemory, bytes};

/// The version of [`FunctionState`] that this crate writes, and the only one that it reads.
const VERSION: u32 = 1;
/// A guest can have things fail for ever: more of them are not logged.
const MOST_COMPLAINTS: u32 = 16;

/// Where a function is on the bus until the guest moves it, as there is no firmware to decide it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Guest address of its registers, [`Function::REGISTERS_LEN`] bytes: a multiple of that.
    pub registers: u32,
    /// Guest address of its DAX window: a multiple of [`WindowMemory::len_on_bus`]. Without one the
    /// guest is not told of the window.
    pub window: Option<u64>,
    /// Guest addresses where windows can be: one that the guest puts elsewhere is nowhere.
    pub windows: Range<u64>,
}

/// What is saved of a function, by any format of serde's: how far the driver has got with it, and the
/// state of the device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionState {
    version: u32,
    config: Vec<u8>,
    registers: DriverRegisters,
    vectors: MsixState,
    device: SavedState,
}

/// A virtio-fs device as a PCI function of one machine, from its power-on on.
///
/// It takes the guest's accesses, of any offset and length, and does to the [`Device`] what they mean.
/// `M` is the guest's memory, `H` the VMM.
pub struct Function<M, H> {
    tag: Tag,
    device: Arc<Mutex<Device<M>>>,
    memory: M,
    host: H,
    config: Described,
    registers: Registers,
    vectors: Msix,
    kicks: Vec<Kick>,
    interrupts: Arc<Interrupts>,
    windows: Range<u64>,
    window: Option<WindowMemory>,
    /// Where the guest finds the window.
    window_at: Option<u64>,
    complaints: u32,
}

/// The notification of a queue.
struct Kick {
    line: Line,
    /// Where the VMM signals it by itself.
    at: Option<u64>,
}

impl<M: GuestSpace, H: Host> Function<M, H> {
    /// Bytes of its registers.
    pub const REGISTERS_LEN: u32 = MEMORY_LEN;

    /// Makes `device` a function. The guest's memory is `memory`.
    ///
    /// A VMM that resets its machine drops the function, [resets](Device::reset) the device and makes a
    /// new function of it.
    ///
    /// # Errors
    /// [`Error::Address`], or the process has no descriptor left.
    pub fn new(
        device: Arc<Mutex<Device<M>>>,
        memory: M,
        places: &Places,
        host: H,
    ) -> Result<Self, Error> {
        let (tag, offer, window) = {
            let device = lock(&device);
            let queue_sizes = device.queue_max_sizes().to_vec();
            // One more for changes of the configuration.
            let vectors = u16::try_from(queue_sizes.len().saturating_add(1)).unwrap_or(u16::MAX);
            let offer = Offer {
                features: device.features(),
                queue_sizes,
                vectors,
            };
            let window = device.window_size().and_then(WindowMemory::new);
            (device.tag().clone(), offer, window)
        };
        let window = window.zip(places.window);
        check_places(places, window)?;
        let no_event = |source| Error::Io {
            tag: tag.clone(),
            doing: "make an event",
            source,
        };
        let kick = |_: &u16| Line::new().map(|line| Kick { line, at: None });
        let kicks = offer.queue_sizes.iter().map(kick);
        Ok(Self {
            kicks: kicks.collect::<Result<_, _>>().map_err(no_event)?,
            vectors: Msix::new(offer.vectors).map_err(no_event)?,
            config: Described::new(places.registers, offer.vectors, window),
            registers: Registers::new(offer),
            interrupts: Arc::default(),
            windows: places.windows.clone(),
            window: window.map(|(window, _)| window),
            window_at: None,
            complaints: 0,
            tag,
            device,
            memory,
            host,
        })
    }

    /// Fills `data` with the configuration space from `offset` on; beyond its 256 bytes are zeros.
    pub fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config.space.read(offset, data);
        if let Some(access) = self.config.access_at(offset) {
            let mut value = [0; 4];
            if let Some(value) = value.get_mut(..access.len) {
                self.read(access.offset, value);
            }
            bytes::write(data, 0, &value);
        }
    }

    /// Writes to the configuration space at `offset`, as much as a guest may.
    pub fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.space.write(offset, data);
        if let Some(access) = self.config.access_at(offset) {
            self.write(access.offset, data.get(..access.len).unwrap_or_default());
        }
        self.follow_config();
    }

    /// Where its registers are now, where the guest lets them be used.
    #[must_use]
    pub fn registers_at(&self) -> Option<u64> {
        self.config.space.memory()
    }

    /// Reads memory of the guest at `address`. `false` where that is not the function's.
    pub fn read_memory(&mut self, address: u64, data: &mut [u8]) -> bool {
        let offset = self.offset(address);
        offset.map(|offset| self.read(offset, data)).is_some()
    }

    /// Writes there. `false` where that is not the function's.
    pub fn write_memory(&mut self, address: u64, data: &[u8]) -> bool {
        let offset = self.offset(address);
        offset.map(|offset| self.write(offset, data)).is_some()
    }

    /// What there is to save while no processor runs, and the device is paused.
    ///
    /// # Errors
    /// The [device](Device::save) cannot be saved.
    pub fn save(&mut self) -> Result<FunctionState, Error> {
        self.look_after_device();
        let device = lock(&self.device).save();
        Ok(FunctionState {
            version: VERSION,
            config: self.config.space.save(),
            registers: self.registers.save(),
            vectors: self.vectors.save(),
            device: device.map_err(|source| self.device_error(source))?,
        })
    }

    /// Takes over what was saved, by a function that is as new. The device is
    /// [paused](Device::restore) then.
    ///
    /// # Errors
    /// It was saved of another device, the device refuses it, or the VMM does not take an interrupt or
    /// place the window. The function and the device are to be dropped, or the device reset.
    pub fn restore(&mut self, state: FunctionState) -> Result<(), Error> {
        if state.version != VERSION {
            return Err(Error::Version {
                tag: self.tag.clone(),
                version: state.version,
            });
        }
        let vectors = self.vectors.restore(&state.vectors);
        let vectors = vectors.map_err(|source| self.io_error("signal an event", source))?;
        let same = vectors
            && self.config.space.restore(&state.config)
            && self.registers.restore(state.registers);
        if !same {
            return Err(Error::Other(self.tag.clone()));
        }
        self.connect_notifications();
        self.connect_vectors()
            .map_err(|source| self.io_error("connect an interrupt", source))?;
        self.place_window()
            .map_err(|source| self.io_error("place the DAX window", source))?;
        self.interrupts = Arc::new(self.assigned());
        let kicks: Vec<_> = self.kicks.iter().map(|it| it.line.event.clone()).collect();
        let interrupts = Arc::clone(&self.interrupts) as _;
        let memory = self.memory.clone();
        let restored = lock(&self.device).restore(&state.device, memory, &kicks, interrupts);
        restored.map_err(|source| self.device_error(source))
    }

    /// Has the device use `memory`: all that there is now. See [`Device::update_memory`].
    ///
    /// # Errors
    /// Those of the device.
    pub fn update_memory(&mut self, memory: M) -> Result<(), Error> {
        self.memory = memory.clone();
        let updated = lock(&self.device).update_memory(memory);
        updated.map_err(|source| self.device_error(source))
    }

    /// Reads the function's memory.
    fn read(&mut self, offset: usize, data: &mut [u8]) {
        self.look_after_device();
        let in_part = |start: usize| offset.saturating_sub(start);
        match offset {
            COMMON..INTERRUPT_STATUS => self.registers.read(in_part(COMMON), data),
            DEVICE..VECTORS => {
                let offset = in_part(DEVICE) as u64;
                lock(&self.device).read_config(offset, data);
            }
            VECTORS..PENDING => self.vectors.read(in_part(VECTORS), data),
            PENDING..NOTIFY => self.vectors.read_pending(in_part(PENDING), data),
            // There are no interrupts by lines, and no status of them.
            _ => data.fill(0),
        }
    }

    /// Writes to the function's memory.
    fn write(&mut self, offset: usize, data: &[u8]) {
        let in_part = |start: usize| offset.saturating_sub(start);
        match offset {
            COMMON..INTERRUPT_STATUS => match self.registers.write(in_part(COMMON), data) {
                Some(Request::Negotiate) => self.negotiate(),
                Some(Request::Activate) => self.activate(),
                Some(Request::Reset) => self.reset(),
                None => {}
            },
            DEVICE..VECTORS => {
                let offset = in_part(DEVICE) as u64;
                lock(&self.device).write_config(offset, data);
            }
            VECTORS..PENDING => {
                let offset = in_part(VECTORS);
                if let Err(error) = self.vectors.write(offset, data, &mut self.host) {
                    self.fail("the VMM does not take an interrupt", &error);
                }
            }
            NOTIFY.. => {
                let index = in_part(NOTIFY) / NOTIFY_STRIDE;
                let signalled = self.kicks.get(index).map(|kick| kick.line.event.signal());
                if let Some(Err(error)) = signalled {
                    self.fail("a queue is not notified", &error);
                }
            }
            _ => {}
        }
    }

    /// Does what the configuration space says since the guest wrote there.
    fn follow_config(&mut self) {
        self.connect_notifications();
        if let Err(error) = self.connect_vectors() {
            self.fail("the VMM does not take an interrupt", &error);
        }
        if let Err(error) = self.place_window() {
            self.fail("the VMM does not place the DAX window", &error);
        }
    }

    /// Has the VMM signal the queues' events where the guest finds the registers. Where it does not,
    /// the guest's writes do.
    fn connect_notifications(&mut self) {
        let registers = self.config.space.memory();
        let offsets = (NOTIFY as u64..).step_by(NOTIFY_STRIDE);
        let mut failed = None;
        for (kick, offset) in self.kicks.iter_mut().zip(offsets) {
            let at = registers.and_then(|registers| registers.checked_add(offset));
            if at == kick.at {
                continue;
            }
            let event = &kick.line.descriptor;
            if let Some(address) = kick.at.take()
                && let Err(error) = self.host.disconnect_notification(event, address)
            {
                failed = Some(error);
            }
            if let Some(address) = at {
                match self.host.connect_notification(event, address) {
                    Ok(()) => kick.at = at,
                    Err(error) => failed = Some(error),
                }
            }
        }
        if let Some(error) = failed {
            self.complain("notifications take the long way", &error);
        }
    }

    fn connect_vectors(&mut self) -> io::Result<()> {
        let control = self.config.msix_control();
        self.vectors.set_control(control, &mut self.host)
    }

    fn place_window(&mut self) -> io::Result<()> {
        let address = self.window.zip(self.config.space.large_memory());
        let address = address.and_then(|(window, address)| {
            let end = address.checked_add(window.len_on_bus())?;
            (self.windows.start <= address && end <= self.windows.end).then_some(address)
        });
        if address == self.window_at {
            return Ok(());
        }
        self.window_at = None;
        self.host.place_window(address)?;
        self.window_at = address;
        Ok(())
    }

    fn negotiate(&mut self) {
        let features = self.registers.driver_features();
        let taken = lock(&self.device).ack_features(features);
        if let Err(error) = taken {
            self.complain("the driver's features are not taken", &error);
            self.registers.refuse_features();
        }
    }

    fn activate(&mut self) {
        self.interrupts = Arc::new(self.assigned());
        let activation = Activation {
            memory: self.memory.clone(),
            queues: self.queues(),
            interrupt: Arc::clone(&self.interrupts) as _,
        };
        let activated = lock(&self.device).activate(activation);
        if let Err(error) = activated {
            self.fail("the device does not start", &error);
        }
    }

    fn reset(&mut self) {
        self.interrupts = Arc::default();
        let reset = lock(&self.device).reset();
        if let Err(error) = reset {
            self.fail("the device is not reset", &error);
        }
    }

    /// The queues that the driver has enabled.
    fn queues(&self) -> Vec<QueueSetup> {
        let queues = (0..).zip(self.registers.queues()).zip(&self.kicks);
        let enabled = queues.filter(|((_, queue), _)| queue.enabled);
        let setup = enabled.map(|((index, queue), kick)| QueueSetup {
            index,
            ring: RingAddresses {
                size: queue.size,
                descriptors: GuestAddress(queue.desc),
                avail: GuestAddress(queue.driver),
                used: GuestAddress(queue.device),
            },
            kick: kick.line.event.clone(),
        });
        setup.collect()
    }

    /// The events of the vectors that the driver has assigned.
    fn assigned(&self) -> Interrupts {
        let event = |vector: u16| -> Option<Event> { self.vectors.event(vector).cloned() };
        let queues = self.registers.queues().iter();
        let queues = queues.map(|queue| event(queue.vector)).collect();
        Interrupts::new(queues, event(self.registers.config_vector()))
    }

    /// Has the registers say what the device has found out by itself.
    fn look_after_device(&mut self) {
        if self.interrupts.needs_reset() {
            self.registers.fail();
        }
    }

    fn offset(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.config.space.memory()?)?;
        let offset = usize::try_from(offset).ok()?;
        (offset < MEMORY_LEN as usize).then_some(offset)
    }

    /// Tells the driver that only a reset helps; one that is ready by an interrupt, too (virtio 1.2,
    /// section 2.1.2).
    fn fail(&mut self, what: &str, error: &dyn std::error::Error) {
        self.complain(what, error);
        self.registers.fail();
        self.interrupts.signal_needs_reset();
    }

    fn complain(&mut self, what: &str, error: &dyn std::error::Error) {
        if self.complaints < MOST_COMPLAINTS {
            self.complaints = self.complaints.saturating_add(1);
            tracing::warn!(tag = %self.tag, %error, "{what}");
        }
    }

    fn io_error(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Io {
            tag: self.tag.clone(),
            doing,
            source,
        }
    }

    fn device_error(&self, source: virtio_fs_device::Error) -> Error {
        Error::Device {
            tag: self.tag.clone(),
            source,
        }
    }
}

impl<M, H> std::fmt::Debug for Function<M, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function")
            .field("tag", &self.tag)
            .field("registers", &self.registers)
            .finish_non_exhaustive()
    }
}

fn check_places(places: &Places, window: Option<(WindowMemory, u64)>) -> Result<(), Error> {
    let refused = |what, address| Err(Error::Address { what, address });
    if !places.registers.is_multiple_of(MEMORY_LEN) {
        return refused("a device's registers", places.registers.into());
    }
    match window {
        Some((window, address)) if !address.is_multiple_of(window.len_on_bus()) => {
            refused("a DAX window", address)
        }
        _ => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
