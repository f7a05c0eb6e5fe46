use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use vm_memory::GuestAddress;

/// Learns what a queue writes to the guest's memory: replies, and its part of the ring. For a device
/// whose guest is moved while it runs; a memory that keeps a [`Bitmap`](vm_memory::bitmap::Bitmap) of
/// its own notes that there, too.
pub trait WriteLog: Send + Sync {
    /// `len` bytes at `address` were written to just now. The driver knows of it later, if it does.
    ///
    /// Called for each reply and more, from the thread that drains and from the pool's.
    fn wrote(&self, address: GuestAddress, len: usize);

    /// What says whether to call [`wrote`](Self::wrote), where that is not always wanted. It is asked
    /// for once, when a queue is started, and looked at after each write, which costs next to
    /// nothing while it is false.
    ///
    /// There is no fence between the two. Who sets it knows all that is written from when all threads
    /// that serve queues have executed one (membarrier(2)).
    fn switch(&self) -> Option<Arc<AtomicBool>> {
        None
    }
}

/// A log and its switch.
pub(crate) struct Log {
    on: Arc<AtomicBool>,
    log: Arc<dyn WriteLog>,
}

impl Log {
    pub(crate) fn new(log: Arc<dyn WriteLog>) -> Self {
        Self {
            on: log.switch().unwrap_or_else(|| Arc::new(true.into())),
            log,
        }
    }

    /// The log, if it is to be told what was written before this is called.
    #[inline]
    pub(crate) fn if_on(&self) -> Option<&dyn WriteLog> {
        compiler_fence(Ordering::SeqCst);
        self.on.load(Ordering::Relaxed).then_some(&*self.log)
    }
}
