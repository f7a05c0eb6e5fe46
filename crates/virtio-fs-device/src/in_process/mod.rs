//! A filesystem of this process behind the device: no socket, and no second process.

mod dirty;
mod memory;
mod options;
mod ring;
mod state;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use virtio_fs_config::{ConfigSpace, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use virtio_fs_queue::Stats;
use vm_memory::GuestAddressSpace;

use dirty::DirtyLog;
use memory::SharedMemory;
pub use options::InProcess;
use ring::{Ring, Surroundings};

use crate::backend::{Backend, Offer};
use crate::saved::ActiveState;
use crate::status::Health;
use crate::{
    Activation, Call, Capabilities, DeviceConfig, Error, GuestSpace, QueueSetup, WindowStatus,
};

/// A device that threads of this process serve.
pub(crate) struct InProcessBackend<M: GuestSpace> {
    offer: Offer,
    service: Arc<Service>,
    active: Option<Active<M>>,
    /// Where there is one, that of the rings, too.
    log: Option<Arc<DirtyLog>>,
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

    /// Forgets what the driver did.
    fn forget(&mut self) {
        if let Some(mut active) = self.active.take() {
            active.stop();
        }
        self.service.options.filesystem.reset();
    }

    /// Where that fails, the device is paused.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) -> Result<(), Error> {
        self.log.clone_from(&log);
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let set = active.set_log(log);
        if set.is_err() {
            self.health().done(Call::Pause)?;
        }
        set
    }
}

impl<M: GuestSpace> Active<M> {
    /// Serves all rings, or none.
    fn start(&mut self) -> Result<(), Error> {
        self.running = true;
        let started = self.start_rings();
        if started.is_err() {
            self.stop();
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

    /// Serves none, once what is in flight is done.
    fn stop(&mut self) {
        self.running = false;
        for ring in &mut self.rings {
            ring.stop();
        }
    }

    /// Rings that are not there any more are not served until they are.
    fn set_memory(&mut self, memory: M) -> Result<(), Error> {
        {
            let map = memory.memory();
            for ring in &mut self.rings {
                ring.leave_unless_in(&map);
            }
            if let Some(log) = &self.surroundings.log {
                log.follow(&*map);
            }
        }
        self.surroundings.memory.replace(memory);
        match self.running {
            true => self.start_rings(),
            false => Ok(()),
        }
    }

    /// Goes on with another log, or without one. What is in flight is done before: so nothing is
    /// written that one of them misses.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) -> Result<(), Error> {
        let running = self.running;
        self.stop();
        self.surroundings.log = log;
        match running {
            true => self.start(),
            false => Ok(()),
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
        let mut active = self.set_up(features, activation, |_| 0)?;
        if let Err(error) = active.start() {
            self.forget();
            return Err(error);
        }
        self.active = Some(active);
        self.health().done(Call::Activate)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.forget();
        self.health().done(Call::Reset)
    }

    fn pause(&mut self) -> Result<(), Error> {
        if let Some(active) = &mut self.active {
            active.stop();
        }
        self.health().done(Call::Pause)
    }

    fn resume(&mut self) -> Result<(), Error> {
        if let Some(active) = &mut self.active {
            active.start()?;
        }
        self.health().done(Call::Resume)
    }

    fn update_memory(&mut self, memory: M) -> Result<(), Error> {
        if let Some(active) = &mut self.active {
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
        let active = self.active.as_mut();
        let ring = active.and_then(|active| active.take(index));
        ring.map(|mut ring| {
            ring.stop();
            ring.state().next_avail
        })
        .ok_or(Error::Queue(index))
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
        let InProcess {
            filesystem,
            state_limit,
            ..
        } = &self.service.options;
        let rings = self.active.iter().flat_map(|active| &active.rings);
        let saved = ActiveState {
            queues: rings.map(Ring::state).collect(),
            backend: state::save(&**filesystem, *state_limit)?,
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
        let active = self.set_up(features, activation, |index| {
            let queue = saved.queues.iter().find(|queue| queue.index == index);
            queue.map_or(0, |queue| queue.next_avail)
        })?;
        let InProcess {
            filesystem,
            state_limit,
            ..
        } = &self.service.options;
        if let Err(error) = state::load(&**filesystem, &saved.backend, *state_limit) {
            filesystem.reset();
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
