use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use virtio_fs_device::GuestSpace;

use crate::config_space::{ConfigSpace, Identity};
use crate::{Error, Function, FunctionState, Host, bytes};

/// What is saved of a bus, by any format of serde's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BusState {
    address: u32,
    functions: Vec<FunctionState>,
}

/// A PCI bus of its own for virtio-fs devices, for a VMM that has none: a host bridge, the functions
/// after it as devices 1, 2 and so on, and the two ports of a PC by which their configuration spaces
/// are reached (PCI 3.0, section 3.2.2.3.2).
///
/// It can be used by all processors at once: an access waits for those to the same function only.
pub struct Bus<M, H> {
    /// What the guest last wrote to the address port.
    address: Mutex<u32>,
    host_bridge: ConfigSpace,
    slots: Vec<Slot<M, H>>,
}

struct Slot<M, H> {
    function: Mutex<Function<M, H>>,
    /// Where its registers are, so that accesses to others do not have to wait for it.
    registers_at: AtomicU64,
}

/// A function's registers that are nowhere.
const NOWHERE: u64 = u64::MAX;

impl<M: GuestSpace, H: Host> Bus<M, H> {
    /// The first of the ports, of which there are eight: the address port.
    pub const PORT: u16 = 0xcf8;
    /// How many functions there is room for.
    pub const MOST_FUNCTIONS: usize = 31;

    /// A bus with these functions.
    ///
    /// # Errors
    /// [`Error::Full`]: there are more than [`MOST_FUNCTIONS`](Self::MOST_FUNCTIONS).
    pub fn new(functions: Vec<Function<M, H>>) -> Result<Self, Error> {
        if functions.len() > Self::MOST_FUNCTIONS {
            return Err(Error::Full {
                most: Self::MOST_FUNCTIONS,
                wanted: functions.len(),
            });
        }
        let slot = |function: Function<M, H>| Slot {
            registers_at: AtomicU64::new(function.registers_at().unwrap_or(NOWHERE)),
            function: Mutex::new(function),
        };
        Ok(Self {
            address: Mutex::new(0),
            // The ids of a bridge that is nothing else, as QEMU has them.
            host_bridge: ConfigSpace::new(&Identity {
                vendor: 0x1b36,
                device: 0x0008,
                revision: 0,
                class: 0x0600,
            }),
            slots: functions.into_iter().map(slot).collect(),
        })
    }

    /// The functions, one after the other, each locked: accesses to it wait until that is dropped.
    pub fn functions(&self) -> impl Iterator<Item = MutexGuard<'_, Function<M, H>>> {
        self.slots.iter().map(|slot| lock(&slot.function))
    }

    /// Reads from the port [`PORT`](Self::PORT)` + offset`. What is not there reads as ones.
    pub fn read_port(&self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        match (offset, self.selected(offset)) {
            (0, _) if data.len() == 4 => bytes::write(data, 0, &lock(&self.address).to_le_bytes()),
            (_, Some((0, offset))) => self.host_bridge.read(offset, data),
            (_, Some((device, offset))) => {
                if let Some(slot) = self.slot(device) {
                    lock(&slot.function).read_config(offset, data);
                }
            }
            _ => {}
        }
    }

    /// Writes to the port [`PORT`](Self::PORT)` + offset`.
    pub fn write_port(&self, offset: u16, data: &[u8]) {
        match (offset, self.selected(offset)) {
            (0, _) if data.len() == 4 => *lock(&self.address) = bytes::value(data),
            (_, Some((device, offset))) => {
                if let Some(slot) = self.slot(device) {
                    let mut function = lock(&slot.function);
                    function.write_config(offset, data);
                    let registers = function.registers_at().unwrap_or(NOWHERE);
                    slot.registers_at.store(registers, Ordering::Release);
                }
            }
            _ => {}
        }
    }

    /// Reads from a guest address where there is no memory. What is not there reads as ones.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        let mut slots = self.slots_at(address);
        if !slots.any(|slot| lock(&slot.function).read_memory(address, data)) {
            data.fill(0xff);
        }
    }

    /// Writes to a guest address where there is no memory.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        let mut slots = self.slots_at(address);
        slots.any(|slot| lock(&slot.function).write_memory(address, data));
    }

    /// What there is to save while no processor runs, and the devices are paused.
    ///
    /// # Errors
    /// Those of [`Function::save`].
    pub fn save(&self) -> Result<BusState, Error> {
        Ok(BusState {
            address: *lock(&self.address),
            functions: self
                .functions()
                .map(|mut function| function.save())
                .collect::<Result<_, _>>()?,
        })
    }

    /// Takes over what was saved of a bus with the same functions. Their devices are paused then.
    ///
    /// # Errors
    /// Those of [`Function::restore`], and [`Error::Functions`].
    pub fn restore(&self, state: BusState) -> Result<(), Error> {
        let (saved, there) = (state.functions.len(), self.slots.len());
        if saved != there {
            return Err(Error::Functions { saved, there });
        }
        *lock(&self.address) = state.address;
        for (slot, state) in self.slots.iter().zip(state.functions) {
            let mut function = lock(&slot.function);
            function.restore(state)?;
            let registers = function.registers_at().unwrap_or(NOWHERE);
            slot.registers_at.store(registers, Ordering::Release);
        }
        Ok(())
    }

    fn slot(&self, device: usize) -> Option<&Slot<M, H>> {
        self.slots.get(device.checked_sub(1)?)
    }

    /// The functions of which the address may be.
    fn slots_at(&self, address: u64) -> impl Iterator<Item = &Slot<M, H>> {
        self.slots.iter().filter(move |slot| {
            let registers = slot.registers_at.load(Ordering::Acquire);
            let offset = address.checked_sub(registers);
            offset.is_some_and(|offset| offset < Function::<M, H>::REGISTERS_LEN.into())
        })
    }

    /// The number of the device that the address port selects, and the offset in its configuration
    /// space of the data port at `offset`.
    fn selected(&self, offset: u16) -> Option<(usize, usize)> {
        const DATA: u16 = 4;
        let offset = usize::from(offset.checked_sub(DATA)?);
        let [register, device, bus, enabled] = lock(&self.address).to_le_bytes();
        // Of each device there is the first function only.
        let there = enabled == 0x80 && bus == 0 && device & 7 == 0 && offset < 4;
        there.then(|| {
            (
                usize::from(device >> 3),
                usize::from(register & 0xfc) | offset,
            )
        })
    }
}

impl<M, H> fmt::Debug for Bus<M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("functions", &self.slots.len())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
