use std::sync::Arc;

use fuse_fs::Blocking;
use fuse_wire::Errno;
use vm_memory::{GuestAddressSpace, GuestMemoryBackend, GuestMemoryRegion};

use crate::chain::Chain;
use crate::help::Help;
use crate::pool::Job;
use crate::queue::Shared;
use crate::request::Served;
use crate::ring::UsedElement;
use crate::segment::Range;
use crate::storage::Storage;
use crate::used::Batch;
use crate::{ChainError, GuestSpace, RingError};

/// What guest memory consists of.
type RegionOf<AS> = <<AS as GuestAddressSpace>::M as GuestMemoryBackend>::R;

/// A request that has to wait, or that takes long, on its way to a thread of the pool.
///
/// It keeps where its buffers are in the guest, not where these are mapped: the memory map may
/// change before its turn comes.
pub(crate) struct Offloaded<AS: GuestSpace> {
    shared: Arc<Shared<AS>>,
    head: u16,
    /// Whether the driver may have the chain back already.
    given_back: bool,
    message: Vec<u8>,
    readable: Vec<Range>,
    writable: Vec<Range>,
    /// Where it need not wait, but is served beside others.
    _help: Option<Help>,
}

impl<AS: GuestSpace> Offloaded<AS> {
    /// From here on the request counts as in flight, until it is dropped.
    pub(crate) fn new<R: GuestMemoryRegion>(
        shared: &Arc<Shared<AS>>,
        head: u16,
        message: &[u8],
        chain: &Chain<'_, R>,
    ) -> Self {
        shared.in_flight.begin();
        Self {
            shared: Arc::clone(shared),
            head,
            given_back: false,
            message: message.to_vec(),
            readable: chain.readable().ranges().collect(),
            writable: chain.writable().ranges().collect(),
            _help: None,
        }
    }

    /// It is served beside others as long as `help` lasts.
    pub(crate) fn with_help(mut self, help: Help) -> Self {
        self._help = Some(help);
        self
    }

    /// Answers that it cannot wait for a lock.
    pub(crate) fn refuse(mut self) {
        let refused = self.complete(|this, chain| {
            let server = this.shared.server();
            server.fail(chain, &this.message, Errno::ENOLCK)
        });
        if let Err(error) = refused {
            self.shared.break_ring(&error);
        }
    }

    /// Gives the chain back, with a reply of as many bytes as `answer` has put there.
    fn complete(
        &mut self,
        answer: impl FnOnce(&Self, &Chain<'_, RegionOf<AS>>) -> u32,
    ) -> Result<(), RingError> {
        let shared = &*Arc::clone(&self.shared);
        let memory = shared.resources.memory.memory();
        let ring = shared.find_ring(&*memory)?;
        let mut chain = Chain::new(Storage::default());
        let len = match chain.restore(&*memory, &self.readable, &self.writable) {
            Some(()) => answer(self, &chain),
            None => {
                shared.resources.stats.malformed(&ChainError::Unmapped);
                0
            }
        };
        let mut batch = Batch::default();
        let head = self.head;
        batch.push(UsedElement { head, len }, 0, || 0);
        self.note_given_back();
        if shared.used.give_back(&ring, &mut batch)? {
            shared.interrupt();
        }
        Ok(())
    }

    fn note_given_back(&mut self) {
        if !std::mem::replace(&mut self.given_back, true) {
            self.shared.in_flight.give_back();
        }
    }

    fn serve<R: GuestMemoryRegion>(&self, chain: &Chain<'_, R>, reply: &mut [u8]) -> u32 {
        let server = self.shared.server();
        match server.serve(chain, &self.message, reply, Blocking::Allowed) {
            Served::Done(len) => len,
            // `Serve` does not do that where waiting is allowed; if it does, nobody can help.
            Served::WouldBlock | Served::WouldWait => server.fail(chain, &self.message, Errno::EIO),
        }
    }
}

impl<AS: GuestSpace> Job for Offloaded<AS> {
    fn size(&self) -> usize {
        let ranges = self.readable.len().saturating_add(self.writable.len());
        let ranges = ranges.saturating_mul(size_of::<Range>());
        self.message
            .len()
            .saturating_add(ranges)
            .saturating_add(size_of::<Self>())
    }

    fn run(mut self: Box<Self>, reply: &mut [u8]) {
        if let Err(error) = self.complete(|this, chain| this.serve(chain, reply)) {
            self.shared.break_ring(&error);
        }
    }
}

impl<AS: GuestSpace> Drop for Offloaded<AS> {
    fn drop(&mut self) {
        self.note_given_back();
        self.shared.in_flight.end();
    }
}
