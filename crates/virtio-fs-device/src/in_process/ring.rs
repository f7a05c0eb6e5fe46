use std::io;
use std::sync::Arc;
use std::time::Instant;

use virtio_fs_config::{EVENT_IDX, INDIRECT_DESC};
use virtio_fs_queue::{
    Kick, Place, Polling, Position, Queue, QueueConfig, Resources, RingError, StartError, Worker,
    WriteLog,
};
use vm_memory::GuestAddressSpace;

use super::Service;
use super::dirty::DirtyLog;
use super::memory::SharedMemory;
use super::pending::Pending;
use crate::saved::QueueState;
use crate::{Error, GuestSpace, Interrupt, QueueSetup};

/// Queue 0.
const HIPRIO: u16 = 0;

/// A queue that the driver uses, and the thread that serves it.
pub(super) struct Ring<M: GuestSpace> {
    setup: QueueSetup,
    /// The entry of the available ring to begin at.
    next_avail: u16,
    worker: Option<Worker<SharedMemory<M>>>,
    /// Where to go on, once it is served no more.
    ending: Option<Pending<u16>>,
}

/// What a ring needs to be served beside what it knows itself.
pub(super) struct Surroundings<M> {
    pub(super) service: Arc<Service>,
    pub(super) features: u64,
    pub(super) memory: SharedMemory<M>,
    pub(super) interrupt: Arc<dyn Interrupt>,
    pub(super) log: Option<Arc<DirtyLog>>,
}

impl<M: GuestSpace> Ring<M> {
    /// One that is not served yet.
    ///
    /// # Errors
    /// Says why it cannot be.
    pub(super) fn new(
        setup: QueueSetup,
        next_avail: u16,
        around: &Surroundings<M>,
    ) -> Result<Self, Error> {
        let ring = Self {
            setup,
            next_avail,
            worker: None,
            ending: None,
        };
        match ring.queue(around) {
            Ok(_) => Ok(ring),
            Err(error) => Err(ring.error(error)),
        }
    }

    /// Where it is, and how far it has got; while it is not served.
    pub(super) const fn state(&self) -> QueueState {
        QueueState {
            index: self.setup.index,
            ring: self.setup.ring,
            next_avail: self.next_avail,
        }
    }

    /// Serves it. One whose memory was taken away is served when that is there again.
    ///
    /// # Errors
    /// The system lacks what it takes.
    pub(super) fn start(&mut self, around: &Surroundings<M>) -> Result<(), Error> {
        if self.worker.is_some() {
            return Ok(());
        }
        let index = self.setup.index;
        let queue = match self.queue(around) {
            Err(StartError::Ring(error @ RingError::Outside { .. })) => {
                tracing::warn!(queue = index, %error, "a queue waits for its memory");
                return Ok(());
            }
            other => other.map_err(|error| self.error(error))?,
        };
        let affinity = around.service.options.queue_affinity.as_ref();
        let request_queue = usize::from(index).checked_sub(1);
        let place = Place {
            index,
            processors: request_queue.and_then(|n| affinity?.of(n)).cloned(),
        };
        let kick = Kick::Event(self.setup.kick.descriptor());
        let (health, interrupt) = (
            Arc::clone(&around.service.health),
            Arc::clone(&around.interrupt),
        );
        let era = health.era();
        let broken = Box::new(move || {
            health.within(era, || {
                if health.broke(index) {
                    interrupt.signal_needs_reset();
                }
            });
        });
        let worker = Worker::start(place, queue, kick, broken);
        self.worker = Some(worker.map_err(Error::io("start the thread of a queue"))?);
        Ok(())
    }

    /// Begins to end serving.
    pub(super) fn end(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.ending = Some(Pending::begin(move || worker.stop().next_avail));
        }
    }

    /// Waits for what is in flight, and remembers where to go on. Returns whether it is served no
    /// more: what the filesystem does not return from by `deadline` is still its own.
    pub(super) fn has_ended(&mut self, deadline: Instant) -> bool {
        match self.ending.take().map(|ending| ending.wait(deadline)) {
            None => true,
            Some(Ok(next_avail)) => {
                self.next_avail = next_avail.unwrap_or(self.next_avail);
                true
            }
            Some(Err(ending)) => {
                self.ending = Some(ending);
                false
            }
        }
    }

    /// Begins to end serving where the ring is not in `memory`, which is to be the guest's.
    pub(super) fn leave_unless_in(&mut self, memory: &M::M) {
        let worker = self.worker.as_ref();
        if worker.is_some_and(|worker| !worker.is_within(memory)) {
            self.end();
        }
    }

    fn queue(&self, around: &Surroundings<M>) -> Result<Queue<SharedMemory<M>>, StartError> {
        let QueueSetup { index, ring, .. } = self.setup;
        let config = QueueConfig {
            size: ring.size,
            descriptors: ring.descriptors,
            avail: ring.avail,
            used: ring.used,
            event_idx: around.features & EVENT_IDX != 0,
            indirect: around.features & INDIRECT_DESC != 0,
            position: Position::of_ring(&*around.memory.memory(), ring.used, self.next_avail),
        };
        let interrupt = Arc::clone(&around.interrupt);
        let stats = around.service.stats.get(usize::from(index));
        let resources = Resources {
            memory: around.memory.clone(),
            filesystem: Arc::clone(&around.service.options.filesystem),
            pool: Arc::clone(&around.service.options.pool),
            // What comes on hiprio, FORGET above all, is awaited by nobody.
            polling: match index {
                HIPRIO => Arc::new(Polling::never()),
                _ => Arc::clone(&around.service.options.polling),
            },
            log: around.log.clone().map(|log| log as Arc<dyn WriteLog>),
            stats: stats.map(Arc::clone).unwrap_or_default(),
            notify: Box::new(move || interrupt.signal_queue(index)),
        };
        Queue::start(config, resources)
    }

    fn error(&self, error: StartError) -> Error {
        match error {
            StartError::NoMemory(kind) => Error::io("serve a queue")(io::Error::from(kind)),
            error => Error::Ring {
                index: self.setup.index,
                why: Box::new(error),
            },
        }
    }
}
