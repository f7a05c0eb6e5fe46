use virtio_fs_device::{Event, QueueSetup, RingAddresses};
use vm_memory::GuestAddress;

/// A ring as the front-end sets it up.
///
/// It is served while it is enabled and has a kick. What says where it is, and from where on it is to
/// be served, ends that until it is enabled or kicked anew.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) size: u16,
    pub(super) areas: Option<Areas>,
    /// The entry of the available ring to go on at.
    pub(super) next_avail: u16,
    pub(super) enabled: bool,
    /// The front-end starts a ring by giving it a kick.
    pub(super) kick: Option<Event>,
    pub(super) served: bool,
    /// Whether it has ever been served: it may go on at `next_avail`, and nowhere else.
    pub(super) begun: bool,
}

/// Where the parts of a ring are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Areas {
    pub(super) descriptors: GuestAddress,
    pub(super) avail: GuestAddress,
    pub(super) used: GuestAddress,
}

impl Ring {
    /// What the device is told of it, where it is to be served and is not.
    pub(super) fn setup(&self, index: u16) -> Option<QueueSetup> {
        let (kick, areas) = (self.kick.as_ref()?, self.areas?);
        (self.enabled && !self.served).then(|| QueueSetup {
            index,
            ring: RingAddresses {
                size: self.size,
                descriptors: areas.descriptors,
                avail: areas.avail,
                used: areas.used,
            },
            kick: kick.clone(),
        })
    }
}
