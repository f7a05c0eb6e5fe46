use std::time::{Duration, Instant};

use crate::memory::{Memory, PAGE};
use crate::queue::Queue;
use crate::ring::{Descriptor, Used};
use crate::{Error, link};

/// A queue without the rules: for posting what no driver would, to see how a device takes it.
///
/// Not to be mixed with requests in flight: chains come back here unchecked. What is broken this
/// way is whole again after [`Connection::reset`](crate::Connection::reset).
#[derive(Debug)]
pub struct RawQueue<'q> {
    queue: &'q mut Queue,
}

impl<'q> RawQueue<'q> {
    pub(crate) const fn new(queue: &'q mut Queue) -> Self {
        Self { queue }
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        self.queue.memory()
    }

    /// The guest-physical address of a page of the pool, which is the caller's until the
    /// connection ends.
    ///
    /// # Errors
    /// [`Error::QueueFull`] where no page is left.
    pub fn take_page(&mut self) -> Result<u64, Error> {
        let page = self.queue.buffers_mut().take_page()?;
        Ok(self.memory().address(page.offset))
    }

    /// Takes a page and fills it from its front with `bytes`, a page at most.
    ///
    /// # Errors
    /// [`Error::QueueFull`] where no page is left.
    pub fn page_with(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        let page = self.take_page()?;
        self.memory().write(page, &bytes[..bytes.len().min(PAGE)]);
        Ok(page)
    }

    /// Posts `descriptors` as one chain in the descriptor table and kicks the device, whether it
    /// wants that or not. [`NEXT`](Descriptor::NEXT) and `next` are filled in; all else stays as
    /// it is. Returns the chain's first descriptor.
    ///
    /// # Errors
    /// [`Error::QueueFull`] where there are not enough free descriptors.
    pub fn post(&mut self, descriptors: &[Descriptor]) -> Result<u16, Error> {
        self.post_with(descriptors.len(), |n, indexes| {
            let mut descriptor = descriptors[n];
            descriptor.flags &= !Descriptor::NEXT;
            if let Some(&next) = indexes.get(n + 1) {
                descriptor.flags |= Descriptor::NEXT;
                descriptor.next = next;
            }
            descriptor
        })
    }

    /// Posts a chain of `len` descriptors, each written by `describe`, which is told its place in
    /// the chain and the indexes of all, and kicks the device: for loops and for links to
    /// nowhere. Returns the chain's first descriptor.
    ///
    /// # Errors
    /// [`Error::QueueFull`] where there are not enough free descriptors.
    pub fn post_with(
        &mut self,
        len: usize,
        describe: impl Fn(usize, &[u16]) -> Descriptor,
    ) -> Result<u16, Error> {
        let ring = self.queue.ring_mut();
        let indexes = ring.take_descriptors(len).ok_or(Error::QueueFull)?;
        let &head = indexes.first().ok_or(Error::RequestTooLong)?;
        for (n, &index) in indexes.iter().enumerate() {
            ring.write_descriptor(index, describe(n, &indexes));
        }
        ring.publish(head);
        self.kick()?;
        Ok(head)
    }

    /// Writes an entry of the descriptor table.
    pub fn write_descriptor(&mut self, index: u16, descriptor: Descriptor) {
        self.queue.ring().write_descriptor(index, descriptor);
    }

    /// Writes entry `slot`, modulo the queue's size, of the available ring.
    pub fn write_available_entry(&mut self, slot: u16, head: u16) {
        self.queue.ring().write_available_entry(slot, head);
    }

    /// Writes the index of the available ring. The driver's own idea of it stays as it is.
    pub fn write_available_index(&mut self, index: u16) {
        self.queue.ring().write_available_index(index);
    }

    /// The index that the available ring should have.
    #[must_use]
    pub const fn available_index(&self) -> u16 {
        self.queue.ring().next_available()
    }

    /// The index of the used ring.
    #[must_use]
    pub fn used_index(&self) -> u16 {
        self.queue.ring().used_index()
    }

    /// Kicks the device.
    ///
    /// # Errors
    /// The eventfd cannot be written.
    pub fn kick(&mut self) -> Result<(), Error> {
        link::signal(&self.queue.events().kick)
    }

    /// Waits until the device used a chain, for `limit` at most, and takes its entry of the used
    /// ring as it is. None at the time-out.
    ///
    /// # Errors
    /// [`Error::Disconnected`]; [`ProtocolError::VringError`](crate::ProtocolError::VringError) where
    /// the device says that the ring is broken.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<Used>, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(used) = self.take_used() {
                return Ok(Some(used));
            }
            let events = self.queue.events();
            let left = deadline.saturating_duration_since(Instant::now());
            let link = self.queue.link();
            if link.wait_for_call(&events.call, &events.error, left)? == 0 {
                return Ok(self.take_used());
            }
        }
    }

    fn take_used(&mut self) -> Option<Used> {
        let ring = self.queue.ring_mut();
        let used = ring.pop_raw()?;
        ring.free_chain(used.id);
        // Each chain is to interrupt, those of later requests that are not raw too.
        ring.enable_interrupts();
        Some(used)
    }
}
