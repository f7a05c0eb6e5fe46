//! The virtio-fs devices themselves, which outlive the machines that they are part of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_fs_device::{Device, DeviceConfig, Error, Tag, VhostUser};
use vm_memory::GuestMemoryMmap;

use super::options::FsOptions;

type Inner = Device<&'static GuestMemoryMmap>;

/// A device, and its tag. Clones are the same device.
#[derive(Clone)]
pub(super) struct FsDevice {
    tag: Tag,
    device: Arc<Mutex<Inner>>,
}

impl FsDevice {
    /// The device that `options` describe, connected with its daemon.
    pub(super) fn new(options: &FsOptions) -> Result<Self, Error> {
        let config = DeviceConfig {
            tag: Some(options.tag.clone()),
            request_queues: Some(options.num_queues),
            queue_size: options.queue_size,
        };
        let device = Device::vhost_user(&config, VhostUser::new(&options.socket))?;
        Ok(Self {
            tag: options.tag.clone(),
            device: Arc::new(Mutex::new(device)),
        })
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it offers the driver: its features, and the size of each of its queues.
    pub(super) fn offer(&self) -> (u64, Vec<u16>) {
        let device = self.lock();
        (device.features(), device.queue_max_sizes().to_vec())
    }
}
