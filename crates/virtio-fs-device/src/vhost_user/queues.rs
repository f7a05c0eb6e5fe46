//! Queues that come and go while the device is active.
//!
//! A daemon that fails at what it is told of them is given up, which is no reason for the call to
//! fail: the one that takes its place is told what holds then.

use std::sync::Arc;

use super::VhostUserBackend;
use super::control::{Active, Served, used_idx};
use super::relay::Relay;
use super::rings;
use crate::{Call, Error, GuestSpace, QueueSetup};

impl<M: GuestSpace> VhostUserBackend<M> {
    pub(super) fn add_queue(&self, queue: QueueSetup, next_avail: u16) -> Result<(), Error> {
        let index = queue.index;
        let relay = self.check_new(&queue)?;
        // The VMM is asked what to signal, with nothing locked.
        let (relay, ring) = relay.with(queue).map_err(Error::io("make an eventfd"))?;
        let mut control = self.shared.control();
        let (_, active) = self.in_use(&mut control.active, Call::StartQueue)?;
        active.rings.push(Served {
            ring,
            base: Some(next_avail),
        });
        self.shared.set_relay(Some(relay));
        let deadline = self.shared.soon("start a queue");
        let told = self.with_daemon(&mut control, |session, active, logging| {
            active.start_one(index, session, logging, deadline)
        });
        self.forgive(told);
        self.shared.health.done(Call::StartQueue)
    }

    pub(super) fn remove_queue(&self, index: u16) -> Result<u16, Error> {
        let mut control = self.shared.control();
        let (_, active) = self.in_use(&mut control.active, Call::StopQueue)?;
        active.served(index)?;
        let deadline = self.shared.later("stop a queue");
        let told = self.with_daemon(&mut control, |session, active, _| {
            let base = session.stop_ring(index, deadline)?;
            active.served(index)?.base = Some(base);
            session.settle(deadline)
        });
        self.forgive(told);
        let (relay, active) = self.in_use(&mut control.active, Call::StopQueue)?;
        let Served { ring, base } = active.take(index)?;
        self.shared.set_relay(Some(relay.without(index)));
        match base {
            Some(base) => Ok(base),
            None => used_idx(&active.memory, &ring),
        }
    }

    pub(super) fn reroute(&self, index: u16) -> Result<(), Error> {
        let relay = {
            let mut control = self.shared.control();
            let (relay, active) = self.in_use(&mut control.active, Call::UpdateInterrupt)?;
            active.served(index)?;
            relay
        };
        // The VMM is asked what to signal, with nothing locked.
        let (relay, call) = relay
            .rerouted(index)
            .map_err(Error::io("make an eventfd"))?;
        let mut control = self.shared.control();
        let (_, active) = self.in_use(&mut control.active, Call::UpdateInterrupt)?;
        active.served(index)?.ring.call = call;
        self.shared.set_relay(Some(relay));
        let deadline = self.shared.soon("change how a queue interrupts");
        let told = self.with_daemon(&mut control, |session, active, _| {
            session.change_ring_call(&active.served(index)?.ring, deadline)
        });
        self.forgive(told);
        self.shared.health.done(Call::UpdateInterrupt)?;
        drop(control);
        // What went to the event before may have been on its way.
        if let Some(relay) = self.shared.relay() {
            relay.interrupt(index);
        }
        Ok(())
    }

    /// Whom `queue` is to interrupt, which can be served.
    fn check_new(&self, queue: &QueueSetup) -> Result<Arc<Relay>, Error> {
        let mut control = self.shared.control();
        let (relay, active) = self.in_use(&mut control.active, Call::StartQueue)?;
        if active.served(queue.index).is_ok() {
            return Err(Error::Queue(queue.index));
        }
        let memory = active.memory.memory();
        rings::check(std::slice::from_ref(queue), &*memory, active.features)?;
        Ok(relay)
    }

    /// What is served, and whom it interrupts; the device may have failed since that was checked.
    fn in_use<'c>(
        &self,
        active: &'c mut Option<Active<M>>,
        call: Call,
    ) -> Result<(Arc<Relay>, &'c mut Active<M>), Error> {
        self.shared
            .relay()
            .zip(active.as_mut())
            .ok_or_else(|| Error::WrongState {
                call,
                state: self.shared.health.state(),
            })
    }

    /// Notes that a daemon failed, and was given up for that.
    fn forgive(&self, told: Result<(), Error>) {
        if let Err(error) = told {
            tracing::warn!(%error, "the daemon is given up");
            self.shared.note(error);
        }
    }
}
