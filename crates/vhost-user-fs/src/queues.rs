//! Each vring and the queue that serves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_fs::Serve;
use vhost_user_backend::VringT;
use virtio_fs_queue::{Polling, Pool, Queue, QueueConfig, Resources, Stats};

use crate::SharedMemory;
use crate::vring::Vring;

/// Serves one vring, over as many times as it is stopped and set up anew.
pub(crate) struct QueueSlot {
    filesystem: Arc<dyn Serve>,
    pool: Arc<Pool>,
    polling: Arc<Polling>,
    stats: Arc<Stats>,
    state: Mutex<State>,
}

enum State {
    /// The next event starts it, if the vring is up.
    Stopped,
    Running(Running),
    /// Nothing starts it.
    Halted,
}

/// A vring that is being served.
struct Running {
    vring: Vring,
    config: QueueConfig,
    queue: Arc<Queue<SharedMemory>>,
}

impl QueueSlot {
    pub(crate) fn new(filesystem: Arc<dyn Serve>, pool: Arc<Pool>, polling: Arc<Polling>) -> Self {
        Self {
            filesystem,
            pool,
            polling,
            stats: Arc::default(),
            state: Mutex::new(State::Stopped),
        }
    }

    /// What was counted on this queue.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Serves what the driver made available, if the vring is up.
    pub(crate) fn drain(
        self: &Arc<Self>,
        index: u16,
        vring: &Vring,
        memory: &SharedMemory,
        indirect: bool,
    ) {
        vring.attach(self);
        if let Some(queue) = self.queue(index, vring, memory, indirect) {
            queue.drain();
        }
    }

    /// Stops serving, waits for what is in flight, and leaves in the vring where to go on.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Running(_)) {
            state.replace(State::Stopped);
        }
    }

    /// Stops serving as [`stop`](Self::stop) does, until [`resume`](Self::resume).
    pub(crate) fn halt(&self) {
        self.lock().replace(State::Halted);
    }

    /// The next event may start it again.
    pub(crate) fn resume(&self) {
        self.lock().replace(State::Stopped);
    }

    /// The queue that serves `vring`; a new one where the vring was set up since.
    ///
    /// The vring is looked at behind the same lock that [`stop`](Self::stop) takes: one that is
    /// stopped at the same time is either seen as not ready here, or its queue is found there.
    fn queue(
        &self,
        index: u16,
        vring: &Vring,
        memory: &SharedMemory,
        indirect: bool,
    ) -> Option<Arc<Queue<SharedMemory>>> {
        let mut state = self.lock();
        let config = vring.config(indirect)?;
        match &*state {
            State::Halted => return None,
            State::Running(running) if running.is_at(&config) => {
                return Some(Arc::clone(&running.queue));
            }
            State::Running(running) if running.is_elsewhere(&config) => {
                // Its position says nothing about the ring that is there now.
                running.queue.stop();
                *state = State::Stopped;
            }
            State::Running(_) | State::Stopped => state.replace(State::Stopped),
        }
        let config = vring.config(indirect)?;
        match Queue::start(config, self.resources(vring, memory)) {
            Ok(queue) => {
                let queue = Arc::new(queue);
                *state = State::Running(Running {
                    vring: vring.clone(),
                    config,
                    queue: Arc::clone(&queue),
                });
                Some(queue)
            }
            Err(error) => {
                tracing::warn!(queue = index, %error, "the front-end set up a queue that cannot be served");
                None
            }
        }
    }

    fn resources(&self, vring: &Vring, memory: &SharedMemory) -> Resources<SharedMemory> {
        let vring = vring.clone();
        Resources {
            memory: memory.clone(),
            filesystem: Arc::clone(&self.filesystem),
            pool: Arc::clone(&self.pool),
            polling: Arc::clone(&self.polling),
            stats: Arc::clone(&self.stats),
            notify: Box::new(move || {
                if let Err(error) = vring.signal_used_queue() {
                    tracing::warn!(%error, "cannot interrupt the guest");
                }
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends what there was, then becomes `next`.
    fn replace(&mut self, next: Self) {
        if let Self::Running(running) = std::mem::replace(self, next) {
            running.stop();
        }
    }
}

impl Running {
    /// Whether `config` is what is being served.
    fn is_at(&self, config: &QueueConfig) -> bool {
        let features = |config: &QueueConfig| (config.event_idx, config.indirect);
        features(&self.config) == features(config) && !self.is_elsewhere(config)
    }

    /// Whether the front-end set up another ring, or this one from another position on, and did
    /// not ask before where this one got to: User Mode Linux does not.
    ///
    /// Where the used ring is continued tells nothing: QEMU, which gives the addresses again while
    /// the ring is being served, makes the framework change that.
    fn is_elsewhere(&self, config: &QueueConfig) -> bool {
        let place = |config: &QueueConfig| {
            let areas = [config.descriptors, config.avail, config.used];
            (areas, config.size, config.position.next_avail)
        };
        place(&self.config) != place(config)
    }

    fn stop(self) {
        self.vring.set_position(self.queue.stop());
    }
}
