use std::io;

use virtio_fs_device::Event;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// An event, as the VMM wants it and as the device does.
pub(crate) struct Line {
    pub(crate) descriptor: EventFd,
    pub(crate) event: Event,
}

impl Line {
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = EventFd::new(EFD_NONBLOCK)?;
        let event = descriptor.try_clone()?.into();
        Ok(Self { descriptor, event })
    }
}
