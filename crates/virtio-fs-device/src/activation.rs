use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryBackend};

use crate::{Event, Interrupt};

/// Guest memory as a device needs it: an address space that threads can share, such as
/// `Arc<GuestMemoryMmap>` or `GuestMemoryAtomic<GuestMemoryMmap>`.
///
/// For a daemon, each region has to be the mapping of a file (a memfd, hugetlbfs), shared.
pub trait GuestSpace: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static {}

impl<T: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static> GuestSpace for T {}

/// What the VMM has when the driver sets `DRIVER_OK`.
pub struct Activation<M> {
    /// The guest's memory.
    pub memory: M,
    /// The queues that the driver enabled, in any order.
    pub queues: Vec<QueueSetup>,
    /// How to interrupt the driver.
    pub interrupt: Arc<dyn Interrupt>,
}

/// A queue as the driver set it up.
#[derive(Debug, Clone)]
pub struct QueueSetup {
    /// Which one: 0 is hiprio, the others are request queues.
    pub index: u16,
    /// Where it is.
    pub ring: RingAddresses,
    /// Signalled when the driver notifies the queue: KVM's ioeventfd, or by the VMM.
    pub kick: Event,
}

/// Where a split virtqueue is (virtio 1.x, section 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingAddresses {
    /// Number of descriptors: a power of two, at most the queue's maximum.
    pub size: u16,
    /// Guest address of the descriptor table.
    #[serde(with = "address")]
    pub descriptors: GuestAddress,
    /// Guest address of the available ring.
    #[serde(with = "address")]
    pub avail: GuestAddress,
    /// Guest address of the used ring.
    #[serde(with = "address")]
    pub used: GuestAddress,
}

impl<M> fmt::Debug for Activation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation")
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

mod address {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use vm_memory::GuestAddress;

    pub(super) fn serialize<S: Serializer>(
        address: &GuestAddress,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        address.0.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<GuestAddress, D::Error> {
        u64::deserialize(deserializer).map(GuestAddress)
    }
}
