use std::sync::Arc;

use super::kicks;
use super::session::Ring;
use crate::status::Health;
use crate::{Event, Interrupt, QueueSetup};

/// Whom to interrupt while the device is active, and the calls that a daemon cannot bring to the
/// guest itself.
#[derive(Clone)]
pub(super) struct Relay {
    /// Each queue with what says that it is broken.
    queues: Vec<(u16, Event)>,
    calls: Vec<(u16, Event)>,
    /// Those that it can, which the VMM signals, too.
    shared: Vec<(u16, Event)>,
    interrupt: Arc<dyn Interrupt>,
    /// That of the device's [`Health`] in which it is active.
    era: u64,
}

impl Relay {
    /// That of these queues from `era` on, and the rings that a daemon is to be told of.
    pub(super) fn new(
        queues: Vec<QueueSetup>,
        interrupt: Arc<dyn Interrupt>,
        era: u64,
    ) -> std::io::Result<(Self, Vec<Ring>)> {
        let mut relay = Self {
            queues: Vec::new(),
            calls: Vec::new(),
            shared: Vec::new(),
            interrupt,
            era,
        };
        let mut rings = Vec::new();
        for queue in queues {
            rings.push(relay.add(queue)?);
        }
        Ok((relay, rings))
    }

    /// This one with one queue more, and its ring.
    pub(super) fn with(&self, queue: QueueSetup) -> std::io::Result<(Self, Ring)> {
        let mut relay = self.clone();
        let ring = relay.add(queue)?;
        Ok((relay, ring))
    }

    /// This one without queue `index`.
    pub(super) fn without(&self, index: u16) -> Self {
        let mut relay = self.clone();
        relay.queues.retain(|(queue, _)| *queue != index);
        relay.forget_call(index);
        relay
    }

    /// This one with another call for queue `index`, and that call.
    pub(super) fn rerouted(&self, index: u16) -> std::io::Result<(Self, Event)> {
        let mut relay = self.clone();
        relay.forget_call(index);
        let call = relay.route(index)?;
        Ok((relay, call))
    }

    fn add(&mut self, QueueSetup { index, ring, kick }: QueueSetup) -> std::io::Result<Ring> {
        let call = self.route(index)?;
        let error = Event::new()?;
        self.queues.push((index, error.clone()));
        Ok(Ring {
            index,
            addresses: ring,
            kick,
            call,
            error,
        })
    }

    fn forget_call(&mut self, index: u16) {
        for calls in [&mut self.calls, &mut self.shared] {
            calls.retain(|(queue, _)| *queue != index);
        }
    }

    fn route(&mut self, index: u16) -> std::io::Result<Event> {
        if let Some(call) = self.interrupt.queue_event(index) {
            self.shared.push((index, call.clone()));
            return Ok(call);
        }
        let call = Event::new()?;
        self.calls.push((index, call.clone()));
        Ok(call)
    }

    /// The events to wait for.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        let events = self.calls.iter().chain(&self.queues);
        events.map(|(_, event)| event)
    }

    /// Interrupts the driver for what a daemon has signalled since the last time. That a queue was
    /// broken before a reset it is not told after it.
    pub(super) fn pass_on(&self, health: &Health) {
        for (index, call) in &self.calls {
            if call.take() > 0 {
                self.interrupt.signal_queue(*index);
            }
        }
        for (index, error) in &self.queues {
            if error.take() > 0 {
                health.within(self.era, || {
                    if health.broke(*index) {
                        self.interrupt.signal_needs_reset();
                    }
                });
            }
        }
    }

    /// Interrupts the driver for every queue: a daemon may have died between giving something back
    /// and saying so, and what was under way when the machine was paused may not be in its state.
    pub(super) fn interrupt_all(&self) {
        let shared: Vec<_> = self.shared.iter().map(|(_, event)| event).collect();
        kicks::keep_going(&shared, || {
            for (index, _) in &self.queues {
                self.interrupt.signal_queue(*index);
            }
        });
    }

    /// Interrupts the driver for queue `index`.
    pub(super) fn interrupt(&self, index: u16) {
        let shared: Vec<_> = self.shared.iter().map(|(_, event)| event).collect();
        kicks::keep_going(&shared, || self.interrupt.signal_queue(index));
    }

    /// Tells the driver that the device has failed, unless it was reset since.
    pub(super) fn needs_reset(&self, health: &Health) {
        health.within(self.era, || self.interrupt.signal_needs_reset());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use vm_memory::GuestAddress;

    use super::*;
    use crate::RingAddresses;

    /// Signals an event that a daemon has filled up right after it had room.
    struct Late(Event);

    impl Interrupt for Late {
        fn signal_queue(&self, _: u16) {
            rustix::io::write(&self.0, &1u64.to_ne_bytes()).unwrap();
        }

        fn signal_needs_reset(&self) {}

        fn queue_event(&self, _: u16) -> Option<Event> {
            Some(self.0.clone())
        }
    }

    #[test]
    fn a_daemon_that_fills_an_event_up_holds_no_interrupt_up() {
        let event = Event::from(vmm_sys_util::eventfd::EventFd::new(0).unwrap());
        let queue = QueueSetup {
            index: 3,
            ring: RingAddresses {
                size: 64,
                descriptors: GuestAddress(0),
                avail: GuestAddress(0),
                used: GuestAddress(0),
            },
            kick: Event::new().unwrap(),
        };
        let (relay, _) = Relay::new(vec![queue], Arc::new(Late(event.clone())), 0).unwrap();
        let (rerouted, _) = relay.rerouted(3).unwrap();
        for interrupt in [
            |relay: &Relay| relay.interrupt_all(),
            |relay: &Relay| relay.interrupt(3),
        ] {
            for relay in [relay.clone(), rerouted.clone()] {
                rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
                let (tell, told) = channel();
                std::thread::spawn(move || {
                    interrupt(&relay);
                    tell.send(()).unwrap();
                });
                told.recv_timeout(Duration::from_secs(20)).unwrap();
                assert_eq!(event.take(), 1);
            }
        }
    }
}
