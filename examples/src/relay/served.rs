use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_user_fs::front_end::{Service, SharedMemory};
use virtio_fs_device::{Device, DeviceConfig, Event, Recovery, Tag, VhostUser};

use super::Error;
use super::front_end::FrontEnd;
use super::options::Options;

/// The device, which outlives the front-ends that use it, one after the other. Clones are the same
/// device.
#[derive(Debug, Clone)]
pub(super) struct Served {
    device: Arc<Mutex<Device<SharedMemory>>>,
    /// Whether the front-end is told the device's tag.
    pub(super) tells_tag: bool,
    /// Signalled for drivers that want no interrupts.
    pub(super) nobody: Event,
}

impl Served {
    /// A device that the daemon serves which `options` name.
    ///
    /// # Errors
    /// There is none, or it is none for this.
    pub(super) fn connect(options: &Options) -> Result<Self, Error> {
        let config = DeviceConfig {
            // One that nobody is told is as good as any.
            tag: options.tag.clone().or_else(unnamed),
            request_queues: Some(options.num_request_queues),
            ..DeviceConfig::default()
        };
        let mut daemon = VhostUser::new(&options.daemon);
        daemon.recovery = Recovery::Resume;
        let device = Device::vhost_user(&config, daemon)
            .map_err(|error| Error::Device(options.daemon.clone(), error))?;
        Ok(Self {
            device: Arc::new(Mutex::new(device)),
            tells_tag: options.tag.is_some(),
            nobody: Event::new().map_err(Error::Event)?,
        })
    }

    pub(super) fn device(&self) -> MutexGuard<'_, Device<SharedMemory>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Served {
    type Handler = FrontEnd;

    fn handler(&self) -> FrontEnd {
        FrontEnd::new(self.clone())
    }
}

fn unnamed() -> Option<Tag> {
    super::NAME.parse().ok()
}
