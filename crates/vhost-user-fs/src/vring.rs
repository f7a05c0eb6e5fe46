use std::fs::File;
use std::io;
use std::iter;
use std::sync::Arc;

use virtio_fs_queue::{
    InFlightRecord, Kick, Place, Position, Queue, QueueConfig, Resources, RingError, StartError,
    Worker, WriteLog,
};
use vm_memory::{GuestAddress, GuestAddressSpace};

use crate::device::{Device, DeviceQueue};
use crate::dirty_log::DirtyLog;
use crate::event::{self, Signal};
use crate::memory::{Memory, SharedMemory};

/// A vring as the front-end sets it up, and who serves it.
///
/// It is served while it is enabled and has a kick. What says where the ring is, and from where on it
/// is to be served, ends that; then the next kick or enabling begins anew. So a ring is never
/// served half set up. One that is not in the guest's memory, or is taken out of it, is served when
/// it is there again.
pub(crate) struct Vring {
    size: u16,
    areas: Option<Areas>,
    next_avail: u16,
    enabled: bool,
    /// The front-end starts a ring by giving it a kick.
    kick: Option<Kick>,
    call: Signal,
    error: Signal,
    /// Those of all rings of the device.
    signals: Arc<[Signal]>,
    worker: Option<Worker<SharedMemory>>,
    /// It would be served if it were in the guest's memory.
    awaits_memory: bool,
}

/// Where the parts of a ring are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Areas {
    pub(crate) descriptors: GuestAddress,
    pub(crate) avail: GuestAddress,
    pub(crate) used: GuestAddress,
}

/// What a ring needs to be served beside what it knows itself.
pub(crate) struct Surroundings<'a> {
    pub(crate) index: u16,
    pub(crate) device: &'a Device,
    pub(crate) queue: &'a DeviceQueue,
    pub(crate) memory: &'a SharedMemory,
    /// Where what is written there is noted.
    pub(crate) log: &'a Arc<DirtyLog>,
    /// Where the front-end has what is in flight recorded.
    pub(crate) record: Option<InFlightRecord>,
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
}

impl Vring {
    /// The rings of a device, none of them set up.
    pub(crate) fn all(count: usize) -> Vec<Self> {
        let own: Vec<[Signal; 2]> = iter::repeat_with(Default::default).take(count).collect();
        let signals: Arc<[Signal]> = own.as_flattened().into();
        own.into_iter()
            .map(|[call, error]| Self::new(call, error, Arc::clone(&signals)))
            .collect()
    }

    fn new(call: Signal, error: Signal, signals: Arc<[Signal]>) -> Self {
        Self {
            size: 0,
            areas: None,
            next_avail: 0,
            enabled: false,
            kick: None,
            call,
            error,
            signals,
            worker: None,
            awaits_memory: false,
        }
    }

    /// Ends serving, and forgets how it was set up.
    pub(crate) fn reset(&mut self) {
        self.stop();
        self.call.clear();
        self.error.clear();
        *self = Self::new(
            self.call.clone(),
            self.error.clone(),
            Arc::clone(&self.signals),
        );
    }

    /// Sets the number of descriptors.
    pub(crate) fn set_size(&mut self, size: u16) {
        if self.size != size {
            self.stop();
            self.size = size;
        }
    }

    /// Sets where the ring is. Front-ends do that again while it is served, too (QEMU, when it begins
    /// to migrate).
    pub(crate) fn set_areas(&mut self, areas: Areas) {
        if self.areas != Some(areas) {
            self.stop();
            self.areas = Some(areas);
        }
    }

    /// Sets the entry of the available ring to begin at.
    pub(crate) fn set_base(&mut self, next_avail: u16) {
        self.stop();
        self.next_avail = next_avail;
    }

    /// Ends serving, takes the kick away, and returns the entry of the available ring to go on at.
    pub(crate) fn take_base(&mut self) -> u16 {
        self.stop();
        self.kick = None;
        self.call.clear();
        self.next_avail
    }

    /// Enables or disables the ring.
    ///
    /// One that is disabled is not touched any more: a front-end need not do more before it takes
    /// the memory away or sets the ring up anew.
    ///
    /// # Errors
    /// The system lacks what it takes to serve the ring.
    pub(crate) fn set_enabled(
        &mut self,
        enabled: bool,
        around: &Surroundings<'_>,
    ) -> io::Result<()> {
        self.enabled = enabled;
        if !enabled {
            self.stop();
        }
        self.start(around)
    }

    /// Sets how the driver's kicks arrive.
    ///
    /// # Errors
    /// The system lacks what it takes to serve the ring, or `kick` is nothing to wait for.
    pub(crate) fn set_kick(&mut self, kick: Kick, around: &Surroundings<'_>) -> io::Result<()> {
        self.kick = Some(kick.clone());
        match &mut self.worker {
            Some(worker) => worker.set_kick(kick),
            None => self.start(around),
        }
    }

    /// Sets whom to signal when requests are done; nobody, where the driver polls.
    ///
    /// # Errors
    /// `event` is nothing to signal.
    pub(crate) fn set_call(&mut self, event: Option<File>) -> io::Result<()> {
        let first = self.call.replace(event)?;
        if first && self.worker.is_some() {
            // What was done before could not be told.
            event::keep_going(&self.signals, || self.call.signal());
        }
        Ok(())
    }

    /// Sets whom to signal when the driver broke the ring.
    ///
    /// # Errors
    /// `event` is nothing to signal.
    pub(crate) fn set_error(&mut self, event: Option<File>) -> io::Result<()> {
        self.error.replace(event)?;
        Ok(())
    }

    /// Goes on with other features, or another record of what is in flight.
    ///
    /// # Errors
    /// The system lacks what it takes to serve the ring.
    pub(crate) fn renegotiate(&mut self, around: &Surroundings<'_>) -> io::Result<()> {
        if self.worker.is_some() {
            self.stop();
            self.start(around)?;
        }
        Ok(())
    }

    /// Ends serving where the ring is not in `memory`, which is to be the guest's.
    pub(crate) fn leave_unless_in(&mut self, memory: &Memory) {
        let worker = self.worker.as_ref();
        if worker.is_some_and(|worker| !worker.is_within(memory)) {
            self.stop();
            self.awaits_memory = true;
        }
    }

    /// Goes on where all that lacked was memory.
    ///
    /// # Errors
    /// The system lacks what it takes to serve the ring.
    pub(crate) fn resume(&mut self, around: &Surroundings<'_>) -> io::Result<()> {
        if self.awaits_memory {
            self.start(around)?;
        }
        Ok(())
    }

    /// Whether it is served, or is as soon as its memory is there.
    pub(crate) const fn is_served(&self) -> bool {
        self.worker.is_some() || self.awaits_memory
    }

    /// Ends serving, waits for what is in flight, and remembers where to go on.
    ///
    /// What is in flight may be behind requests of other rings in the pool, so that the signals of
    /// these are waited for, too.
    pub(crate) fn stop(&mut self) {
        self.awaits_memory = false;
        if let Some(worker) = self.worker.take() {
            let stopped = event::keep_going(&self.signals, || worker.stop());
            self.next_avail = stopped.next_avail;
        }
    }

    /// Serves the ring if that is to be. One that the driver set up wrongly is not served; that is no
    /// reason to give the front-end up.
    fn start(&mut self, around: &Surroundings<'_>) -> io::Result<()> {
        let Some(kick) = &self.kick else {
            return Ok(());
        };
        if !self.enabled || self.worker.is_some() {
            return Ok(());
        }
        self.awaits_memory = false;
        let index = around.index;
        let Some(areas) = self.areas else {
            around.queue.refuse(index, &"nobody says where it is");
            return Ok(());
        };
        let (config, resources) = (self.config(areas, around), self.resources(around));
        let started = match &around.record {
            Some(record) => Queue::start_recorded(config, resources, record.clone()),
            None => Queue::start(config, resources),
        };
        match started {
            Ok(queue) => {
                let place = Place {
                    index,
                    processors: around.queue.processors.clone(),
                };
                let error = self.error.clone();
                let broken = Box::new(move || error.signal());
                self.worker = Some(Worker::start(place, queue, kick.clone(), broken)?);
            }
            Err(error @ StartError::NoMemory(_)) => return Err(io::Error::other(error)),
            Err(error) => {
                self.awaits_memory = matches!(error, StartError::Ring(RingError::Outside { .. }));
                around.queue.refuse(index, &error);
            }
        }
        Ok(())
    }

    fn config(&self, areas: Areas, around: &Surroundings<'_>) -> QueueConfig {
        QueueConfig {
            size: self.size,
            descriptors: areas.descriptors,
            avail: areas.avail,
            used: areas.used,
            event_idx: around.event_idx,
            indirect: around.indirect,
            position: Position::of_ring(&*around.memory.memory(), areas.used, self.next_avail),
        }
    }

    fn resources(&self, around: &Surroundings<'_>) -> Resources<SharedMemory> {
        let call = self.call.clone();
        Resources {
            memory: around.memory.clone(),
            filesystem: Arc::clone(&around.device.filesystem),
            pool: Arc::clone(&around.device.pool),
            polling: Arc::clone(&around.queue.polling),
            log: Some(Arc::clone(around.log) as Arc<dyn WriteLog>),
            stats: Arc::clone(&around.queue.stats),
            notify: Box::new(move || call.signal()),
        }
    }
}
