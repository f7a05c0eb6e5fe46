use serde::{Deserialize, Serialize};

use crate::RingAddresses;

/// The version of [`SavedState`] that this crate writes, and the only one that it reads.
pub(crate) const VERSION: u32 = 1;

/// A device's state, to be stored or sent with that of the machine by any format of serde's.
///
/// It holds what the driver and the device agreed on, where the queues are and how far they have
/// got, and the daemon's own state as the daemon wrote it. It does not hold the guest's memory, nor
/// what the VMM provides: those are given to [`Device::restore`](crate::Device::restore) anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    pub(crate) version: u32,
    /// The driver finds the same device again.
    pub(crate) tag: String,
    pub(crate) request_queues: u32,
    /// What the driver accepted; `None` before it did.
    pub(crate) features: Option<u64>,
    /// `None` where the driver does not use the device.
    pub(crate) active: Option<ActiveState>,
}

/// What there is to save of a device that is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActiveState {
    pub(crate) queues: Vec<QueueState>,
    /// As the daemon wrote it.
    pub(crate) backend: Vec<u8>,
}

/// A queue, and how far it has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueState {
    pub(crate) index: u16,
    pub(crate) ring: RingAddresses,
    /// The next entry of the available ring that is to be served.
    pub(crate) next_avail: u16,
}

impl SavedState {
    /// The version of the format.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The tag of the device that was saved.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether the driver used the device.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.active.is_some()
    }
}
