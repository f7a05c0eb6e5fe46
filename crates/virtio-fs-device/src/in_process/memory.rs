use std::sync::Arc;

use arc_swap::ArcSwap;
use vm_memory::GuestAddressSpace;

use crate::GuestSpace;

/// The guest's memory, which the VMM may replace while queues are served: whoever looked it up keeps
/// what there was then, until it is done.
pub(super) struct SharedMemory<M>(Arc<ArcSwap<M>>);

impl<M> SharedMemory<M> {
    pub(super) fn new(memory: M) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(memory)))
    }

    pub(super) fn replace(&self, memory: M) {
        self.0.store(Arc::new(memory));
    }
}

impl<M> Clone for SharedMemory<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: GuestSpace> GuestAddressSpace for SharedMemory<M> {
    type M = M::M;
    type T = M::T;

    fn memory(&self) -> M::T {
        self.0.load().memory()
    }
}
