use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fuse_fs::Serve;
use virtio_fs_queue::{PollLimit, Polling, Pool, QueueAffinity};

use crate::{During, Error, State};

/// Threads of the pool, unless the VMM brings its own.
const POOL_THREADS: usize = 16;

/// A filesystem of this process, and how it is served.
///
/// Each queue that the driver uses has a thread of its own, named `virtio-fs-q0` for hiprio and so
/// on, from when the device is activated until it is paused or reset.
pub struct InProcess {
    /// Serves the requests: a [`fuse_fs::Session`] over a filesystem, for instance. One filesystem
    /// serves one device.
    pub filesystem: Arc<dyn Serve>,
    /// Serves the requests that have to wait, on threads of its own; devices may share one. Default:
    /// one with at most 16 threads, which are started when they are needed.
    pub pool: Arc<Pool>,
    /// For how long the request queues look out for more before they ask for a kick; devices may
    /// share one. Default: the limit of [`PollLimit::default`].
    pub polling: Arc<Polling>,
    /// On which processors the request queues are served. Default `None`: on any that the thread may
    /// use which activates or resumes the device.
    pub queue_affinity: Option<QueueAffinity>,
    /// How long a pause, a reset, or a drop of the device waits for requests that the filesystem has
    /// in hand; likewise whatever else stops a queue, and who saves or restores the filesystem's
    /// state. Default 30 s.
    pub stop_limit: Duration,
    /// Most bytes of the filesystem's state, when the device is saved or restored. Default 64 MiB.
    pub state_limit: u64,
}

impl InProcess {
    /// Serves `filesystem`.
    #[must_use]
    pub fn new(filesystem: Arc<dyn Serve>) -> Self {
        Self {
            filesystem,
            pool: Arc::new(Pool::new(POOL_THREADS)),
            polling: Arc::new(Polling::new(PollLimit::default())),
            queue_affinity: None,
            stop_limit: Duration::from_secs(30),
            state_limit: 64 << 20,
        }
    }

    /// That the filesystem was waited for as long as it may be, of a device that is `state`.
    pub(super) const fn stuck(&self, doing: &'static str, state: State) -> Error {
        let message = None;
        Error::Stuck {
            during: During {
                doing,
                message,
                state,
            },
            limit: self.stop_limit,
        }
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess")
            .field("pool", &self.pool)
            .field("polling", &self.polling)
            .field("queue_affinity", &self.queue_affinity)
            .field("stop_limit", &self.stop_limit)
            .field("state_limit", &self.state_limit)
            .finish_non_exhaustive()
    }
}
