//! A device, by each of the ways to serve one.

use std::path::Path;
use std::sync::Arc;

use fuse_fs::{MemFs, Serve, Session};
use passthrough_fs::{Config, PassthroughFs};
use tempfile::TempDir;
use virtio_fs_device::{Device, DeviceConfig, InProcess};
use virtio_fs_guest::{Backing, Mount, Options};

use crate::support::*;

/// What is behind the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    Daemon,
    Process,
}

/// Where the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    Memory,
    Directory,
}

/// What serves devices: of one after the other, the same files.
pub(crate) struct Served {
    pub(crate) behind: Behind,
    daemon: Option<Daemon>,
    place: Place,
    filesystem: Arc<dyn Serve>,
    _directory: Arc<TempDir>,
}

impl Served {
    /// Each way to serve each kind of files.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        let all = [Behind::Daemon, Behind::Process]
            .map(|behind| [(behind, Files::Memory), (behind, Files::Directory)]);
        all.into_iter()
            .flatten()
            .map(|(behind, files)| Self::new(behind, files))
    }

    pub(crate) fn new(behind: Behind, files: Files) -> Self {
        let directory = Arc::new(TempDir::new().unwrap());
        Self::of(behind, filesystem(files, directory.path()), directory)
    }

    /// Serves another session over the same directory.
    pub(crate) fn again(&self) -> Self {
        let filesystem = filesystem(Files::Directory, self._directory.path());
        Self::of(self.behind, filesystem, Arc::clone(&self._directory))
    }

    fn of(behind: Behind, filesystem: Arc<dyn Serve>, directory: Arc<TempDir>) -> Self {
        let place = Place::new();
        let daemon = (behind == Behind::Daemon).then(|| place.serve(Arc::clone(&filesystem)));
        Self {
            behind,
            filesystem,
            place,
            daemon,
            _directory: directory,
        }
    }

    pub(crate) fn device(&self) -> Device<Memory> {
        match self.daemon {
            Some(_) => device(&self.place),
            None => {
                Device::in_process(&config(), InProcess::new(Arc::clone(&self.filesystem))).unwrap()
            }
        }
    }

    /// A driver of `device`, on memory that is shared only where that is needed.
    pub(crate) fn guest(&self, device: &Device<Memory>) -> Guest {
        let options = Options {
            request_queues: REQUEST_QUEUES,
            queue_size: 64,
            data_memory: 1 << 20,
            timeout: LONG,
            backing: match self.behind {
                Behind::Daemon => Backing::Shared,
                Behind::Process => Backing::Private,
            },
            ..Options::default()
        };
        Guest::with(device, Calls::Direct, &options)
    }

    /// A device that is mounted.
    pub(crate) fn mounted(&self) -> (Device<Memory>, Mount, Machine) {
        let mut device = self.device();
        let (mount, machine) = self.guest(&device).start(&mut device);
        (device, mount, machine)
    }
}

/// What the daemons say of the device, too.
pub(crate) fn config() -> DeviceConfig {
    DeviceConfig {
        tag: Some(TAG.parse().unwrap()),
        request_queues: Some(REQUEST_QUEUES),
        ..DeviceConfig::default()
    }
}

fn filesystem(files: Files, directory: &Path) -> Arc<dyn Serve> {
    match files {
        Files::Memory => Arc::new(Session::new(MemFs::new())),
        Files::Directory => Arc::new(Session::new(
            PassthroughFs::new(Config::new(directory)).unwrap(),
        )),
    }
}
