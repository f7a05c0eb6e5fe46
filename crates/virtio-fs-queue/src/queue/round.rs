use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuse_fs::Blocking;
use fuse_wire::Errno;
use vm_memory::GuestMemoryBackend;
use vm_memory::bitmap::MS;

use super::{AvailEnd, Drained, Shared};
use crate::chain::Chain;
use crate::help::{self, Help};
use crate::offload::Offloaded;
use crate::poll::Polled;
use crate::record::Notes;
use crate::request::{Served, copy_message};
use crate::ring::{Ring, UsedElement};
use crate::split::Readers;
use crate::used::Batch;
use crate::{ChainError, GuestSpace, Resources, RingError};

/// Rounds of a drain: as long as they last, the memory map is held as it was.
pub(super) struct Round<'d, 'm, AS, M: GuestMemoryBackend> {
    pub(super) shared: &'d Arc<Shared<AS>>,
    pub(super) stopping: &'d AtomicBool,
    pub(super) memory: &'m M,
    pub(super) ring: Ring<'m, MS<'m, M>>,
    pub(super) chain: &'d mut Chain<'m, M::R>,
    pub(super) batch: &'d mut Batch,
}

impl<AS: GuestSpace, M: GuestMemoryBackend> Round<'_, '_, AS, M> {
    /// Serves the next `available` chains. Returns how many there are behind them, or why there is
    /// nothing to do.
    ///
    /// # Errors
    /// The driver broke the ring. What was served before that is left to be given back.
    pub(super) fn run(
        &mut self,
        avail: &mut AvailEnd,
        available: u16,
    ) -> Result<ControlFlow<Drained, u16>, RingError> {
        if available == 0 {
            self.ring.suppress_kicks()?;
        }
        if avail.notes.is_some() {
            self.shared.used.settle();
            self.serve_unfinished(avail)?;
        }
        for behind in (0..available).rev() {
            if self.has_to_end() {
                break;
            }
            self.serve_next(avail, behind > 0)?;
        }
        let pending = self.ring.pending(avail.next_avail)?;
        if pending > 0 && !self.has_to_end() {
            return Ok(ControlFlow::Continue(pending));
        }
        self.give_back()?;
        let pending = self.poll(avail)?;
        if pending > 0 {
            return Ok(ControlFlow::Continue(pending));
        }
        let pending = self.ring.await_kick(avail.next_avail)?;
        if self.stopping.load(Ordering::SeqCst) {
            return Ok(ControlFlow::Break(Drained::Stopped));
        }
        if self.shared.broken.load(Ordering::Relaxed) {
            return Ok(ControlFlow::Break(Drained::Broken));
        }
        if pending == 0 {
            return Ok(ControlFlow::Break(Drained::Idle));
        }
        self.ring.suppress_kicks()?;
        Ok(ControlFlow::Continue(pending))
    }

    /// Looks out for more while the driver is still asked not to kick, where that is worth it, and
    /// returns how many chains are available.
    ///
    /// All that has been served was given back, so the driver waits for nothing meanwhile.
    fn poll(&self, avail: &mut AvailEnd) -> Result<u16, RingError> {
        if std::mem::take(&mut avail.offloaded) {
            return Ok(0);
        }
        let next_avail = avail.next_avail;
        let Resources { polling, stats, .. } = &self.shared.resources;
        let polled = avail.poller.poll(polling, || {
            if self.has_to_end() {
                return Some(Ok(0));
            }
            match self.ring.pending(next_avail) {
                Ok(0) => None,
                pending => Some(pending),
            }
        });
        match polled {
            Polled::Found(pending) => {
                // That the queue has to end is no result.
                if matches!(pending, Ok(1..)) {
                    stats.count_poll_with_result();
                }
                pending
            }
            Polled::Nothing => {
                stats.count_poll_in_vain();
                Ok(0)
            }
            Polled::Skipped => Ok(0),
        }
    }

    fn has_to_end(&self) -> bool {
        self.stopping.load(Ordering::SeqCst) || self.shared.broken.load(Ordering::Relaxed)
    }

    /// Serves what was in flight before the start. All of it, as it counts as taken.
    fn serve_unfinished(&mut self, avail: &mut AvailEnd) -> Result<(), RingError> {
        while let Some(head) = avail.notes.as_mut().and_then(Notes::next_unfinished) {
            self.serve_chain(avail, head, false)?;
        }
        Ok(())
    }

    /// Takes the next chain, of which there is one, and serves it; there may be `more` behind it.
    fn serve_next(&mut self, avail: &mut AvailEnd, more: bool) -> Result<(), RingError> {
        let head = self.ring.head(avail.next_avail)?;
        avail.next_avail = avail.next_avail.wrapping_add(1);
        if let Some(notes) = &mut avail.notes {
            notes.take(head);
        }
        self.serve_chain(avail, head, more)
    }

    /// Serves the chain at `head`, which counts as taken.
    fn serve_chain(
        &mut self,
        avail: &mut AvailEnd,
        head: u16,
        more: bool,
    ) -> Result<(), RingError> {
        let stats = &self.shared.resources.stats;
        stats.count_chain();
        if let Err(error) = self.chain.walk(self.memory, &self.ring, head) {
            stats.malformed(&error);
            let len = self.refuse(&error, &mut avail.message);
            return self.done(avail, UsedElement { head, len }, 0);
        }
        copy_message(self.chain, &mut avail.message);
        let AvailEnd {
            message,
            reply,
            together,
            offloaded,
            ..
        } = avail;
        if more
            && help::is_large_read(message, self.chain)
            && let Some(help) = self.shared.resources.pool.help()
            && self.share(head, message, help)?
        {
            *offloaded = true;
            return Ok(());
        }
        let mut server = self.shared.server();
        // Where there is more to do, others help with that.
        server.readers = (!more).then_some(Readers {
            pool: &self.shared.resources.pool,
            together,
        });
        let served = server.serve(self.chain, message, reply, Blocking::Forbidden);
        match served {
            Served::Done(len) => {
                let taken = self.chain.readable().remaining();
                self.done(avail, UsedElement { head, len }, taken)
            }
            Served::WouldBlock => {
                *offloaded = true;
                self.offload(head, message, reply)
            }
            Served::WouldWait => self.offload_wait(head, message),
        }
    }

    /// Answers what is in the chain of a request whose data is not in memory, and returns the length of
    /// the answer. Other chains with an error come from no driver that behaves.
    fn refuse(&self, error: &ChainError, message: &mut Vec<u8>) -> u32 {
        match error {
            ChainError::Outside { .. } => {
                copy_message(self.chain, message);
                self.shared
                    .server()
                    .fail(self.chain, message, Errno::EFAULT)
            }
            _ => 0,
        }
    }

    /// Has the request served where it may wait.
    fn offload(&mut self, head: u16, message: &[u8], reply: &mut [u8]) -> Result<(), RingError> {
        let request = self.set_aside(head, message)?;
        self.shared.resources.stats.count_offloaded();
        if let Err(request) = self.shared.resources.pool.submit(Box::new(request)) {
            request.run(reply);
        }
        Ok(())
    }

    /// Has the request served by another thread, while this one goes on, if there is one that begins
    /// at once.
    fn share(&mut self, head: u16, message: &[u8], help: Help) -> Result<bool, RingError> {
        let request = self.set_aside(head, message)?.with_help(help);
        let pool = &self.shared.resources.pool;
        let shared = pool.submit_now(Box::new(request)).is_ok();
        if shared {
            self.shared.resources.stats.count_offloaded();
        }
        Ok(shared)
    }

    /// Has the request served where it may wait for ever.
    fn offload_wait(&mut self, head: u16, message: &[u8]) -> Result<(), RingError> {
        let request = self.set_aside(head, message)?;
        self.shared.resources.stats.count_offloaded();
        if let Err(request) = self.shared.resources.pool.submit_wait(request) {
            request.refuse();
        }
        Ok(())
    }

    /// From here on the request counts as in flight.
    fn set_aside(&mut self, head: u16, message: &[u8]) -> Result<Offloaded<AS>, RingError> {
        let size = self.shared.config.size;
        if self.shared.in_flight.chains() >= usize::from(size) {
            return Err(RingError::TooManyInFlight { size });
        }
        // What is done need not wait for this one.
        self.give_back()?;
        Ok(Offloaded::new(self.shared, head, message, self.chain))
    }

    /// A chain was served of which so many bytes were `taken`.
    fn done(
        &mut self,
        avail: &AvailEnd,
        element: UsedElement,
        taken: usize,
    ) -> Result<(), RingError> {
        // What is wrong with the ring is seen again when its next chains are taken.
        let left = || self.ring.pending(avail.next_avail).unwrap_or(0);
        if self.batch.push(element, taken, left) {
            self.give_back()?;
        }
        Ok(())
    }

    pub(super) fn give_back(&mut self) -> Result<(), RingError> {
        if self.shared.used.give_back(&self.ring, self.batch)? {
            self.shared.interrupt();
        }
        Ok(())
    }
}
