use std::fmt;
use std::sync::Arc;

use fuse_fs::Serve;
use virtio_fs_config::ConfigSpace;
use virtio_fs_queue::{Counts, Polling, Pool};

use crate::device::{Device, DeviceQueue};
use crate::front_end::Service;
use crate::session::Session;
use crate::{DaxWindow, QueueAffinity, Tag};

/// Most request queues.
pub const MAX_REQUEST_QUEUES: u16 = 63;
/// Most request queues that the config space names where nobody said how many there are to be: a
/// front-end that reads it sets all of them up.
const MOST_TOLD: u16 = 8;

/// What a device is made of.
pub struct BackendConfig {
    /// Serves the requests.
    pub filesystem: Arc<dyn Serve>,
    /// The device's tag, where the back-end is to provide the config space. Without one that is up
    /// to the front-end.
    pub tag: Option<Tag>,
    /// Number of request queues, 1 to [`MAX_REQUEST_QUEUES`]: as many as a front-end may use. `None`
    /// for as many as it likes; one that is not used costs nothing. The config space, where it is
    /// provided here, has to name a number: that of this host's processors then, at most 8.
    pub request_queues: Option<u16>,
    /// On which processors the request queues are served; `None` for any.
    pub queue_affinity: Option<QueueAffinity>,
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
            .field("queue_affinity", &self.queue_affinity)
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

/// A vhost-user-fs device, to be served by a [`Daemon`](crate::Daemon).
#[derive(Clone)]
pub struct Backend {
    device: Arc<Device>,
    window: Option<Arc<DaxWindow>>,
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
            queue_affinity,
            pool,
            polling,
        } = config;
        let most = request_queues.unwrap_or(MAX_REQUEST_QUEUES);
        if !(1..=MAX_REQUEST_QUEUES).contains(&most) {
            return Err(ConfigError::RequestQueues(most));
        }
        let told = request_queues.unwrap_or_else(queues_for_processors);
        Ok(Self {
            device: Arc::new(Device {
                filesystem,
                pool,
                config_space: tag.map(|tag| ConfigSpace::new(tag, told.into())),
                queues: std::iter::once(DeviceQueue::hiprio())
                    .chain((0..most.into()).map(|n| {
                        let processors = queue_affinity.as_ref().and_then(|all| all.of(n));
                        DeviceQueue::request(&polling, processors)
                    }))
                    .collect(),
            }),
            window: None,
        })
    }

    /// Offers `window` to front-ends, for the session that was given it.
    #[must_use]
    pub fn with_window(mut self, window: Arc<DaxWindow>) -> Self {
        self.window = Some(window);
        self
    }

    /// What was counted on each queue so far, hiprio first.
    #[must_use]
    pub fn counts(&self) -> Vec<Counts> {
        let counts = |queue: &DeviceQueue| queue.stats.read();
        self.device.queues.iter().map(counts).collect()
    }
}

impl Service for Backend {
    type Handler = Session;

    fn handler(&self) -> Session {
        Session::new(Arc::clone(&self.device), self.window.clone())
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("queues", &self.device.queues.len())
            .field("config_space", &self.device.config_space)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// One for each processor that there is: Linux gives each of its own one of the queues.
fn queues_for_processors() -> u16 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|processors| u16::try_from(processors.get()).ok())
        .map_or(MOST_TOLD, |processors| processors.min(MOST_TOLD))
}
