//! The virtio-fs devices themselves, which outlive the machines that they are part of.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context as _, Result};
use fuse_fs::Session;
use passthrough_fs::{Config, NewError, PassthroughFs};
use virtio_fs_device::{Device, DeviceConfig, Error, InProcess, ReservedWindow, State, VhostUser};
use virtio_fs_pci::WindowMemory;
use vm_memory::GuestMemoryMmap;

use super::lock;
use super::options::FsOptions;
use crate::limits;

pub(super) type Inner = Device<&'static GuestMemoryMmap>;

/// A device. Its window lasts as long as the process: KVM has it.
pub(super) struct FsDevice {
    pub(super) device: Arc<Mutex<Inner>>,
    pub(super) window: Option<Window>,
}

/// A DAX window: in this process, where files are mapped, and in the guest's address space.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) reserved: &'static ReservedWindow,
    pub(super) memory: WindowMemory,
    /// Guest address, at first.
    pub(super) address: u64,
}

/// The devices that `options` describe, with windows from the guest address `start` on, and all of the
/// addresses that those have.
pub(super) fn open(options: &[FsOptions], start: u64) -> Result<(Vec<FsDevice>, Range<u64>)> {
    let mut end = start;
    let devices = options.iter().map(|option| {
        let device = FsDevice::new(option, options.len(), end)?;
        end = device.window.map_or(end, Window::end);
        Ok(device)
    });
    let devices = devices.collect::<Result<_>>()?;
    Ok((devices, start..end))
}

impl FsDevice {
    /// The device that `options` describe, one of `devices`: connected with its daemon, or with a
    /// share of what this process may have open. A window is at `start` or beyond.
    fn new(options: &FsOptions, devices: usize, start: u64) -> Result<Self> {
        let tag = &options.tag;
        let config = DeviceConfig {
            tag: Some(tag.clone()),
            request_queues: Some(options.num_queues),
            queue_size: options.queue_size,
        };
        let mut reserved = None;
        let device = if let Some(directory) = &options.dir {
            let failed = || format!("--fs tag={tag},dir={}", directory.display());
            let filesystem = Config::new(directory);
            let filesystem = filesystem_of(filesystem, devices).with_context(failed)?;
            Inner::in_process(&config, filesystem).with_context(failed)?
        } else {
            let socket = options.socket.clone().unwrap_or_default();
            let failed = format!("--fs tag={tag},socket={}", socket.display());
            let mut daemon = VhostUser::new(socket);
            if let Some(size) = options.window {
                let window = ReservedWindow::new(size);
                let window = window.with_context(|| format!("--fs tag={tag},window={size}"))?;
                let window: &_ = Box::leak(Box::new(Arc::new(window)));
                let mapper = Arc::clone(window) as _;
                daemon.window = Some(virtio_fs_device::Window { size, mapper });
                reserved = Some(&**window);
            }
            let device = Inner::vhost_user(&config, daemon);
            device.with_context(|| failed + "; is its daemon running?")?
        };
        let memory = device.window_size().and_then(WindowMemory::new);
        if options.window.is_some() && memory.is_none() {
            tracing::warn!(%tag, "there is no DAX window: the daemon wants none (--dax-window)");
        }
        let window = reserved.zip(memory).map(|(reserved, memory)| Window {
            reserved,
            memory,
            address: start.next_multiple_of(memory.len_on_bus()),
        });
        let device = Arc::new(Mutex::new(device));
        Ok(Self { device, window })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.device)
    }

    /// Goes on, unless it does: the last time, it may have been another device that could not.
    pub(super) fn resume(&self) -> Result<(), Error> {
        match self.lock().resume() {
            // That is so, or will be when its daemon is there.
            Err(Error::WrongState {
                state: State::Active,
                ..
            }) => Ok(()),
            resumed => resumed,
        }
    }
}

impl Window {
    fn end(self) -> u64 {
        self.address + self.memory.len_on_bus()
    }
}

fn filesystem_of(config: Config, devices: usize) -> Result<InProcess, NewError> {
    let descriptors = limits::usable_descriptors().checked_div(devices);
    let config = config.max_descriptors(descriptors.unwrap_or_default());
    let filesystem = PassthroughFs::new(config)?;
    Ok(InProcess::new(Arc::new(Session::new(filesystem))))
}
