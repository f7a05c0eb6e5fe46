//! The virtio-fs devices themselves, which outlive the machines that they are part of.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_fs::Session;
use passthrough_fs::{Config, NewError, PassthroughFs};
use virtio_fs_device::{Device, DeviceConfig, InProcess, State, Tag, VhostUser};
use vm_memory::GuestMemoryMmap;

use super::options::{FsOptions, Server};
use super::window::Window;
use crate::limits;

type Inner = Device<&'static GuestMemoryMmap>;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("--fs tag={0},socket={1}: {2}; is its daemon running?")]
    Daemon(Tag, PathBuf, #[source] virtio_fs_device::Error),
    #[error("--fs tag={0},dir={1}: {2}")]
    InProcess(Tag, PathBuf, #[source] virtio_fs_device::Error),
    #[error("--fs tag={0},window={1}: no address space: {2}")]
    Window(Tag, u64, #[source] io::Error),
    #[error("--fs tag={0}: {1}")]
    Directory(Tag, #[source] NewError),
}

/// A device, and its tag. Clones are the same device.
#[derive(Clone)]
pub(super) struct FsDevice {
    tag: Tag,
    device: Arc<Mutex<Inner>>,
    window: Option<Window>,
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
        let window =
            |size| Window::new(size).map_err(|error| Error::Window(tag.clone(), size, error));
        let window = options.window.map(window).transpose()?;
        let device = match &options.server {
            Server::Daemon(socket) => Device::vhost_user(&config, daemon(socket, window))
                .map_err(|error| Error::Daemon(tag.clone(), socket.clone(), error)),
            Server::Directory(directory) => {
                let filesystem = filesystem(directory, devices);
                let filesystem =
                    filesystem.map_err(|error| Error::Directory(tag.clone(), error))?;
                Device::in_process(&config, filesystem)
                    .map_err(|error| Error::InProcess(tag.clone(), directory.clone(), error))
            }
        };
        let device = device?;
        let window = window.and_then(|window| window.cut(device.window_size().unwrap_or(0)));
        if options.window.is_some() && window.is_none() {
            tracing::warn!(%tag, "there is no DAX window: the daemon wants none (--dax-window)");
        }
        Ok(Self {
            tag,
            device: Arc::new(Mutex::new(device)),
            window,
        })
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    pub(super) fn window(&self) -> Option<Window> {
        self.window
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

fn daemon(socket: &Path, window: Option<Window>) -> VhostUser {
    let mut daemon = VhostUser::new(socket);
    daemon.window = window.map(|window| virtio_fs_device::Window {
        size: window.size,
        mapper: Arc::clone(window.reserved) as _,
    });
    daemon
}

fn filesystem(directory: &Path, devices: usize) -> Result<InProcess, NewError> {
    let descriptors = limits::usable_descriptors().checked_div(devices);
    let config = Config::new(directory).max_descriptors(descriptors.unwrap_or_default());
    let filesystem = PassthroughFs::new(config)?;
    Ok(InProcess::new(Arc::new(Session::new(filesystem))))
}
