//! What a processor reaches outside its memory: ports, and the registers of PCI functions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config_space::{ConfigSpace, Identity};
use super::function::Function;
use super::layout;
use super::serial::Port;

/// What the guest asks of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Off,
    Reset,
}

/// All devices of a machine.
pub(super) struct Bus {
    serial: Arc<Mutex<Option<Port>>>,
    pci_address: Mutex<u32>,
    /// The first device on the PCI bus; the others are those after it.
    host_bridge: ConfigSpace,
    functions: Vec<Mutex<Function>>,
}

impl Bus {
    /// `pci_address` is what the guest last wrote to that register, at first 0.
    pub(super) fn new(
        serial: Arc<Mutex<Option<Port>>>,
        functions: Vec<Function>,
        pci_address: u32,
    ) -> Self {
        Self {
            serial,
            pci_address: Mutex::new(pci_address),
            host_bridge: ConfigSpace::new(&Identity {
                vendor: 0x1b36,
                device: 0x0008,
                revision: 0,
                class: 0x0600,
            }),
            functions: functions.into_iter().map(Mutex::new).collect(),
        }
    }

    /// What the guest last wrote to the address register of PCI.
    pub(super) fn pci_address(&self) -> u32 {
        *lock(&self.pci_address)
    }

    pub(super) fn functions(&self) -> impl Iterator<Item = MutexGuard<'_, Function>> {
        self.functions.iter().map(lock)
    }

    /// Reads from a port. What is not there reads as ones.
    pub(super) fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match port {
            layout::SERIAL_PORT..layout::SERIAL_PORT_END => {
                let mut serial = lock(&self.serial);
                for byte in serial.iter_mut().zip(data) {
                    *byte.1 = byte.0.read((port - layout::SERIAL_PORT) as u8);
                }
            }
            layout::PCI_ADDRESS_PORT if data.len() == 4 => {
                data.copy_from_slice(&self.pci_address().to_le_bytes());
            }
            layout::PCI_DATA_PORT..layout::PCI_DATA_PORT_END => {
                let (device, offset) = self.selected(port);
                match device.checked_sub(1) {
                    None => self.host_bridge.read(offset, data),
                    Some(index) => {
                        if let Some(function) = self.functions.get(index) {
                            lock(function).read_config(offset, data);
                        }
                    }
                }
            }
            layout::SLEEP_PORT..=layout::RESET_PORT => data.fill(0),
            _ => tracing::trace!("reads port {port:#x}"),
        }
    }

    /// Writes to a port, and returns what that asks of the machine.
    pub(super) fn write_port(&self, port: u16, data: &[u8]) -> Option<Power> {
        match port {
            layout::SERIAL_PORT..layout::SERIAL_PORT_END => {
                if let Some(serial) = lock(&self.serial).as_mut() {
                    for &byte in data {
                        write_serial(serial, (port - layout::SERIAL_PORT) as u8, byte);
                    }
                }
            }
            layout::PCI_ADDRESS_PORT => {
                if let &[a, b, c, d] = data {
                    *lock(&self.pci_address) = u32::from_le_bytes([a, b, c, d]);
                }
            }
            layout::PCI_DATA_PORT..layout::PCI_DATA_PORT_END => {
                let (device, offset) = self.selected(port);
                let function = device.checked_sub(1).and_then(|it| self.functions.get(it));
                if let Some(function) = function {
                    lock(function).write_config(offset, data);
                }
            }
            layout::SLEEP_PORT if data == [layout::POWER_OFF] => return Some(Power::Off),
            layout::RESET_PORT => return Some(Power::Reset),
            _ => tracing::trace!("writes {data:?} to port {port:#x}"),
        }
        None
    }

    /// Reads from an address where there is no memory. What is not there reads as ones.
    pub(super) fn read_memory(&self, address: u64, data: &mut [u8]) {
        if !self.functions().any(|mut it| it.read_memory(address, data)) {
            data.fill(0xff);
        }
    }

    pub(super) fn write_memory(&self, address: u64, data: &[u8]) {
        self.functions()
            .any(|mut it| it.write_memory(address, data));
    }

    /// The number of the device on the PCI bus that the address register selects, and the offset in
    /// its configuration space (PCI 3.0, section 3.2.2.3.2).
    fn selected(&self, port: u16) -> (usize, usize) {
        const NOBODY: (usize, usize) = (usize::MAX, 0);
        let address = self.pci_address();
        let [register, device, bus, enabled] = address.to_le_bytes();
        // Of each device there is the first function only.
        if enabled != 0x80 || bus != 0 || device & 7 != 0 {
            return NOBODY;
        }
        let offset = usize::from(register & 0xfc) + usize::from(port - layout::PCI_DATA_PORT);
        (usize::from(device >> 3), offset)
    }
}

fn write_serial(serial: &mut Port, register: u8, byte: u8) {
    if let Err(error) = serial.write(register, byte) {
        // Whoever read the output may be gone: the guest goes on without.
        tracing::debug!(?error, "the console loses a byte");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
