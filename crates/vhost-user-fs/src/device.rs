use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuse_fs::Serve;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_fs_config::{ConfigSpace, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use virtio_fs_queue::{Polling, Pool, Processors, Stats};

/// What a device is, whoever its front-end is.
pub(crate) struct Device {
    pub(crate) filesystem: Arc<dyn Serve>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) config_space: Option<ConfigSpace>,
    /// hiprio, then the request queues: as many as a front-end may use.
    pub(crate) queues: Vec<DeviceQueue>,
}

/// What belongs to a queue, whoever uses it.
pub(crate) struct DeviceQueue {
    /// Where it is served; `None` for anywhere.
    pub(crate) processors: Option<Processors>,
    pub(crate) polling: Arc<Polling>,
    pub(crate) stats: Arc<Stats>,
    /// How often it was to be served and could not be.
    refusals: AtomicU64,
}

/// Largest queue. Linux needs 512 for requests of 1 MiB; QEMU allows no more than 1024.
pub(crate) const MAX_QUEUE_SIZE: u16 = 1024;

pub(crate) const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// `VHOST_F_LOG_ALL`: what is written to guest memory is to be logged.
pub(crate) const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();

/// The virtio features that a device offers.
pub(crate) const FEATURES: u64 =
    VERSION_1 | EVENT_IDX | INDIRECT_DESC | PROTOCOL_FEATURES | LOG_ALL;

impl DeviceQueue {
    /// The queue for what is not to wait for requests.
    pub(crate) fn hiprio() -> Self {
        Self {
            processors: None,
            polling: Arc::new(Polling::never()),
            stats: Arc::default(),
            refusals: AtomicU64::new(0),
        }
    }

    pub(crate) fn request(polling: &Arc<Polling>, processors: Option<&Processors>) -> Self {
        Self {
            processors: processors.cloned(),
            polling: Arc::clone(polling),
            stats: Arc::default(),
            refusals: AtomicU64::new(0),
        }
    }

    /// Notes that queue `index` was to be served and could not be; ever more rarely, as drivers can
    /// have that as often as they like.
    pub(crate) fn refuse(&self, index: u16, why: &dyn fmt::Display) {
        let count = self
            .refusals
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        if count.is_power_of_two() {
            tracing::warn!(
                queue = index,
                count,
                "a queue cannot be served as it is set up: {why}"
            );
        }
    }
}

impl Device {
    /// The protocol features that it offers.
    ///
    /// Nothing is said over the channel that BACKEND_REQ brings, but User Mode Linux has no
    /// interrupts without it (Linux 6.1, `arch/um/drivers/virtio_uml.c`). It needs the config space.
    pub(crate) fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let mut features = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::LOG_SHMFD;
        if self.filesystem.state().is_some() {
            features |= VhostUserProtocolFeatures::DEVICE_STATE;
        }
        if self.config_space.is_some() {
            features |= VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::BACKEND_REQ;
        }
        features
    }
}
