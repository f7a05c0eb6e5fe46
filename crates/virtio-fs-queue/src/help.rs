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
    /// Threads of queues that move much data themselves.
    large: AtomicUsize,
}

impl Helpers {
    /// One for each of so many processors but one, and no more than there can be threads.
    pub(crate) fn on(processors: usize, max_threads: usize) -> Self {
        Self {
            most: processors.saturating_sub(1).min(max_threads),
            now: Arc::default(),
            large: AtomicUsize::new(0),
        }
    }

    /// Leave for one more, where there are not enough yet.
    pub(crate) fn begin(&self) -> Option<Help> {
        self.begin_up_to(self.most)
    }

    /// The thread of a queue moves much data itself, until this is dropped.
    pub(crate) fn begin_large(&self) -> Large<'_> {
        self.large.fetch_add(1, Ordering::Relaxed);
        Large(self)
    }

    fn begin_up_to(&self, most: usize) -> Option<Help> {
        let more = |now: usize| (now < most).then(|| now.saturating_add(1));
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

/// The thread of a queue moves much data, until this is dropped.
#[derive(Debug)]
pub(crate) struct Large<'h>(&'h Helpers);

impl Large<'_> {
    /// Leave for a thread that does so with it, where the other queues leave a processor for that.
    pub(crate) fn help(&self) -> Option<Help> {
        let Self(helpers) = self;
        let others = helpers.large.load(Ordering::Relaxed).saturating_sub(1);
        helpers.begin_up_to(helpers.most.saturating_sub(others))
    }
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        self.0.large.fetch_sub(1, Ordering::Relaxed);
    }
}
