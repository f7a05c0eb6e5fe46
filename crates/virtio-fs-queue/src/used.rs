use std::sync::{Mutex, PoisonError};

use arrayvec::ArrayVec;
use vm_memory::bitmap::BitmapSlice;

use crate::ring::{Ring, UsedElement};
use crate::{InFlightRecord, RingError};

/// Most chains that are kept before the driver is told of them.
///
/// A driver that has been told works on them while the next are served; one that sleeps until 16
/// are done leaves a processor idle meanwhile. A driver that is still busy with the last ones says
/// so by EVENT_IDX, and is not interrupted at all: then each batch is only published.
///
/// At depth 32, on two processors, 2, 4 and 8 differ by no more than the noise, for a driver that
/// sleeps and for one that waits on its processor. With 16 the first makes a third fewer getattr
/// and a tenth fewer reads and writes of 4k than with 4, with 1 the second a seventh to a quarter
/// fewer reads and writes.
const MAX_CHAINS: usize = 4;
/// Bytes of data from which on the driver is told at once: moving them took as long as an interrupt
/// takes, and longer than a small request.
const ENOUGH_BYTES: usize = 128 * 1024;
/// Bytes of data from which on it is told at once even if more of them were written out, and there
/// is more to do: a writer waits for 100 us longer at most where that was four times 128 KiB.
const MOST_BYTES: usize = 512 * 1024;

/// Chains that are done with, but not given back yet.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    elements: ArrayVec<UsedElement, MAX_CHAINS>,
    bytes: usize,
}

impl Batch {
    /// Adds a chain of which `taken` bytes were read, and returns whether it is time to give all of
    /// them back; `left` says how many chains are available by now.
    ///
    /// Whoever asks for much data goes on as soon as it is there. Large WRITEs, of which a guest has
    /// several in flight when it cleans its memory, are kept until as many are done as are left to
    /// do: so a driver that sleeps until then has its next ones ready in time. With 8 of 128 KiB in
    /// flight that is one interrupt for four of them.
    pub(crate) fn push(
        &mut self,
        element: UsedElement,
        taken: usize,
        left: impl FnOnce() -> u16,
    ) -> bool {
        let given = element.len as usize;
        self.bytes = self.bytes.saturating_add(taken).saturating_add(given);
        let full = self.elements.try_push(element).is_err() || self.elements.is_full();
        if full || self.bytes < ENOUGH_BYTES {
            return full;
        }
        given >= taken || self.bytes >= MOST_BYTES || self.elements.len() >= usize::from(left())
    }

    fn clear(&mut self) {
        self.elements.clear();
        self.bytes = 0;
    }
}

/// The device's end of the used ring, which the queue's thread and those of the pool share.
#[derive(Debug)]
pub(crate) struct UsedEnd {
    state: Mutex<State>,
    record: Option<InFlightRecord>,
}

#[derive(Debug)]
struct State {
    next_used: u16,
    /// Up to where the driver was asked whether it wants an interrupt.
    asked: Option<u16>,
    /// The chain that was linked into the record last.
    last_linked: u16,
}

impl UsedEnd {
    /// One that strikes off `record` what it gives back, where there is one.
    pub(crate) fn new(next_used: u16, record: Option<InFlightRecord>) -> Self {
        Self {
            state: Mutex::new(State {
                next_used,
                asked: None,
                last_linked: 0,
            }),
            record,
        }
    }

    /// Chains given back so far, modulo 2^16.
    pub(crate) fn next_used(&self) -> u16 {
        self.lock().next_used
    }

    /// Gives the chains of `batch` back, and returns whether the driver wants an interrupt.
    pub(crate) fn give_back<B: BitmapSlice>(
        &self,
        ring: &Ring<'_, B>,
        batch: &mut Batch,
    ) -> Result<bool, RingError> {
        if batch.elements.is_empty() {
            return Ok(false);
        }
        let mut state = self.lock();
        let mut next_used = state.next_used;
        for element in &batch.elements {
            ring.write_used(next_used, *element)?;
            next_used = next_used.wrapping_add(1);
            if let Some(record) = &self.record {
                record.link(element.head, state.last_linked);
                state.last_linked = element.head;
            }
        }
        ring.publish(next_used)?;
        if let Some(record) = &self.record {
            let heads = batch.elements.iter().map(|element| element.head);
            record.strike_off(heads, next_used);
        }
        batch.clear();
        state.next_used = next_used;
        let asked = state.asked.replace(next_used);
        ring.wants_interrupt(asked, next_used)
    }

    /// Waits until what the driver was given back is struck off the record, as far as it knows.
    ///
    /// It may have made the same descriptors available again, which are to be noted after that.
    pub(crate) fn settle(&self) {
        if self.record.is_some() {
            drop(self.lock());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
