//! The virtual machine as KVM has it: its memory, and the ways that interrupts take.

use std::sync::{Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_clock_data, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1 as Route, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
    kvm_irqchip,
};
use kvm_ioctls::{Error, Kvm, VmFd};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use super::{layout, sys};

/// Pins of the I/O APIC that KVM emulates (`KVM_IOAPIC_NUM_PINS`).
const PINS: u32 = 24;

/// What KVM refused, in words that follow "cannot", and why.
#[derive(Debug, thiserror::Error)]
#[error("KVM cannot {0}: {1}")]
pub(super) struct Refused(pub(super) &'static str, #[source] pub(super) Error);

/// For `map_err`.
pub(super) fn refused(what: &'static str) -> impl Fn(Error) -> Refused {
    move |error| Refused(what, error)
}

/// What a message-signalled interrupt writes, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) address: u64,
    pub(super) data: u32,
}

/// What a snapshot has of it.
#[derive(Serialize, Deserialize)]
pub(super) struct VmState {
    clock: kvm_clock_data,
    chips: Vec<kvm_irqchip>,
}

/// A virtual machine. Interrupts have numbers (GSI), which eventfds are bound to: the first are the
/// pins of the I/O APIC, those for messages follow.
pub(super) struct Vm {
    pub(super) fd: VmFd,
    messages: Mutex<Vec<Message>>,
}

impl Vm {
    pub(super) fn new(kvm: &Kvm, memory: &'static GuestMemoryMmap) -> Result<Self, Refused> {
        let fd = kvm.create_vm().map_err(refused("make a VM"))?;
        fd.set_tss_address(layout::TASK_STATE)
            .map_err(refused("place a task state segment"))?;
        fd.create_irq_chip()
            .map_err(refused("emulate interrupt controllers"))?;
        sys::set_memory(&fd, memory).map_err(refused("give the guest its memory"))?;
        let messages = Mutex::default();
        Ok(Self { fd, messages })
    }

    /// Takes `count` interrupts for messages, and returns the number of the first.
    pub(super) fn reserve_messages(&self, count: usize) -> u32 {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let first = messages.len();
        messages.resize(first + count, Message::default());
        (PINS..).nth(first).unwrap_or(u32::MAX)
    }

    /// Has an interrupt whose number was reserved send `message` from now on.
    pub(super) fn set_message(&self, number: u32, message: Message) -> Result<(), Error> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = (PINS..).zip(messages.iter_mut());
        if let Some((_, old)) = numbered.into_iter().find(|(gsi, _)| *gsi == number) {
            *old = message;
        }
        let messages = (PINS..).zip(messages.iter()).map(message_route);
        let routes: Vec<_> = (0..PINS).map(pin_route).chain(messages).collect();
        let routes = KvmIrqRouting::from_entries(&routes).map_err(|_| too_many())?;
        self.fd.set_gsi_routing(&routes)
    }

    pub(super) fn state(&self) -> Result<VmState, Refused> {
        let clock = self.fd.get_clock().map_err(refused("tell the clock"))?;
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
        let chips = chips.into_iter().collect::<Result<_, _>>();
        let chips = chips.map_err(refused("tell the state of interrupt controllers"))?;
        Ok(VmState { clock, chips })
    }

    pub(super) fn restore(&self, state: &VmState) -> Result<(), Refused> {
        for chip in &state.chips {
            let set = self.fd.set_irqchip(chip);
            set.map_err(refused("restore interrupt controllers"))?;
        }
        // Where it was, not where it would be by now: no time passes for a machine in a file.
        let clock = kvm_clock_data {
            clock: state.clock.clock,
            ..Default::default()
        };
        self.fd
            .set_clock(&clock)
            .map_err(refused("restore the clock"))
    }
}

/// What KVM itself would say of a list that is longer than it takes.
pub(super) fn too_many() -> Error {
    Error::new(Errno::TOOBIG.raw_os_error())
}

fn pin_route(pin: u32) -> kvm_irq_routing_entry {
    let irqchip = kvm_irq_routing_irqchip {
        irqchip: KVM_IRQCHIP_IOAPIC,
        pin,
    };
    kvm_irq_routing_entry {
        gsi: pin,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: Route { irqchip },
        ..Default::default()
    }
}

fn message_route((gsi, message): (u32, &Message)) -> kvm_irq_routing_entry {
    let mut msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        ..Default::default()
    };
    msi.data = message.data;
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: Route { msi },
        ..Default::default()
    }
}
