//! The virtual machine as KVM has it: its memory, and the ways that interrupts take.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_clock_data, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1 as Route, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
    kvm_irqchip,
};
use kvm_ioctls::{Error, IoEventAddress, Kvm, NoDatamatch, VmFd};
use serde::{Deserialize, Serialize};
use virtio_fs_pci::{Host, Message};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::fs::Window;
use super::{layout, lock, sys};

/// Pins of the I/O APIC that KVM emulates (`KVM_IOAPIC_NUM_PINS`).
const PINS: u32 = 24;

/// What a snapshot has of it.
#[derive(Serialize, Deserialize)]
pub(super) struct VmState {
    clock: kvm_clock_data,
    chips: Vec<kvm_irqchip>,
}

/// A virtual machine.
pub(super) struct Vm {
    pub(super) fd: VmFd,
    /// Messages that devices send. Interrupts have numbers (GSI), which eventfds are bound to: the
    /// first are the pins of the I/O APIC, those for messages follow.
    messages: Mutex<BTreeMap<Vector, (u32, Message)>>,
}

/// A device, and the number of one of its vectors.
type Vector = (u32, u16);

impl Vm {
    pub(super) fn new(kvm: &Kvm, memory: &'static GuestMemoryMmap) -> Result<Self> {
        let make = || {
            let fd = kvm.create_vm()?;
            fd.set_tss_address(layout::TASK_STATE)?;
            fd.create_irq_chip()?;
            sys::set_memory(&fd, memory)?;
            Ok::<_, Error>(fd)
        };
        Ok(Self {
            fd: make().context("KVM cannot make a VM")?,
            messages: Mutex::default(),
        })
    }

    pub(super) fn state(&self) -> Result<VmState, Error> {
        let chips = [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ];
        let chips = chips.map(|chip_id| {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            self.fd.get_irqchip(&mut chip).map(|()| chip)
        });
        Ok(VmState {
            clock: self.fd.get_clock()?,
            chips: chips.into_iter().collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn restore(&self, state: &VmState) -> Result<(), Error> {
        for chip in &state.chips {
            self.fd.set_irqchip(chip)?;
        }
        // Where it was, not where it would be by now: no time passes for a machine in a file.
        self.fd.set_clock(&kvm_clock_data {
            clock: state.clock.clock,
            ..Default::default()
        })
    }

    /// Has `vector` send `message` from now on, and returns the number of its interrupt.
    fn route(&self, vector: Vector, message: Message) -> io::Result<u32> {
        let mut messages = lock(&self.messages);
        let next = PINS + u32::try_from(messages.len()).unwrap_or(u32::MAX - PINS);
        let (number, route) = messages.entry(vector).or_insert((next, message));
        let number = *number;
        *route = message;
        let messages = messages.values().map(message_route);
        let routes: Vec<_> = (0..PINS).map(pin_route).chain(messages).collect();
        let routes = KvmIrqRouting::from_entries(&routes).map_err(io::Error::other)?;
        self.fd.set_gsi_routing(&routes)?;
        Ok(number)
    }

    /// The number of its interrupt, where it has a route.
    fn number(&self, vector: Vector) -> Option<u32> {
        Some(lock(&self.messages).get(&vector)?.0)
    }
}

/// What the VM does for the device `index`.
pub(super) struct DeviceHost {
    pub(super) vm: Arc<Vm>,
    pub(super) index: u32,
    pub(super) window: Option<Window>,
    /// Whether the guest has the window somewhere.
    pub(super) placed: bool,
}

impl Host for DeviceHost {
    fn connect_vector(&mut self, vector: u16, event: &EventFd, message: Message) -> io::Result<()> {
        let number = self.vm.route((self.index, vector), message)?;
        Ok(self.vm.fd.register_irqfd(event, number)?)
    }

    fn disconnect_vector(&mut self, vector: u16, event: &EventFd) -> io::Result<()> {
        let number = self.vm.number((self.index, vector));
        let number = number.ok_or(io::ErrorKind::NotFound)?;
        Ok(self.vm.fd.unregister_irqfd(event, number)?)
    }

    fn connect_notification(&mut self, event: &EventFd, address: u64) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self.vm.fd.register_ioevent(event, &address, NoDatamatch)?)
    }

    fn disconnect_notification(&mut self, event: &EventFd, address: u64) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self
            .vm
            .fd
            .unregister_ioevent(event, &address, NoDatamatch)?)
    }

    fn place_window(&mut self, address: Option<u64>) -> io::Result<()> {
        if let Some(window) = self.window {
            let slot = sys::MEMORY_SLOTS + self.index;
            if std::mem::take(&mut self.placed) {
                sys::set_window(&self.vm.fd, slot, window, None)?;
            }
            if address.is_some() {
                sys::set_window(&self.vm.fd, slot, window, address)?;
                self.placed = true;
            }
        }
        Ok(())
    }
}

fn pin_route(pin: u32) -> kvm_irq_routing_entry {
    let irqchip = kvm_irq_routing_irqchip {
        irqchip: KVM_IRQCHIP_IOAPIC,
        pin,
    };
    route(pin, KVM_IRQ_ROUTING_IRQCHIP, Route { irqchip })
}

fn message_route(&(gsi, message): &(u32, Message)) -> kvm_irq_routing_entry {
    let mut msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        ..Default::default()
    };
    msi.data = message.data;
    route(gsi, KVM_IRQ_ROUTING_MSI, Route { msi })
}

fn route(gsi: u32, type_: u32, u: Route) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_,
        u,
        ..Default::default()
    }
}
