use std::sync::Arc;

use crate::{Event, Interrupt, QueueSetup};

use super::session::Ring;

/// Whom to interrupt while the device is active, and the calls that a daemon cannot bring to the
/// guest itself.
pub(super) struct Relay {
    queues: Vec<u16>,
    calls: Vec<(u16, Event)>,
    interrupt: Arc<dyn Interrupt>,
}

impl Relay {
    /// That of these queues, and the rings that a daemon is to be told of.
    pub(super) fn new(
        queues: Vec<QueueSetup>,
        interrupt: Arc<dyn Interrupt>,
    ) -> std::io::Result<(Self, Vec<Ring>)> {
        let mut relay = Self {
            queues: Vec::new(),
            calls: Vec::new(),
            interrupt,
        };
        let mut rings = Vec::new();
        for QueueSetup { index, ring, kick } in queues {
            let call = match relay.interrupt.queue_event(index) {
                Some(call) => call,
                None => {
                    let call = Event::new()?;
                    relay.calls.push((index, call.clone()));
                    call
                }
            };
            relay.queues.push(index);
            rings.push(Ring {
                index,
                addresses: ring,
                kick,
                call,
            });
        }
        Ok((relay, rings))
    }

    /// The events to wait for, in the order in which [`pass_on`](Self::pass_on) counts them.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Event> {
        self.calls.iter().map(|(_, call)| call)
    }

    /// Interrupts the driver for what a daemon has signalled since the last time.
    pub(super) fn pass_on(&self) {
        for (index, call) in &self.calls {
            if call.take() > 0 {
                self.interrupt.signal_queue(*index);
            }
        }
    }

    /// Interrupts the driver for every queue: a daemon may have died between giving something back
    /// and saying so.
    pub(super) fn interrupt_all(&self) {
        for &index in &self.queues {
            self.interrupt.signal_queue(index);
        }
    }

    pub(super) fn needs_reset(&self) {
        self.interrupt.signal_needs_reset();
    }
}
