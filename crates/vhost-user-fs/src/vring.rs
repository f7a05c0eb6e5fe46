//! The framework's vring, with what the framework leaves undone.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use vhost_user_backend::{VringRwLock, VringStateGuard, VringStateMutGuard, VringT};
use virtio_fs_queue::{Position, QueueConfig};
use virtio_queue::{Error as QueueError, QueueT};
use vm_memory::GuestAddress;

use crate::SharedMemory;
use crate::queues::QueueSlot;

type Inner = VringRwLock<SharedMemory>;

/// A vring as the front-end sets it up. Made and used by the framework.
///
/// It differs from the [`VringRwLock`] that it wraps in three ways: disabling it stops the queue
/// that serves it; a size that cannot be is remembered, not replaced by another; and a kick that
/// has been taken back is no reason to end the thread.
#[derive(Clone)]
pub struct Vring {
    inner: Inner,
    /// The size that the front-end asked for.
    size: Arc<AtomicU16>,
    /// Who serves it, from when it was served first.
    slot: Arc<OnceLock<Arc<QueueSlot>>>,
}

impl Vring {
    /// `slot` serves this vring from now on.
    pub(crate) fn attach(&self, slot: &Arc<QueueSlot>) {
        self.slot.get_or_init(|| Arc::clone(slot));
    }

    /// How the front-end set the vring up; `None` where it is not to be served now.
    pub(crate) fn config(&self, indirect: bool) -> Option<QueueConfig> {
        let state = self.inner.get_ref();
        let queue = state.get_queue();
        (queue.ready() && state.is_enabled()).then(|| QueueConfig {
            size: self.size.load(Ordering::Relaxed),
            descriptors: GuestAddress(queue.desc_table()),
            avail: GuestAddress(queue.avail_ring()),
            used: GuestAddress(queue.used_ring()),
            event_idx: queue.event_idx_enabled(),
            indirect,
            position: Position {
                next_avail: queue.next_avail(),
                next_used: queue.next_used(),
            },
        })
    }

    /// Leaves in the vring where to go on.
    pub(crate) fn set_position(&self, position: Position) {
        self.inner.set_queue_next_avail(position.next_avail);
        self.inner.set_queue_next_used(position.next_used);
    }
}

impl fmt::Debug for Vring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vring")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl<'a> VringStateGuard<'a, SharedMemory> for Vring {
    type G = <Inner as VringStateGuard<'a, SharedMemory>>::G;
}

impl<'a> VringStateMutGuard<'a, SharedMemory> for Vring {
    type G = <Inner as VringStateMutGuard<'a, SharedMemory>>::G;
}

impl VringT<SharedMemory> for Vring {
    fn new(memory: SharedMemory, max_queue_size: u16) -> Result<Self, QueueError> {
        Ok(Self {
            inner: Inner::new(memory, max_queue_size)?,
            size: Arc::new(AtomicU16::new(max_queue_size)),
            slot: Arc::default(),
        })
    }

    /// A ring that is disabled is not to be processed, and a front-end need not stop it before it
    /// takes its memory away or sets it up anew.
    fn set_enabled(&self, enabled: bool) {
        self.inner.set_enabled(enabled);
        if let (false, Some(slot)) = (enabled, self.slot.get()) {
            slot.stop();
        }
    }

    /// Says what became of a kick, where an error would end the thread that serves the queue.
    fn read_kick(&self) -> io::Result<bool> {
        let result = self.inner.read_kick();
        match &result {
            // The kick was for a ring that was set up anew since. The event that it has now is not
            // readable; but what is available can be served at any time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(self.inner.get_ref().is_enabled());
            }
            Err(error) => {
                tracing::error!(%error, "cannot read a kick; its queue is served no more");
            }
            Ok(_) => {}
        }
        result
    }

    /// The vring below ignores a size that is not a power of two, and keeps the one it had.
    fn set_queue_size(&self, num: u16) {
        self.size.store(num, Ordering::Relaxed);
        self.inner.set_queue_size(num);
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, SharedMemory>>::G {
        self.inner.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, SharedMemory>>::G {
        self.inner.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), QueueError> {
        self.inner.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.inner.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.inner.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.inner.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.inner.needs_notification()
    }

    fn set_queue_info(
        &self,
        desc_table: u64,
        avail_ring: u64,
        used_ring: u64,
    ) -> Result<(), QueueError> {
        self.inner.set_queue_info(desc_table, avail_ring, used_ring)
    }

    fn queue_next_avail(&self) -> u16 {
        self.inner.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.inner.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.inner.set_queue_next_used(idx);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.inner.queue_used_idx()
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.inner.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.inner.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        self.inner.set_kick(file);
    }

    fn set_call(&self, file: Option<File>) {
        self.inner.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        self.inner.set_err(file);
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::Memory;

    fn vring() -> Vring {
        Vring::new(SharedMemory::new(Memory::new()), 1024).unwrap()
    }

    #[test]
    fn a_kick_that_was_taken_back_ends_no_thread() {
        let vring = vring();
        let kick = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        vring.set_kick(Some(kick.try_clone().unwrap()));
        assert!(!vring.read_kick().unwrap());
        vring.set_enabled(true);
        assert!(vring.read_kick().unwrap());
        rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
        assert!(vring.read_kick().unwrap());
        vring.set_kick(Some(File::open("/dev/null").unwrap()));
        vring.read_kick().unwrap_err();
    }

    #[test]
    fn a_size_that_cannot_be_is_not_replaced() {
        let vring = vring();
        vring.set_enabled(true);
        vring.set_queue_ready(true);
        assert_eq!(vring.config(false).unwrap().size, 1024);
        for size in [256, 1000] {
            vring.set_queue_size(size);
            assert_eq!(vring.config(false).unwrap().size, size);
        }
    }

    #[test]
    fn a_vring_that_is_not_up_has_no_config() {
        let vring = vring();
        vring.set_queue_ready(true);
        assert_eq!(vring.config(true), None);
        vring.set_queue_ready(false);
        vring.set_enabled(true);
        assert_eq!(vring.config(true), None);
    }
}
