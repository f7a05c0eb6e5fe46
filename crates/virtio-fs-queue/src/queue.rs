mod round;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vm_memory::GuestMemoryBackend;
use vm_memory::bitmap::MS;

use self::round::Round;
use crate::chain::Chain;
use crate::in_flight::InFlight;
use crate::poll::Poller;
use crate::record::Notes;
use crate::request::Server;
use crate::ring::{self, Ring};
use crate::storage::Storage;
use crate::sys::{ReplyBuffer, Together};
use crate::used::{Batch, UsedEnd};
use crate::write_log::Log;
use crate::{GuestSpace, InFlightRecord, Position, QueueConfig, Resources, RingError, StartError};

/// How often what waits is told to give up, while the queue waits for it to do so.
const CANCEL_INTERVAL: Duration = Duration::from_millis(10);

/// A split virtqueue that is being served.
///
/// It has no thread of its own: whoever learns of a kick calls [`drain`](Self::drain).
pub struct Queue<AS: GuestSpace> {
    shared: Arc<Shared<AS>>,
    /// The device's end of the available ring: the thread that drains has it.
    avail: Mutex<AvailEnd>,
    /// Set before `avail` is waited for, so that a drain under way ends soon.
    stopping: AtomicBool,
}

/// What the threads of the pool need of a queue.
pub(crate) struct Shared<AS> {
    pub(crate) config: QueueConfig,
    pub(crate) resources: Resources<AS>,
    log: Option<Log>,
    pub(crate) used: UsedEnd,
    pub(crate) in_flight: InFlight,
    /// The driver broke a rule of the ring.
    broken: AtomicBool,
}

#[derive(Debug)]
struct AvailEnd {
    next_avail: u16,
    message: Vec<u8>,
    reply: ReplyBuffer,
    segments: Storage,
    poller: Poller,
    /// Where others join in with what the thread does.
    together: Arc<Together>,
    /// A request was left to the pool since the last opportunity to poll.
    offloaded: bool,
    /// Where what is taken is recorded.
    notes: Option<Notes>,
}

/// Why [`Queue::drain`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is available; the driver will kick when something is.
    Idle,
    /// The queue was stopped.
    Stopped,
    /// The driver broke the ring; nothing is served until it is set up anew.
    Broken,
}

impl<AS: GuestSpace> Queue<AS> {
    /// Begins to serve the ring that `config` describes. Kicks that came before count: the first
    /// [`drain`](Self::drain) need not wait for one.
    ///
    /// # Errors
    /// The ring cannot be where it is said to be, or not be like that.
    pub fn start(config: QueueConfig, resources: Resources<AS>) -> Result<Self, StartError> {
        Self::begin(config, resources, None)
    }

    /// As [`start`](Self::start), and keeps `record` of what is in flight. What that has already is
    /// served first, in the order in which it was taken: whoever served the ring before did not give
    /// it back.
    ///
    /// What was taken so far is what was given back and what is in flight, so `next_avail` in
    /// `config` is not needed.
    ///
    /// # Errors
    /// As [`start`](Self::start), or the ring has more descriptors than the record is about.
    pub fn start_recorded(
        config: QueueConfig,
        resources: Resources<AS>,
        record: InFlightRecord,
    ) -> Result<Self, StartError> {
        Self::begin(config, resources, Some(record))
    }

    fn begin(
        config: QueueConfig,
        resources: Resources<AS>,
        record: Option<InFlightRecord>,
    ) -> Result<Self, StartError> {
        config.check()?;
        ring::find(&*resources.memory.memory(), &config, None)?;
        let Position {
            mut next_avail,
            next_used,
        } = config.position;
        let mut notes = None;
        if let Some(record) = &record {
            let found = notes.insert(Notes::new(record.clone(), config.size, next_used)?);
            next_avail = next_used.wrapping_add(found.unfinished());
        }
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                log: resources.log.clone().map(Log::new),
                resources,
                used: UsedEnd::new(next_used, record),
                in_flight: InFlight::default(),
                broken: AtomicBool::new(false),
            }),
            avail: Mutex::new(AvailEnd {
                next_avail,
                message: Vec::new(),
                reply: ReplyBuffer::new().map_err(|error| StartError::NoMemory(error.kind()))?,
                segments: Storage::default(),
                poller: Poller::default(),
                together: Arc::default(),
                offloaded: false,
                notes,
            }),
            stopping: AtomicBool::new(false),
        })
    }

    /// Serves what is available until nothing is, and has not been for as long as the queue polls
    /// ([`Polling`](crate::Polling)). Called when the driver kicks, by one thread at a time; another
    /// one waits for its turn.
    pub fn drain(&self) -> Drained {
        let mut avail = self.avail();
        avail.poller.wake(&self.shared.resources.polling);
        let mut batch = Batch::default();
        let mut available = 0;
        loop {
            // Otherwise the round before may have left some to be given back.
            if available == 0 {
                if self.stopping.load(Ordering::SeqCst) {
                    return Drained::Stopped;
                }
                if self.shared.broken.load(Ordering::Relaxed) {
                    return Drained::Broken;
                }
            }
            match self.rounds(&mut avail, available, &mut batch) {
                Ok(ControlFlow::Continue(pending)) => available = pending,
                Ok(ControlFlow::Break(drained)) => return drained,
                Err(error) => {
                    self.shared.break_ring(&error);
                    available = 0;
                }
            }
        }
    }

    /// Whether the ring lies in `memory`. It is to be stopped before memory where it does not
    /// becomes the guest's, or is broken when it is served then.
    pub fn is_within(&self, memory: &AS::M) -> bool {
        ring::find(memory, &self.shared.config, None).is_ok()
    }

    /// Stops serving, waits for what is in flight, and returns where to go on. After that no guest
    /// memory is touched, and [`drain`](Self::drain) does nothing.
    ///
    /// What waits for a lock in the whole session fails ([`fuse_fs::Serve::cancel_waits`]), as there
    /// may be no end to that.
    pub fn stop(&self) -> Position {
        self.stopping.store(true, Ordering::SeqCst);
        let next_avail = {
            let mut avail = self.avail();
            self.finish(&mut avail);
            avail.next_avail
        };
        // One that is on its way to wait is found there the next time.
        while !self.shared.in_flight.wait_for_none(CANCEL_INTERVAL) {
            self.shared.resources.filesystem.cancel_waits();
        }
        Position {
            next_avail,
            next_used: self.shared.used.next_used(),
        }
    }

    /// Serves what was in flight before the start, if nothing was served since.
    fn finish(&self, avail: &mut AvailEnd) {
        if avail
            .notes
            .as_ref()
            .is_none_or(|notes| notes.unfinished() == 0)
        {
            return;
        }
        if let Err(error) = self.rounds(avail, 0, &mut Batch::default()) {
            self.shared.break_ring(&error);
        }
    }

    /// Serves the next `available` chains and, for as long as the memory map stays as it is, those
    /// behind them; returns how many there are when it does not.
    ///
    /// The memory map is looked up after chains were seen to be available. So their buffers are
    /// found in memory that was added before they were, however long the driver keeps the queue
    /// busy. Where the ring is mapped is looked up only where the map is another one.
    fn rounds(
        &self,
        avail: &mut AvailEnd,
        mut available: u16,
        batch: &mut Batch,
    ) -> Result<ControlFlow<Drained, u16>, RingError> {
        let memory = self.shared.resources.memory.memory();
        let ring = self.shared.find_ring(&*memory)?;
        let mut chain = Chain::new(std::mem::take(&mut avail.segments));
        let mut round = Round {
            shared: &self.shared,
            stopping: &self.stopping,
            memory: &*memory,
            ring,
            chain: &mut chain,
            batch,
        };
        let result = loop {
            match round.run(avail, available) {
                Ok(ControlFlow::Continue(pending)) if self.is_current(&memory) => {
                    available = pending;
                }
                // What was served before the driver broke the ring is done.
                Err(error) => break round.give_back().and(Err(error)),
                result => break result,
            }
        };
        avail.segments = chain.into_storage();
        result
    }

    /// Whether `memory`, which is held, is still the guest's. No other map can be where it is.
    fn is_current(&self, memory: &AS::M) -> bool {
        std::ptr::eq(memory, &*self.shared.resources.memory.memory())
    }

    fn avail(&self) -> MutexGuard<'_, AvailEnd> {
        self.avail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<AS: GuestSpace> fmt::Debug for Queue<AS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl<AS: GuestSpace> Shared<AS> {
    /// Where the ring is in `memory`, to be served.
    pub(crate) fn find_ring<'m, M: GuestMemoryBackend>(
        &'m self,
        memory: &'m M,
    ) -> Result<Ring<'m, MS<'m, M>>, RingError> {
        ring::find(memory, &self.config, self.log.as_ref())
    }

    pub(crate) fn server(&self) -> Server<'_> {
        Server {
            filesystem: &*self.resources.filesystem,
            log: self.log.as_ref(),
            stats: &self.resources.stats,
            readers: None,
        }
    }

    pub(crate) fn interrupt(&self) {
        self.resources.stats.count_interrupt();
        (self.resources.notify)();
    }

    pub(crate) fn break_ring(&self, error: &RingError) {
        self.broken.store(true, Ordering::Relaxed);
        self.resources.stats.ring_error(error);
    }
}

#[cfg(test)]
mod tests;
