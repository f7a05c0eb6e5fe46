use crate::{Error, Tag};

/// Largest queue. Linux needs 512 for requests of 1 MiB; daemons take no more than 1024.
pub const MAX_QUEUE_SIZE: u16 = 1024;
/// Most request queues: with hiprio, as many as the protocol can tell apart by their events
/// (`VHOST_USER_SET_VRING_KICK` has eight bits for it), and far more than a guest has use for.
pub const MAX_REQUEST_QUEUES: u16 = 255;

/// What a device looks like to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// What the guest mounts. `None` for what the daemon says (its `--tag`), where there is one and
    /// it offers the configuration space. Default `None`.
    pub tag: Option<Tag>,
    /// Number of request queues, 1 to [`MAX_REQUEST_QUEUES`]. `None` for as many as the daemon names
    /// in its configuration space, or 1. Default `None`.
    pub request_queues: Option<u16>,
    /// Most descriptors of each queue, a power of two up to [`MAX_QUEUE_SIZE`]. Default 1024.
    pub queue_size: u16,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            tag: None,
            request_queues: None,
            queue_size: MAX_QUEUE_SIZE,
        }
    }
}

impl DeviceConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.queue_size.is_power_of_two() || self.queue_size > MAX_QUEUE_SIZE {
            return Err(Error::QueueSize(self.queue_size));
        }
        match self.request_queues {
            Some(queues) if !(1..=MAX_REQUEST_QUEUES).contains(&queues) => {
                Err(Error::RequestQueues(queues.into()))
            }
            _ => Ok(()),
        }
    }
}
