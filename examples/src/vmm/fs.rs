//! The virtio-fs devices themselves, which outlive the machines that they are part of.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_fs::Session;
use passthrough_fs::{Config, NewError, PassthroughFs};
use virtio_fs_device::{Device, DeviceConfig, InProcess, State, Tag, VhostUser};
use vm_memory::GuestMemoryMmap;

use super::options::{FsOptions, Server};
use crate::limits;

type Inner = Device<&'static GuestMemoryMmap>;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("--fs tag={0},socket={1}: {2}; is its daemon running?")]
    Daemon(Tag, PathBuf, #[source] virtio_fs_device::Error),
    #[error("--fs tag={0},dir={1}: {2}")]
    InProcess(Tag, PathBuf, #[source] virtio_fs_device::Error),
    #[error("--fs tag={0}: {1}")]
    Directory(Tag, #[source] NewError),
}

/// A device, and its tag. Clones are the same device.
#[derive(Clone)]
pub(super) struct FsDevice {
    tag: Tag,
    device: Arc<Mutex<Inner>>,
}

impl FsDevice {
    /// The device that `options` describe, one of `devices`: connected with its daemon, or with a
    /// share of what this process may have open.
    pub(super) fn new(options: &FsOptions, devices: usize) -> Result<Self, Error> {
        let tag = options.tag.clone();
        let config = DeviceConfig {
            tag: Some(tag.clone()),
            request_queues: Some(options.num_queues),
            queue_size: options.queue_size,
        };
        let device = match &options.server {
            Server::Daemon(socket) => Device::vhost_user(&config, VhostUser::new(socket))
                .map_err(|error| Error::Daemon(tag.clone(), socket.clone(), error)),
            Server::Directory(directory) => {
                let filesystem = filesystem(directory, devices);
                let filesystem =
                    filesystem.map_err(|error| Error::Directory(tag.clone(), error))?;
                Device::in_process(&config, filesystem)
                    .map_err(|error| Error::InProcess(tag.clone(), directory.clone(), error))
            }
        };
        let device = Arc::new(Mutex::new(device?));
        Ok(Self { tag, device })
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on, unless it does: the last time, it may have been another device that could not.
    pub(super) fn resume(&self) -> Result<(), virtio_fs_device::Error> {
        let mut device = self.lock();
        match device.state() {
            State::Active => Ok(()),
            _ => device.resume(),
        }
    }

    /// What it offers the driver: its features, and the size of each of its queues.
    pub(super) fn offer(&self) -> (u64, Vec<u16>) {
        let device = self.lock();
        (device.features(), device.queue_max_sizes().to_vec())
    }
}

fn filesystem(directory: &Path, devices: usize) -> Result<InProcess, NewError> {
    let descriptors = limits::usable_descriptors().checked_div(devices);
    let config = Config::new(directory).max_descriptors(descriptors.unwrap_or_default());
    let filesystem = PassthroughFs::new(config)?;
    Ok(InProcess::new(Arc::new(Session::new(filesystem))))
}
