use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fuse_wire::abi::InHeader;
use fuse_wire::flags::InitFlags;
use fuse_wire::{Extensions, MAX_ARGUMENTS, NodeId, Operation, Request};
use vmm_sys_util::eventfd::EventFd;

use crate::buffers::Buffers;
use crate::completion::{Completion, Outcome};
use crate::link::{self, Link};
use crate::memory::Memory;
use crate::pages::PageReuse;
use crate::raw::RawQueue;
use crate::ring::Ring;
use crate::{Error, ProtocolError};

/// Names a request in flight on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    slot: u16,
    unique: u64,
}

impl Token {
    /// A number below the queue's size that no other request in flight on the queue has: an index
    /// for the caller's own table.
    #[must_use]
    pub const fn slot(self) -> u16 {
        self.slot
    }

    /// `in_header.unique`: what an INTERRUPT would name.
    #[must_use]
    pub const fn unique(self) -> u64 {
        self.unique
    }
}

/// The process in the guest that a request is for (`in_header.uid`, `gid`, `pid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id.
    pub pid: u32,
}

/// How often the two sides of a queue woke each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notifications {
    /// Kicks that the driver sent.
    pub kicks: u64,
    /// Calls that the device sent, as far as the driver has seen them.
    pub calls: u64,
}

/// The data behind the arguments of WRITE and NOTIFY_REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// There is none.
    None,
    /// Copied to pages of the pool.
    Copied(&'a [u8]),
    /// So many bytes, whatever the pages of the pool hold from before: for benchmarks, where a
    /// copy is none of the device's work.
    Stale(usize),
}

/// One virtqueue and the requests on it: many in flight, one thread.
///
/// [`submit`](Self::submit) puts a request on the ring and kicks the device where it asks for it;
/// [`wait`](Self::wait) and [`poll`](Self::poll) hand out completions in the order in which the
/// device used them. In steady state nothing is allocated.
pub struct Queue {
    ring: Ring,
    memory: Arc<Memory>,
    buffers: Buffers,
    events: Events,
    link: Arc<Link>,
    uniques: Arc<AtomicU64>,
    caller: Caller,
    agreed: InitFlags,
    interrupt_delay: Duration,
    timeout: Duration,
    /// An interrupt came, and the used ring has not been seen empty since.
    draining: bool,
    in_flight: usize,
    notifications: Notifications,
    /// The rule that the device broke for good.
    broken: Option<ProtocolError>,
    /// Scratch for a request.
    message: Box<[u8]>,
    /// Scratch for a reply.
    reply: Vec<u8>,
}

/// The eventfds of a vring.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) error: EventFd,
}

/// `FUSE_REQ_ID_STEP`: odd numbers name interrupts.
const UNIQUE_STEP: u64 = 2;

/// What the queues of a device share, and how each is set up.
#[derive(Debug, Clone)]
pub(crate) struct QueueContext {
    pub(crate) memory: Arc<Memory>,
    pub(crate) link: Arc<Link>,
    pub(crate) uniques: Arc<AtomicU64>,
    pub(crate) interrupt_delay: Duration,
    pub(crate) timeout: Duration,
}

impl Queue {
    pub(crate) fn new(context: QueueContext, ring: Ring, buffers: Buffers, events: Events) -> Self {
        Self {
            ring,
            memory: context.memory,
            buffers,
            events,
            link: context.link,
            uniques: context.uniques,
            caller: Caller::default(),
            agreed: InitFlags::empty(),
            interrupt_delay: context.interrupt_delay,
            timeout: context.timeout,
            draining: false,
            in_flight: 0,
            notifications: Notifications::default(),
            broken: None,
            message: vec![0; MAX_ARGUMENTS].into(),
            reply: Vec::new(),
        }
    }

    /// Descriptors of the ring.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Requests that were submitted and whose completion has not been taken.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Kicks and calls since the connection was made, those of [`raw`](Self::raw) left out.
    #[must_use]
    pub const fn notifications(&self) -> Notifications {
        self.notifications
    }

    /// Sets for whom the requests from now on are; the default is root, process 0.
    pub const fn set_caller(&mut self, caller: Caller) {
        self.caller = caller;
    }

    /// Sets what INIT agreed on: it decides the form of some requests.
    pub const fn set_agreed(&mut self, agreed: InitFlags) {
        self.agreed = agreed;
    }

    /// Sets which free pages of the data memory are used first, from now on.
    pub const fn set_page_reuse(&mut self, reuse: PageReuse) {
        self.buffers.set_page_reuse(reuse);
    }

    /// Sets how long [`wait`](Self::wait) waits.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Puts a request for `node` on the ring.
    ///
    /// The room for the reply is what Linux would give: the size of the reply, or the size that
    /// the request asks for, in pages for data.
    ///
    /// # Errors
    /// [`Error::QueueFull`] where completions must be taken first, [`Error::RequestTooLong`] where
    /// no chain is long enough, [`Error::Encode`] where the arguments disagree.
    pub fn submit(
        &mut self,
        node: NodeId,
        operation: Operation<'_>,
        payload: Payload<'_>,
    ) -> Result<Token, Error> {
        self.submit_with(node, operation, Extensions::default(), payload)
    }

    /// As [`submit`](Self::submit), with extensions behind the arguments of a creating operation.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_with(
        &mut self,
        node: NodeId,
        operation: Operation<'_>,
        extensions: Extensions<'_>,
        payload: Payload<'_>,
    ) -> Result<Token, Error> {
        self.check()?;
        let slot = self.ring.next_head().ok_or(Error::QueueFull)?;
        let unique = self.uniques.fetch_add(UNIQUE_STEP, Ordering::Relaxed);
        let request = Request {
            header: InHeader {
                unique,
                nodeid: node,
                uid: self.caller.uid,
                gid: self.caller.gid,
                pid: self.caller.pid,
                ..InHeader::default()
            },
            operation,
            extensions,
        };
        let len = request.encode(payload.len(), self.agreed, &mut self.message)?;
        let message = &self.message[..len];
        let buffers = &mut self.buffers;
        let added = buffers
            .lay_out(slot, &request, message, payload)
            .and_then(|chain| self.ring.add(chain.segments, chain.writable_from));
        if let Err(e) = added {
            self.buffers.release(slot);
            return Err(e);
        }
        self.in_flight += 1;
        self.kick_if_wanted()?;
        Ok(Token { slot, unique })
    }

    fn kick_if_wanted(&mut self) -> Result<(), Error> {
        if self.ring.must_kick() {
            link::signal(&self.events.kick)?;
            self.notifications.kicks += 1;
        }
        Ok(())
    }

    /// Waits for the next completion as Linux does: for an interrupt, after which the used ring is
    /// drained without waiting, until it is found empty and interrupts are asked for again.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Disconnected`], or [`Error::Protocol`] where the ring itself is
    /// broken. What went wrong with a single request, is told by its completion.
    pub fn wait(&mut self) -> Result<Completion<'_>, Error> {
        let deadline = Instant::now() + self.timeout;
        loop {
            self.check()?;
            if let Some((head, used)) = self.next_used()? {
                return Ok(self.complete(head, used));
            }
            self.wait_for_interrupt(deadline)?;
        }
    }

    /// The next completion, if there is one.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), but never a time-out.
    pub fn poll(&mut self) -> Result<Option<Completion<'_>>, Error> {
        self.check()?;
        if !self.draining {
            self.take_calls(link::clear(&self.events.call));
        }
        let next = self.next_used()?;
        Ok(next.map(|(head, used)| self.complete(head, used)))
    }

    /// Submits a request and waits for its completion.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`wait`](Self::wait); [`Error::Busy`] where other requests
    /// are in flight, whose completions would be lost.
    pub fn call(
        &mut self,
        node: NodeId,
        operation: Operation<'_>,
        payload: Payload<'_>,
    ) -> Result<Completion<'_>, Error> {
        if self.in_flight > 0 {
            return Err(Error::Busy);
        }
        self.submit(node, operation, payload)?;
        self.wait()
    }

    /// The ring itself, for posting what no driver would.
    pub fn raw(&mut self) -> RawQueue<'_> {
        self.draining = false;
        self.ring.enable_interrupts();
        RawQueue::new(self)
    }

    fn check(&self) -> Result<(), Error> {
        self.broken.map_or(Ok(()), |rule| Err(rule.into()))
    }

    fn wait_for_interrupt(&mut self, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Events { call, error, .. } = &self.events;
        let calls = self.link.wait_for_call(call, error, left)?;
        if calls > 0 {
            self.take_calls(calls);
            Ok(())
        } else if self.ring.is_idle() {
            Err(Error::Timeout {
                doing: "answering a request",
                limit: self.timeout,
            })
        } else {
            Err(ProtocolError::MissingInterrupt.into())
        }
    }

    /// Does what Linux does at an interrupt, where there were `calls` since the last.
    fn take_calls(&mut self, calls: u64) {
        if calls == 0 {
            return;
        }
        self.notifications.calls += calls;
        let until = Instant::now() + self.interrupt_delay;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        self.ring.disable_interrupts();
        self.draining = true;
    }

    fn next_used(&mut self) -> Result<Option<(u16, u32)>, Error> {
        while self.draining {
            match self.ring.pop() {
                Ok(Some(used)) => return Ok(Some(used)),
                Ok(None) => self.draining = !self.ring.enable_interrupts(),
                Err(rule) => {
                    self.broken = Some(rule);
                    return Err(rule.into());
                }
            }
        }
        Ok(None)
    }

    fn complete(&mut self, head: u16, used: u32) -> Completion<'_> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let outcome = self
            .buffers
            .check(head, used)
            .unwrap_or_else(Outcome::Protocol);
        let token = Token {
            slot: head,
            unique: self.buffers.unique(head),
        };
        Completion::new(self, token, outcome)
    }

    pub(crate) const fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub(crate) const fn buffers_mut(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) const fn reply_scratch(&mut self) -> &mut Vec<u8> {
        &mut self.reply
    }

    pub(crate) const fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(crate) const fn ring_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }

    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The connection is another one from now on.
    pub(crate) fn set_link(&mut self, link: Arc<Link>) {
        self.link = link;
    }

    /// Back to the state after a device reset: what was in flight is forgotten.
    pub(crate) fn reset(&mut self) {
        for slot in 0..self.ring.size() {
            self.buffers.release(slot);
        }
        self.ring.reset();
        link::clear(&self.events.call);
        link::clear(&self.events.kick);
        link::clear(&self.events.error);
        self.draining = false;
        self.in_flight = 0;
        self.broken = None;
        self.agreed = InitFlags::empty();
    }
}

impl Payload<'_> {
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Copied(data) => data.len(),
            Self::Stale(len) => *len,
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("size", &self.size())
            .field("in_flight", &self.in_flight)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
