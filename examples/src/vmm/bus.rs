//! What a processor reaches outside its memory.

use std::sync::{Arc, Mutex};

use vm_memory::GuestMemoryMmap;

use super::serial::Port;
use super::vm::DeviceHost;
use super::{layout, lock};

/// What the guest asks of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Off,
    Reset,
}

/// All devices of a machine.
pub(super) struct Bus {
    pub(super) serial: Arc<Mutex<Option<Port>>>,
    pub(super) pci: virtio_fs_pci::Bus<&'static GuestMemoryMmap, DeviceHost>,
}

impl Bus {
    /// Reads from a port. What is not there reads as ones.
    pub(super) fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match port {
            layout::SERIAL_PORT..layout::SERIAL_PORT_END => {
                if let (Some(serial), [byte]) = (&mut *lock(&self.serial), data) {
                    *byte = serial.read((port - layout::SERIAL_PORT) as u8);
                }
            }
            layout::PCI_PORT..layout::PCI_PORT_END => {
                self.pci.read_port(port - layout::PCI_PORT, data);
            }
            layout::SLEEP_PORT..=layout::RESET_PORT => data.fill(0),
            _ => tracing::trace!("reads port {port:#x}"),
        }
    }

    /// Writes to a port, and returns what that asks of the machine.
    pub(super) fn write_port(&self, port: u16, data: &[u8]) -> Option<Power> {
        match port {
            layout::SERIAL_PORT..layout::SERIAL_PORT_END => {
                if let (Some(serial), &[byte]) = (&mut *lock(&self.serial), data)
                    && let Err(error) = serial.write((port - layout::SERIAL_PORT) as u8, byte)
                {
                    // Whoever read the output may be gone: the guest goes on without.
                    tracing::debug!(?error, "the console loses a byte");
                }
            }
            layout::PCI_PORT..layout::PCI_PORT_END => {
                self.pci.write_port(port - layout::PCI_PORT, data);
            }
            layout::SLEEP_PORT if data == [layout::POWER_OFF] => return Some(Power::Off),
            layout::RESET_PORT => return Some(Power::Reset),
            _ => tracing::trace!("writes {data:?} to port {port:#x}"),
        }
        None
    }
}
