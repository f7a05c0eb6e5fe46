use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vhost_user_fs::front_end::{MemoryChange, MemoryTable};
use virtio_fs_device::{Activation, Error as DeviceError, Event, Interrupt};
use vm_memory::{Bytes as _, GuestAddress, GuestAddressSpace as _};

use super::interrupts::Interrupts;
use super::ring::{Areas, Ring};
use super::served::Served;

/// Offset of `idx` in the used ring (virtio 1.x, section 2.7.8).
const USED_IDX: u64 = 2;

/// What the driver behind a front-end has set up, and the device has been told of it.
///
/// The device becomes active with the first ring that is to be served; rings are started and stopped
/// one by one. Dropping this resets the device.
pub(super) struct Driver {
    served: Served,
    interrupts: Arc<Interrupts>,
    features: u64,
    memory: MemoryTable,
    /// hiprio, then the request queues.
    rings: Vec<Ring>,
    /// Whether the device has been activated, and not reset since.
    active: bool,
    /// Whether another driver is at work than the device knows: it is reset first.
    anew: bool,
    /// Whether a ring was stopped while no daemon was there to say how far it had got.
    lost: bool,
    /// How often a ring was to be served and could not be.
    refusals: u64,
}

impl Driver {
    pub(super) fn new(served: Served) -> Self {
        let queues = served.device().queue_max_sizes().len();
        Self {
            interrupts: Arc::new(Interrupts::new(queues, served.nobody.clone())),
            served,
            features: 0,
            memory: MemoryTable::default(),
            rings: (0..queues).map(|_| Ring::default()).collect(),
            active: false,
            anew: false,
            lost: false,
            refusals: 0,
        }
    }

    pub(super) const fn served(&self) -> &Served {
        &self.served
    }

    pub(super) const fn memory(&self) -> &MemoryTable {
        &self.memory
    }

    /// The ring of queue `index`.
    pub(super) fn ring(&mut self, index: u16) -> Option<&mut Ring> {
        self.rings.get_mut(usize::from(index))
    }

    /// Sets the features that the driver accepted. With others than before it is another driver.
    ///
    /// # Errors
    /// The device cannot be as the front-end says.
    pub(super) fn set_features(&mut self, features: u64) -> Result<(), DeviceError> {
        if features != self.features {
            self.stop_all();
            self.anew |= self.active;
            self.features = features;
        }
        self.serve()
    }

    /// From now on `change` is the guest's memory.
    ///
    /// # Errors
    /// It is in more regions than the daemon takes.
    pub(super) fn change_memory(&mut self, change: MemoryChange) -> Result<(), DeviceError> {
        self.memory.apply(change);
        if !self.active {
            return Ok(());
        }
        let memory = self.memory.shared().clone();
        let updated = self.served.device().update_memory(memory);
        match updated {
            Err(error @ DeviceError::Regions { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the next daemon is told of the guest's memory");
                Ok(())
            }
            Ok(()) => self.serve(),
        }
    }

    pub(super) fn set_size(&mut self, index: u16, size: u16) {
        if self.ring(index).is_some_and(|ring| ring.size != size) {
            self.stop(index);
        }
        if let Some(ring) = self.ring(index) {
            ring.size = size;
        }
    }

    pub(super) fn set_areas(&mut self, index: u16, areas: Areas) {
        let areas = Some(areas);
        if self.ring(index).is_some_and(|ring| ring.areas != areas) {
            self.stop(index);
        }
        if let Some(ring) = self.ring(index) {
            ring.areas = areas;
        }
    }

    /// Sets the entry of the available ring to begin at. One that was served goes on where it was: a
    /// ring that begins elsewhere is another driver's.
    pub(super) fn set_base(&mut self, index: u16, next_avail: u16) {
        self.stop(index);
        if let Some(ring) = self.ring(index) {
            let elsewhere = ring.begun && ring.next_avail != next_avail;
            ring.next_avail = next_avail;
            self.anew |= elsewhere;
        }
    }

    /// Ends serving a ring, and returns the entry of the available ring to go on at.
    pub(super) fn take_base(&mut self, index: u16) -> u16 {
        self.stop(index);
        self.interrupts.set_call(index, None);
        self.ring(index).map_or(0, |ring| {
            ring.kick = None;
            ring.next_avail
        })
    }

    /// # Errors
    /// The device cannot be as the front-end says.
    pub(super) fn set_kick(&mut self, index: u16, kick: File) -> Result<(), DeviceError> {
        self.stop(index);
        if let Some(ring) = self.ring(index) {
            ring.kick = Some(OwnedFd::from(kick).into());
        }
        self.serve()
    }

    /// Sets what is signalled when requests are done; nothing, where the driver polls.
    pub(super) fn set_call(&mut self, index: u16, call: Option<File>) {
        self.interrupts.set_call(index, call.map(event));
        if self.ring(index).is_some_and(|ring| ring.served)
            && let Err(error) = self.served.device().update_interrupt(index)
        {
            tracing::debug!(queue = index, %error, "it interrupts nobody now");
        }
    }

    pub(super) fn set_error(&self, index: u16, error: Option<File>) {
        self.interrupts.set_error(index, error.map(event));
    }

    /// # Errors
    /// The device cannot be as the front-end says.
    pub(super) fn set_enabled(&mut self, index: u16, enabled: bool) -> Result<(), DeviceError> {
        if !enabled {
            self.stop(index);
        }
        if let Some(ring) = self.ring(index) {
            ring.enabled = enabled;
        }
        self.serve()
    }

    /// # Errors
    /// The device cannot be as the front-end says.
    pub(super) fn enable_all(&mut self) -> Result<(), DeviceError> {
        for ring in &mut self.rings {
            ring.enabled = true;
        }
        self.serve()
    }

    /// Everything but the memory begins anew.
    pub(super) fn reset(&mut self) {
        self.reset_device();
        self.rings.fill_with(Ring::default);
        for index in self.indexes() {
            self.interrupts.set_call(index, None);
            self.interrupts.set_error(index, None);
        }
        self.features = 0;
    }

    /// Serves the rings that are to be served and are not.
    fn serve(&mut self) -> Result<(), DeviceError> {
        let mut rings = self.rings.iter().zip(0..);
        if !rings.any(|(ring, index)| ring.setup(index).is_some()) {
            return Ok(());
        }
        if self.anew || self.may_be_anew() {
            self.stop_all();
            self.reset_device();
        }
        if !self.active {
            self.activate()?;
        }
        self.lost = false;
        self.indexes().for_each(|index| self.start(index));
        Ok(())
    }

    /// Where nothing was ever done, a driver that goes on looks as one that begins; and what is in
    /// flight must never be done for another one. There is one request at most, which mounts.
    fn may_be_anew(&self) -> bool {
        let begun = |ring: &Ring| ring.served || ring.begun && ring.next_avail != 0;
        self.lost && !self.rings.iter().any(begun)
    }

    /// Activates the device without any queue. A daemon that dies just then does no harm: without one
    /// the device can be activated, too.
    fn activate(&mut self) -> Result<(), DeviceError> {
        let mut device = self.served.device();
        device.ack_features(self.features)?;
        let mut activate = || {
            device.activate(Activation {
                memory: self.memory.shared().clone(),
                queues: Vec::new(),
                interrupt: Arc::clone(&self.interrupts) as Arc<dyn Interrupt>,
            })
        };
        activate().or_else(|error| {
            tracing::warn!(%error, "the device could not be activated; trying again");
            activate()
        })?;
        self.active = true;
        Ok(())
    }

    /// What the driver set up wrongly is not served; that is no reason to give the front-end up. What
    /// a device that has failed knew nobody else knows: another driver has to begin first.
    fn start(&mut self, index: u16) {
        let Some(ring) = self.rings.get_mut(usize::from(index)) else {
            return;
        };
        let Some(setup) = ring.setup(index) else {
            return;
        };
        let started = self.served.device().start_queue(setup, ring.next_avail);
        match started {
            Ok(()) => (ring.served, ring.begun) = (true, true),
            Err(error) => self.refused(index, &error),
        }
    }

    /// Notes that a ring cannot be served; ever more rarely, as drivers can have that as often as they
    /// like.
    fn refused(&mut self, queue: u16, error: &DeviceError) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals.is_power_of_two() {
            let count = self.refusals;
            tracing::warn!(queue, count, %error, "a queue cannot be served as it is set up");
        }
    }

    /// Ends serving a ring, waits for what is in flight, and remembers where to go on.
    fn stop(&mut self, index: u16) {
        let Some(ring) = self.rings.get_mut(usize::from(index)) else {
            return;
        };
        if !std::mem::take(&mut ring.served) {
            return;
        }
        let mut device = self.served.device();
        let stopped = device.stop_queue(index);
        let lost = stopped.is_err() || !device.status().connected;
        ring.next_avail = match (stopped, ring.areas) {
            (Ok(next_avail), _) => next_avail,
            (Err(_), Some(areas)) => used_idx(&self.memory, areas).unwrap_or(0),
            (Err(_), None) => 0,
        };
        self.lost |= lost;
    }

    fn stop_all(&mut self) {
        self.indexes().for_each(|index| self.stop(index));
    }

    fn reset_device(&mut self) {
        (self.active, self.anew, self.lost) = (false, false, false);
        for ring in &mut self.rings {
            (ring.served, ring.begun) = (false, false);
        }
        if let Err(error) = self.served.device().reset() {
            tracing::error!(%error, "the device cannot be reset");
        }
    }

    fn indexes(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.rings.len()).unwrap_or(u16::MAX)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.reset_device();
    }
}

fn event(file: File) -> Event {
    OwnedFd::from(file).into()
}

/// How much the driver was given back.
fn used_idx(memory: &MemoryTable, areas: Areas) -> Option<u16> {
    let at = GuestAddress(areas.used.0.checked_add(USED_IDX)?);
    let idx = memory.shared().memory().load(at, Ordering::Acquire);
    idx.map(u16::from_le).ok()
}
