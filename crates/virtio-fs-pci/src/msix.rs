//! Interrupts by messages (PCI 3.0, section 6.8.2). Each vector is an event that the VMM turns into
//! the message. While a vector is masked nothing does, and what is signalled meanwhile stays in the
//! event until somebody does.

use std::io;

use serde::{Deserialize, Serialize};
use virtio_fs_device::Event;

use crate::bytes;
use crate::host::{Host, Message};
use crate::line::Line;

/// Length of a vector in the table.
const VECTOR_LEN: usize = 16;
/// Bits of the message control word.
pub(crate) const ENABLED: u16 = 1 << 15;
pub(crate) const ALL_MASKED: u16 = 1 << 14;

/// What is saved of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MsixState {
    table: Vec<u8>,
    pending: Vec<bool>,
}

/// The vectors of one PCI function.
pub(crate) struct Msix {
    control: u16,
    /// As the guest sees it: address, data and mask of each vector.
    table: Vec<u8>,
    vectors: Vec<Vector>,
}

struct Vector {
    line: Line,
    /// What the VMM makes of it, where it is told to.
    message: Option<Message>,
}

impl Msix {
    /// `count` vectors, all masked.
    pub(crate) fn new(count: u16) -> io::Result<Self> {
        const MASKED: [u8; VECTOR_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        let vectors = (0..count).map(|_| {
            Ok(Vector {
                line: Line::new()?,
                message: None,
            })
        });
        Ok(Self {
            control: 0,
            table: MASKED.repeat(count.into()),
            vectors: vectors.collect::<io::Result<_>>()?,
        })
    }

    /// What to signal for an interrupt by `vector`; `None` where there is no such vector.
    pub(crate) fn event(&self, vector: u16) -> Option<&Event> {
        let vector = self.vectors.get(usize::from(vector))?;
        Some(&vector.line.event)
    }

    /// Reads the table at `offset`, beyond the end zeros.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        bytes::read(&self.table, offset, data);
    }

    /// Writes to the table.
    pub(crate) fn write(
        &mut self,
        offset: usize,
        data: &[u8],
        host: &mut impl Host,
    ) -> io::Result<()> {
        bytes::write(&mut self.table, offset, data);
        self.connect(host)
    }

    /// Reads the bits of those that wait until they are not masked any more.
    pub(crate) fn read_pending(&self, offset: usize, data: &mut [u8]) {
        let mut bits = vec![0; self.vectors.len().div_ceil(8)];
        for (vectors, bits) in self.vectors.chunks(8).zip(&mut bits) {
            for vector in vectors.iter().rev() {
                *bits = *bits << 1 | u8::from(vector.line.event.is_signalled());
            }
        }
        bytes::read(&bits, offset, data);
    }

    /// Takes what the guest wrote to the message control word.
    pub(crate) fn set_control(&mut self, control: u16, host: &mut impl Host) -> io::Result<()> {
        if self.control == control {
            return Ok(());
        }
        self.control = control;
        self.connect(host)
    }

    /// Nothing may be signalled meanwhile.
    pub(crate) fn save(&self) -> MsixState {
        let vectors = self.vectors.iter();
        MsixState {
            table: self.table.clone(),
            pending: vectors.map(|it| it.line.event.is_signalled()).collect(),
        }
    }

    /// Takes over what was saved. The message control word is to be set after it. `false` where it
    /// is of another number of vectors.
    pub(crate) fn restore(&mut self, state: &MsixState) -> io::Result<bool> {
        let lens = (state.table.len(), state.pending.len());
        if lens != (self.table.len(), self.vectors.len()) {
            return Ok(false);
        }
        self.table.clone_from(&state.table);
        let vectors = self.vectors.iter().zip(&state.pending);
        for (vector, _) in vectors.filter(|(_, pending)| **pending) {
            vector.line.event.signal()?;
        }
        Ok(true)
    }

    /// Has the VMM have all vectors as the table says. Those that it refuses it has not.
    fn connect(&mut self, host: &mut impl Host) -> io::Result<()> {
        let enabled = self.control & (ENABLED | ALL_MASKED) == ENABLED;
        let entries = self.table.chunks_exact(VECTOR_LEN);
        let mut done = Ok(());
        for ((number, vector), entry) in (0..).zip(&mut self.vectors).zip(entries) {
            let works = enabled && bytes::u32_at(entry, 12) & 1 == 0;
            let [low, high] = [0, 4].map(|offset| u64::from(bytes::u32_at(entry, offset)));
            let message = works.then(|| Message {
                address: high << 32 | low,
                data: bytes::u32_at(entry, 8),
            });
            if let Err(error) = vector.connect(number, message, host) {
                done = Err(error);
            }
        }
        done
    }
}

impl Vector {
    fn connect(
        &mut self,
        number: u16,
        message: Option<Message>,
        host: &mut impl Host,
    ) -> io::Result<()> {
        if message == self.message {
            return Ok(());
        }
        if self.message.take().is_some() {
            host.disconnect_vector(number, &self.line.descriptor)?;
        }
        if let Some(message) = message {
            host.connect_vector(number, &self.line.descriptor, message)?;
            self.message = Some(message);
        }
        Ok(())
    }
}
