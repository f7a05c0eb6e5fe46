//! Moving much data on several processors at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fuse_wire::Opcode;
use fuse_wire::abi::InHeader;
use vm_memory::GuestMemoryRegion;
use zerocopy::FromBytes;

use crate::chain::Chain;

/// Bytes of a reply from which on it pays to have another thread fetch them: to copy them takes some
/// 20 us at least, and a few to wake a thread up.
const LARGE: usize = 128 * 1024;

/// Whether the request is a READ of so much that another thread may serve it while the queue goes on
/// to the next one.
///
/// Only a READ: the host's filesystems have writes to one file wait for each other.
pub(crate) fn is_large_read<R: GuestMemoryRegion>(message: &[u8], chain: &Chain<'_, R>) -> bool {
    chain.writable().remaining() >= LARGE
        && InHeader::read_from_prefix(message)
            .is_ok_and(|(header, _)| header.opcode == Opcode::Read as u32)
}

/// Limits how many threads of a pool move data beside those of the queues.
#[derive(Debug)]
pub(crate) struct Helpers {
    most: usize,
    now: Arc<AtomicUsize>,
}

impl Helpers {
    /// One for each of so many processors but one, and no more than there can be threads.
    pub(crate) fn on(processors: usize, max_threads: usize) -> Self {
        Self {
            most: processors.saturating_sub(1).min(max_threads),
            now: Arc::default(),
        }
    }

    /// Leave for one more, where there are not enough yet.
    pub(crate) fn begin(&self) -> Option<Help> {
        let more = |now: usize| (now < self.most).then(|| now.saturating_add(1));
        self.now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Help(Arc::clone(&self.now)))
    }
}

/// One thread helps, until this is dropped.
#[derive(Debug)]
pub(crate) struct Help(Arc<AtomicUsize>);

impl Drop for Help {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
