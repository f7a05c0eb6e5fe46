//! Interrupts by messages (PCI 3.0, section 6.8.2). Each vector is an eventfd that KVM turns into
//! the message, without a way through this process. While a vector is masked KVM does not have it,
//! and what is signalled meanwhile stays in the eventfd until it does.

use std::io;
use std::sync::Arc;

use kvm_ioctls::Error;
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::vm::{Message, Vm};

/// Length of a vector in the table.
const VECTOR_LEN: usize = 16;
/// Bits of the message control word.
pub(super) const ENABLED: u16 = 1 << 15;
pub(super) const ALL_MASKED: u16 = 1 << 14;

/// What a snapshot has of it.
#[derive(Serialize, Deserialize)]
pub(super) struct MsixState {
    table: Vec<u8>,
    pending: Vec<bool>,
}

/// The vectors of one PCI function.
pub(super) struct Msix {
    vm: Arc<Vm>,
    control: u16,
    /// As the guest sees it: address, data and mask of each vector.
    table: Vec<u8>,
    vectors: Vec<Vector>,
}

struct Vector {
    event: EventFd,
    number: u32,
    /// What KVM makes of it, where it has it.
    message: Option<Message>,
}

impl Msix {
    /// `count` vectors, all masked.
    pub(super) fn new(vm: &Arc<Vm>, count: usize) -> io::Result<Self> {
        const MASKED: [u8; VECTOR_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        let numbers = vm.reserve_messages(count)..;
        let vectors = numbers.take(count).map(|number| {
            Ok(Vector {
                event: EventFd::new(EFD_NONBLOCK)?,
                number,
                message: None,
            })
        });
        Ok(Self {
            vm: Arc::clone(vm),
            control: 0,
            table: MASKED.repeat(count),
            vectors: vectors.collect::<io::Result<_>>()?,
        })
    }

    /// What to signal for an interrupt by `vector`; `None` where there is no such vector.
    pub(super) fn event(&self, vector: u16) -> Option<&EventFd> {
        let vector = self.vectors.get(usize::from(vector))?;
        Some(&vector.event)
    }

    /// Reads the table at `offset`, beyond the end zeros.
    pub(super) fn read(&self, offset: usize, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(self.table.iter().skip(offset)) {
            *byte = *value;
        }
    }

    /// Writes to the table.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> Result<(), Error> {
        for (byte, value) in self.table.iter_mut().skip(offset).zip(data) {
            *byte = *value;
        }
        self.connect(offset / VECTOR_LEN)
    }

    /// Takes what the guest wrote to the message control word.
    pub(super) fn set_control(&mut self, control: u16) -> Result<(), Error> {
        self.control = control;
        (0..self.vectors.len()).try_for_each(|vector| self.connect(vector))
    }

    /// Nothing may be signalled meanwhile.
    pub(super) fn state(&self) -> MsixState {
        let pending = self.vectors.iter().map(|vector| {
            let pending = vector.event.read().is_ok();
            pending && vector.event.write(1).is_ok()
        });
        MsixState {
            table: self.table.clone(),
            pending: pending.collect(),
        }
    }

    /// Takes over what was saved. The message control word is to be set after it.
    pub(super) fn restore(&mut self, state: &MsixState) -> io::Result<()> {
        for (byte, value) in self.table.iter_mut().zip(&state.table) {
            *byte = *value;
        }
        for (vector, _) in self.vectors.iter().zip(&state.pending).filter(|it| *it.1) {
            vector.event.write(1)?;
        }
        Ok(())
    }

    /// Has KVM have `vector` as the table says.
    fn connect(&mut self, vector: usize) -> Result<(), Error> {
        let entries = self.table.chunks_exact(VECTOR_LEN);
        let mut both = entries.zip(&mut self.vectors);
        let Some((entry, vector)) = both.nth(vector) else {
            return Ok(());
        };
        let word = |index: usize| {
            let bytes = entry.chunks_exact(4).nth(index);
            bytes.map_or(0, |it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]))
        };
        let works = self.control & (ENABLED | ALL_MASKED) == ENABLED && word(3) & 1 == 0;
        let message = works.then(|| Message {
            address: u64::from(word(1)) << 32 | u64::from(word(0)),
            data: word(2),
        });
        if message == vector.message {
            return Ok(());
        }
        if vector.message.take().is_some() {
            self.vm.fd.unregister_irqfd(&vector.event, vector.number)?;
        }
        if let Some(message) = message {
            self.vm.set_message(vector.number, message)?;
            self.vm.fd.register_irqfd(&vector.event, vector.number)?;
            vector.message = Some(message);
        }
        Ok(())
    }
}
