use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fuse_fs::Serve;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::VhostUserBackend;
use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_fs_queue::{Counts, Polling, Pool};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::config_space::ConfigSpace;
use crate::queues::QueueSlot;
use crate::sys::LentEvent;
use crate::vring::Vring;
use crate::{SharedMemory, Tag};

/// Most request queues: with hiprio as many queues as the framework can assign to threads.
pub const MAX_REQUEST_QUEUES: u16 = 63;
/// Index of the queue for what is not to wait for requests (virtio 1.x, section 5.11.2).
const HIPRIO: u16 = 0;
/// Largest queue. Linux needs 512 for requests of 1 MiB; QEMU allows no more than 1024.
const MAX_QUEUE_SIZE: usize = 1024;

/// What a device is made of.
pub struct BackendConfig {
    /// Serves the requests.
    pub filesystem: Arc<dyn Serve>,
    /// The device's tag, where the back-end is to provide the config space. Without one that is up
    /// to the front-end.
    pub tag: Option<Tag>,
    /// Number of request queues, 1 to [`MAX_REQUEST_QUEUES`]: as many as a front-end may use.
    pub request_queues: u16,
    /// Serves the requests that have to wait.
    pub pool: Arc<Pool>,
    /// For how long the request queues look out for more before they ask for a kick. hiprio never
    /// does: what comes there, FORGET above all, is awaited by nobody.
    pub polling: Arc<Polling>,
}

impl fmt::Debug for BackendConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendConfig")
            .field("tag", &self.tag)
            .field("request_queues", &self.request_queues)
            .finish_non_exhaustive()
    }
}

/// Why there cannot be such a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// None, or more than [`MAX_REQUEST_QUEUES`].
    #[error("a device has 1 to {MAX_REQUEST_QUEUES} request queues, not {0}")]
    RequestQueues(u16),
}

/// A vhost-user-fs device, to be run by a [`vhost_user_backend::VhostUserDaemon`].
///
/// The framework tears nothing down when its front-end disconnects: call [`halt`](Self::halt) then,
/// drop the `VhostUserDaemon`, which ends its threads, and call [`disconnect`](Self::disconnect).
/// [`Daemon`](crate::Daemon) does.
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

struct Shared {
    filesystem: Arc<dyn Serve>,
    config_space: Option<ConfigSpace>,
    /// hiprio, then the request queues.
    queues: Vec<Arc<QueueSlot>>,
    acked_features: AtomicU64,
    memory: Mutex<Option<SharedMemory>>,
    exit_events: Mutex<Vec<LentEvent>>,
}

impl Backend {
    /// A device as `config` describes it.
    ///
    /// # Errors
    /// Says what cannot be.
    pub fn new(config: BackendConfig) -> Result<Self, ConfigError> {
        let BackendConfig {
            filesystem,
            tag,
            request_queues,
            pool,
            polling,
        } = config;
        if !(1..=MAX_REQUEST_QUEUES).contains(&request_queues) {
            return Err(ConfigError::RequestQueues(request_queues));
        }
        let never = Arc::new(Polling::never());
        let slot = |index| {
            let polling = if index == HIPRIO { &never } else { &polling };
            Arc::new(QueueSlot::new(
                Arc::clone(&filesystem),
                Arc::clone(&pool),
                Arc::clone(polling),
            ))
        };
        Ok(Self {
            shared: Arc::new(Shared {
                config_space: tag.map(|tag| ConfigSpace::new(&tag, request_queues.into())),
                queues: (HIPRIO..=request_queues).map(slot).collect(),
                filesystem,
                acked_features: AtomicU64::new(0),
                memory: Mutex::new(None),
                exit_events: Mutex::new(Vec::new()),
            }),
        })
    }

    /// The front-end is gone: stops all queues, waits for what is in flight, and serves nothing until
    /// [`disconnect`](Self::disconnect).
    ///
    /// Without this a guest that is still there, and keeps a queue busy, would keep the thread of
    /// that queue busy too, which a `VhostUserDaemon` waits for when it is dropped.
    pub fn halt(&self) {
        for queue in &self.shared.queues {
            queue.halt();
        }
    }

    /// Ends the guest's session and lets go of its memory: the next front-end starts anew. To be
    /// called when the framework's threads have ended.
    pub fn disconnect(&self) {
        for queue in &self.shared.queues {
            queue.resume();
        }
        self.shared.filesystem.reset();
        self.shared.acked_features.store(0, Ordering::Relaxed);
        *self.memory() = None;
        lock(&self.shared.exit_events).clear();
    }

    /// What was counted on each queue so far, hiprio first.
    #[must_use]
    pub fn counts(&self) -> Vec<Counts> {
        let counts = |slot: &Arc<QueueSlot>| slot.stats().read();
        self.shared.queues.iter().map(counts).collect()
    }

    fn stop_all(&self) {
        for queue in &self.shared.queues {
            queue.stop();
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Option<SharedMemory>> {
        lock(&self.shared.memory)
    }

    fn has_acked(&self, bit: u32) -> bool {
        self.shared.acked_features.load(Ordering::Relaxed) & feature(bit) != 0
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("queues", &self.shared.queues.len())
            .field("config_space", &self.shared.config_space)
            .finish_non_exhaustive()
    }
}

const fn feature(bit: u32) -> u64 {
    1u64.wrapping_shl(bit)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VhostUserBackend for Backend {
    type Bitmap = BitmapMmapRegion;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.shared.queues.len()
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        feature(VIRTIO_F_VERSION_1)
            | feature(VIRTIO_RING_F_EVENT_IDX)
            | feature(VIRTIO_RING_F_INDIRECT_DESC)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        self.shared
            .acked_features
            .store(features, Ordering::Relaxed);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let mut features = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE;
        if self.shared.config_space.is_some() {
            features |= VhostUserProtocolFeatures::CONFIG;
        }
        features
    }

    fn reset_device(&self) {
        self.stop_all();
        self.shared.filesystem.reset();
    }

    /// Each vring knows for itself.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        /// `VHOST_USER_CONFIG_SIZE`, the most that a message carries.
        const MAX: u32 = 256;
        match (&self.shared.config_space, usize::try_from(size.min(MAX))) {
            (Some(space), Ok(size)) => space.read(offset, size),
            _ => Vec::new(),
        }
    }

    fn set_config(&self, _offset: u32, _buf: &[u8]) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the config space of a virtio-fs device is read-only",
        ))
    }

    fn update_memory(&self, memory: SharedMemory) -> io::Result<()> {
        *self.memory() = Some(memory);
        Ok(())
    }

    /// A thread for each queue, so that hiprio waits for no request queue.
    fn queues_per_thread(&self) -> Vec<u64> {
        (0u32..)
            .zip(&self.shared.queues)
            .map(|(index, _)| feature(index))
            .collect()
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        let (consumer, notifier) =
            new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)
                .inspect_err(|error| tracing::error!(%error, "cannot make an exit event"))
                .ok()?;
        lock(&self.shared.exit_events).push(LentEvent::new(consumer.as_raw_fd()));
        Some((consumer, notifier))
    }

    fn stop_vring(&self, queue_index: u32) -> io::Result<()> {
        let index = usize::try_from(queue_index).unwrap_or(usize::MAX);
        if let Some(queue) = self.shared.queues.get(index) {
            queue.stop();
        }
        Ok(())
    }

    /// Never fails: the framework would end the thread.
    fn handle_event(
        &self,
        _device_event: u16,
        _events: EventSet,
        vrings: &[Vring],
        thread_id: usize,
    ) -> io::Result<()> {
        // There is one queue for each thread, and one thread for each queue.
        let memory = self.memory().clone();
        let queue = self.shared.queues.get(thread_id);
        if let (Some(queue), [vring], Some(memory)) = (queue, vrings, memory) {
            let indirect = self.has_acked(VIRTIO_RING_F_INDIRECT_DESC);
            let index = u16::try_from(thread_id).unwrap_or(u16::MAX);
            queue.drain(index, vring, &memory, indirect);
        }
        Ok(())
    }
}
