//! A filesystem of this process behind the device: no socket, and no second process.

mod dirty;
mod memory;
mod options;
mod pending;
mod ring;
mod state;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_fs_config::{ConfigSpace, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use virtio_fs_queue::Stats;
use vm_memory::GuestAddressSpace;

use dirty::DirtyLog;
use memory::SharedMemory;
pub use options::InProcess;
use pending::Pending;
use ring::{Ring, Surroundings};
use state::Transfers;

use crate::backend::{Backend, Offer};
use crate::saved::ActiveState;
use crate::state::Happening;
use crate::status::Health;
use crate::{
    Activation, Call, Capabilities, DeviceConfig, Error, GuestSpace, QueueSetup, WindowStatus,
};

/// A device that threads of this process serve.
pub(crate) struct InProcessBackend<M: GuestSpace> {
    offer: Offer,
    service: Arc<Service>,
    active: Option<Active<M>>,
    /// Rings of the past, on which the filesystem had not returned from something when they were
    /// waited for.
    left: Vec<Ring<M>>,
    transfers: Transfers,
    filesystem_reset: Reset,
    /// Where there is one, that of the rings, too.
    log: Option<Arc<DirtyLog>>,
}

/// How far the filesystem is with forgetting what the driver did.
enum Reset {
    Done,
    /// It is to begin when nothing is in flight any more.
    Due,
    Begun(Pending<()>),
}

/// What serves the device, whoever uses it.
struct Service {
    options: InProcess,
    /// What is counted on each queue.
    stats: Vec<Arc<Stats>>,
    health: Arc<Health>,
}

/// What the driver uses.
struct Active<M: GuestSpace> {
    surroundings: Surroundings<M>,
    rings: Vec<Ring<M>>,
    /// Whether the rings are served.
    running: bool,
}

impl<M: GuestSpace> InProcessBackend<M> {
    /// # Errors
    /// The device has no tag.
    pub(crate) fn new(
        config: &DeviceConfig,
        options: InProcess,
        health: Arc<Health>,
    ) -> Result<Self, Error> {
        let tag = config.tag.clone().ok_or(Error::NoTag)?;
        let request_queues = config.request_queues.unwrap_or(1);
        let queues = usize::from(request_queues).saturating_add(1);
        Ok(Self {
            offer: Offer {
                features: VERSION_1 | EVENT_IDX | INDIRECT_DESC,
                config_space: ConfigSpace::new(tag, request_queues.into()),
                queue_sizes: vec![config.queue_size; queues],
            },
            service: Arc::new(Service {
                options,
                stats: (0..queues).map(|_| Arc::default()).collect(),
                health,
            }),
            active: None,
            left: Vec::new(),
            transfers: Transfers::default(),
            filesystem_reset: Reset::Done,
            log: None,
        })
    }

    /// What the driver set up, each ring from where `next_avail` says, not served yet.
    fn set_up(
        &self,
        features: u64,
        activation: Activation<M>,
        next_avail: impl Fn(u16) -> u16,
    ) -> Result<Active<M>, Error> {
        let Activation {
            memory,
            queues,
            interrupt,
        } = activation;
        if let Some(log) = &self.log {
            log.follow(&*memory.memory());
        }
        let surroundings = Surroundings {
            service: Arc::clone(&self.service),
            features,
            memory: SharedMemory::new(memory),
            interrupt,
            log: self.log.clone(),
        };
        let rings = queues.into_iter().map(|setup| {
            let next_avail = next_avail(setup.index);
            Ring::new(setup, next_avail, &surroundings)
        });
        Ok(Active {
            rings: rings.collect::<Result<_, _>>()?,
            surroundings,
            running: false,
        })
    }

    fn health(&self) -> &Health {
        &self.service.health
    }

    /// When whoever waits for the filesystem gives up.
    fn deadline(&self) -> Instant {
        deadline_after(self.service.options.stop_limit)
    }

    /// Forgets what the driver did: what is left of it then is to be [cleared up](Self::clear_up).
    fn forget(&mut self) {
        let deadline = self.deadline();
        if let Some(mut active) = self.active.take() {
            active.stop(deadline);
            self.left.append(&mut active.rings);
        }
        self.filesystem_reset = Reset::Due;
        if let Err(error) = self.clear_up("reset the device", deadline) {
            tracing::error!(%error, "a filesystem does not return; it may still write to the guest's memory");
            self.health().note(Arc::new(error));
        }
    }

    /// Makes sure that nothing is in flight that was begun before a reset, and that the filesystem
    /// has forgotten what the driver did.
    fn clear_up(&mut self, doing: &'static str, deadline: Instant) -> Result<(), Error> {
        self.left.retain_mut(|ring| !ring.has_ended(deadline));
        if !self.left.is_empty() || !self.transfers.have_ended(deadline) {
            return Err(self.stuck(doing));
        }
        let reset = match std::mem::replace(&mut self.filesystem_reset, Reset::Done) {
            Reset::Done => return Ok(()),
            Reset::Due => {
                let filesystem = Arc::clone(&self.service.options.filesystem);
                Pending::begin(move || filesystem.reset())
            }
            Reset::Begun(reset) => reset,
        };
        reset.wait(deadline).map(drop).map_err(|reset| {
            self.filesystem_reset = Reset::Begun(reset);
            self.stuck(doing)
        })
    }

    fn stuck(&self, doing: &'static str) -> Error {
        self.service.options.stuck(doing, self.health().state())
    }

    /// Notes that the filesystem does not return, which makes a device that is in use fail.
    fn fail(&self, doing: &'static str) -> Error {
        let state = self.health().state();
        let stuck = || self.service.options.stuck(doing, state);
        if self
            .health()
            .happen(Happening::Stuck, Some(Arc::new(stuck())))
            && let Some(active) = &self.active
        {
            active.surroundings.interrupt.signal_needs_reset();
        }
        stuck()
    }

    /// Goes on with another log, or without one. What is in flight is done before: so nothing is
    /// written that one of them misses. Where it cannot go on, the device is paused.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) -> Result<(), Error> {
        let deadline = self.deadline();
        self.log.clone_from(&log);
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let running = active.running;
        if !active.stop(deadline) {
            return Err(self.fail("change what notes written pages"));
        }
        active.surroundings.log = log;
        let started = match running {
            true => active.start(deadline),
            false => Ok(()),
        };
        if started.is_err() {
            self.health().done(Call::Pause)?;
        }
        started
    }
}

impl<M: GuestSpace> Active<M> {
    /// Serves all rings, or none.
    fn start(&mut self, deadline: Instant) -> Result<(), Error> {
        self.running = true;
        let started = self.start_rings();
        if started.is_err() {
            self.stop(deadline);
        }
        started
    }

    fn start_rings(&mut self) -> Result<(), Error> {
        let surroundings = &self.surroundings;
        self.rings
            .iter_mut()
            .try_for_each(|ring| ring.start(surroundings))
    }

    /// Serves one ring more.
    fn add(&mut self, queue: QueueSetup, next_avail: u16) -> Result<(), Error> {
        if self.find(queue.index).is_some() {
            return Err(Error::Queue(queue.index));
        }
        let mut ring = Ring::new(queue, next_avail, &self.surroundings)?;
        ring.start(&self.surroundings)?;
        self.rings.push(ring);
        Ok(())
    }

    fn find(&self, index: u16) -> Option<usize> {
        self.rings
            .iter()
            .position(|ring| ring.state().index == index)
    }

    /// Takes the ring of queue `index` away.
    fn take(&mut self, index: u16) -> Option<Ring<M>> {
        self.find(index).map(|at| self.rings.remove(at))
    }

    /// Serves none, once what is in flight is done. Returns whether it is, by `deadline`.
    fn stop(&mut self, deadline: Instant) -> bool {
        self.running = false;
        self.rings.iter_mut().for_each(Ring::end);
        self.have_ended(deadline)
    }

    /// Whether all rings have ended that were to.
    fn have_ended(&mut self, deadline: Instant) -> bool {
        self.rings.iter_mut().all(|ring| ring.has_ended(deadline))
    }

    /// Has rings that are not in `memory` served no more, as it is to be the guest's. Returns whether
    /// that is done by `deadline`.
    fn leave_unless_in(&mut self, memory: &M, deadline: Instant) -> bool {
        let map = memory.memory();
        for ring in &mut self.rings {
            ring.leave_unless_in(&map);
        }
        self.have_ended(deadline)
    }

    /// Rings that are not there any more are not served until they are.
    fn set_memory(&mut self, memory: M) -> Result<(), Error> {
        if let Some(log) = &self.surroundings.log {
            log.follow(&*memory.memory());
        }
        self.surroundings.memory.replace(memory);
        match self.running {
            true => self.start_rings(),
            false => Ok(()),
        }
    }

    /// Interrupts the driver for every queue: what was under way when the machine was paused may not be
    /// in its state.
    fn interrupt_all(&self) {
        for ring in &self.rings {
            let index = ring.state().index;
            self.surroundings.interrupt.signal_queue(index);
        }
    }

    fn memory(&self) -> M::T {
        self.surroundings.memory.memory()
    }
}

impl<M: GuestSpace> Backend<M> for InProcessBackend<M> {
    fn offer(&self) -> &Offer {
        &self.offer
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            // There is no daemon that could die.
            keeps_in_flight: true,
            survives_daemon: true,
            saves_state: self.service.options.filesystem.state().is_some(),
            logs_dirty_pages: true,
            memory_slots: true,
            memory_regions: usize::MAX,
            resets: true,
        }
    }

    fn window(&self) -> Option<WindowStatus> {
        None
    }

    fn activate(&mut self, features: u64, activation: Activation<M>) -> Result<(), Error> {
        let deadline = self.deadline();
        self.clear_up("activate the device", deadline)?;
        let active = self.set_up(features, activation, |_| 0)?;
        if let Err(error) = self.active.insert(active).start(deadline) {
            self.forget();
            return Err(error);
        }
        self.health().done(Call::Activate)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.forget();
        self.health().done(Call::Reset)
    }

    fn pause(&mut self) -> Result<(), Error> {
        let deadline = self.deadline();
        if let Some(active) = &mut self.active
            && !active.stop(deadline)
        {
            return Err(self.fail("pause the device"));
        }
        self.health().done(Call::Pause)
    }

    fn resume(&mut self) -> Result<(), Error> {
        let deadline = self.deadline();
        if let Some(active) = &mut self.active {
            active.start(deadline)?;
        }
        self.health().done(Call::Resume)?;
        if let Some(active) = &self.active {
            active.interrupt_all();
        }
        Ok(())
    }

    fn update_memory(&mut self, memory: M) -> Result<(), Error> {
        let deadline = self.deadline();
        if let Some(active) = &mut self.active {
            if !active.leave_unless_in(&memory, deadline) {
                return Err(self.fail("update the memory"));
            }
            active.set_memory(memory)?;
        }
        self.health().done(Call::UpdateMemory)
    }

    fn start_queue(&mut self, queue: QueueSetup, next_avail: u16) -> Result<(), Error> {
        if let Some(active) = &mut self.active {
            active.add(queue, next_avail)?;
        }
        self.health().done(Call::StartQueue)
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16, Error> {
        let deadline = self.deadline();
        let active = self.active.as_mut().ok_or(Error::Queue(index))?;
        let mut ring = active.take(index).ok_or(Error::Queue(index))?;
        ring.end();
        match ring.has_ended(deadline) {
            true => Ok(ring.state().next_avail),
            false => {
                active.rings.push(ring);
                Err(self.fail("stop a queue"))
            }
        }
    }

    /// Whom its threads interrupt they ask every time.
    fn update_interrupt(&mut self, index: u16) -> Result<(), Error> {
        match self
            .active
            .iter()
            .any(|active| active.find(index).is_some())
        {
            true => self.health().done(Call::UpdateInterrupt),
            false => Err(Error::Queue(index)),
        }
    }

    fn save(&mut self) -> Result<ActiveState, Error> {
        let deadline = self.deadline();
        let rings = self.active.iter().flat_map(|active| &active.rings);
        let saved = ActiveState {
            queues: rings.map(Ring::state).collect(),
            backend: self.transfers.save(&self.service, deadline)?,
        };
        self.health().done(Call::Save)?;
        Ok(saved)
    }

    fn restore(
        &mut self,
        features: u64,
        activation: Activation<M>,
        saved: &ActiveState,
    ) -> Result<(), Error> {
        let deadline = self.deadline();
        self.clear_up("restore the device", deadline)?;
        let active = self.set_up(features, activation, |index| {
            let queue = saved.queues.iter().find(|queue| queue.index == index);
            queue.map_or(0, |queue| queue.next_avail)
        })?;
        let loaded = self.transfers.load(&self.service, &saved.backend, deadline);
        if let Err(error) = loaded {
            self.filesystem_reset = Reset::Due;
            if let Err(error) = self.clear_up("restore the device", deadline) {
                tracing::warn!(%error, "a filesystem keeps what could not be restored for now");
            }
            return Err(error);
        }
        self.active = Some(active);
        self.health().done(Call::Restore)
    }

    fn start_dirty_log(&mut self) -> Result<(), Error> {
        if self.log.is_some() {
            return Ok(());
        }
        let log = Arc::new(DirtyLog::default());
        if let Some(active) = &self.active {
            log.follow(&*active.memory());
        }
        self.set_log(Some(log))
    }

    fn stop_dirty_log(&mut self) -> Result<(), Error> {
        match self.log {
            Some(_) => self.set_log(None),
            None => Ok(()),
        }
    }

    fn take_dirty(&mut self, range: Range<u64>, found: &mut dyn FnMut(u64)) {
        if let Some(log) = &self.log {
            log.take(&range, found);
        }
    }
}

impl<M: GuestSpace> Drop for InProcessBackend<M> {
    fn drop(&mut self) {
        if self.active.is_some() {
            self.forget();
        }
    }
}

impl<M: GuestSpace> fmt::Debug for InProcessBackend<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessBackend")
            .field("options", &self.service.options)
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}

/// One that is too far away to be told counts as a day.
fn deadline_after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit)
        .or_else(|| now.checked_add(Duration::from_secs(86_400)))
        .unwrap_or(now)
}
