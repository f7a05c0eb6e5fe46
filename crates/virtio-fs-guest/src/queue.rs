use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fuse_wire::abi::{InHeader, OutHeader};
use fuse_wire::flags::InitFlags;
use fuse_wire::{Extensions, MAX_ARGUMENTS, NodeId, Operation, ReplyError, ReplyForm, Request};
use vmm_sys_util::eventfd::EventFd;

use crate::completion::{Completion, Outcome};
use crate::link::{self, Link};
use crate::memory::{Memory, PAGE, Segment};
use crate::pages::PagePool;
use crate::raw::RawQueue;
use crate::ring::Ring;
use crate::room::Room;
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
    pages: PagePool,
    slots: Box<[Slot]>,
    /// Offset of the first slot's buffer.
    buffers: usize,
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
    /// The rule that the device broke for good.
    broken: Option<ProtocolError>,
    /// Scratch for a chain.
    segments: Vec<Segment>,
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

/// A request in flight; its number is that of the chain's first descriptor.
#[derive(Debug)]
struct Slot {
    unique: u64,
    /// What the reply looks like. None where there will be none.
    form: Option<ReplyForm>,
    room: Room,
    /// Where the body of the reply goes.
    body: Vec<Segment>,
    /// Pages that hold arguments or payload.
    readable: Vec<Segment>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            unique: 0,
            form: None,
            room: Room::NONE,
            body: Vec::new(),
            readable: Vec::new(),
        }
    }
}

/// Buffer of a slot: the request from the front on, the reply from here on.
const REPLY_OFFSET: usize = 3584;
const SLOT: usize = PAGE;
const IN_HEADER: usize = size_of::<InHeader>();
const OUT_HEADER: usize = size_of::<OutHeader>();
/// Longest body of a reply in a slot; beyond, it goes to pages.
const REPLY_ROOM: usize = SLOT - REPLY_OFFSET - OUT_HEADER;
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
    /// Bytes of memory that the buffers of a queue of `size` need.
    pub(crate) const fn buffers_len(size: u16) -> usize {
        size as usize * SLOT
    }

    pub(crate) fn new(
        context: QueueContext,
        ring: Ring,
        buffers: usize,
        pages: PagePool,
        events: Events,
    ) -> Self {
        Self {
            slots: (0..ring.size()).map(|_| Slot::new()).collect(),
            ring,
            memory: context.memory,
            pages,
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
            broken: None,
            segments: Vec::new(),
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

    /// Sets for whom the requests from now on are; the default is root, process 0.
    pub const fn set_caller(&mut self, caller: Caller) {
        self.caller = caller;
    }

    /// Sets what INIT agreed on: it decides the form of some requests.
    pub const fn set_agreed(&mut self, agreed: InitFlags) {
        self.agreed = agreed;
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
        self.describe(slot, unique, &operation);
        match self
            .lay_out(slot, len, payload)
            .and_then(|writable_from| self.ring.add(&self.segments, writable_from))
        {
            Ok(_) => {}
            Err(e) => {
                self.release(slot);
                return Err(e);
            }
        }
        self.in_flight += 1;
        self.kick_if_wanted()?;
        Ok(Token { slot, unique })
    }

    fn describe(&mut self, slot: u16, unique: u64, operation: &Operation<'_>) {
        let slot = &mut self.slots[usize::from(slot)];
        slot.unique = unique;
        slot.form = operation.reply_form();
        slot.room = slot
            .form
            .map_or(Room::NONE, |form| Room::of(operation.opcode(), form));
    }

    /// Puts the first `len` bytes of the message and the payload into the memory, and describes
    /// the chain in `segments`. Returns where its writable part begins.
    fn lay_out(&mut self, slot: u16, len: usize, payload: Payload<'_>) -> Result<usize, Error> {
        let buffer = self.buffer(slot);
        let slot = &mut self.slots[usize::from(slot)];
        let expects_reply = slot.form.is_some();
        self.segments.clear();
        let (header, arguments) = self.message[..len].split_at(IN_HEADER);
        self.memory.put(buffer, header);
        if len <= REPLY_OFFSET {
            self.memory.put(buffer + IN_HEADER, arguments);
            let split = if expects_reply { IN_HEADER } else { len };
            push(&mut self.segments, buffer, split);
            push(&mut self.segments, buffer + split, len - split);
        } else {
            push(&mut self.segments, buffer, IN_HEADER);
            take_pages(&mut self.pages, arguments.len(), &mut slot.readable)?;
            scatter(&self.memory, &slot.readable, arguments);
            self.segments.extend_from_slice(&slot.readable);
        }
        let before_payload = slot.readable.len();
        take_pages(&mut self.pages, payload.len(), &mut slot.readable)?;
        let pages = &slot.readable[before_payload..];
        if let Payload::Copied(data) = payload {
            scatter(&self.memory, pages, data);
        }
        self.segments.extend_from_slice(pages);

        let writable_from = self.segments.len();
        if expects_reply {
            let reply = buffer + REPLY_OFFSET;
            push(&mut self.segments, reply, OUT_HEADER);
            if slot.room.arguments > REPLY_ROOM {
                take_pages(&mut self.pages, slot.room.arguments, &mut slot.body)?;
            } else {
                push(&mut slot.body, reply + OUT_HEADER, slot.room.arguments);
            }
            take_pages(&mut self.pages, slot.room.pages, &mut slot.body)?;
            self.segments.extend_from_slice(&slot.body);
        }
        Ok(writable_from)
    }

    fn kick_if_wanted(&mut self) -> Result<(), Error> {
        if self.ring.must_kick() {
            link::signal(&self.events.kick)?;
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
        if !self.draining && link::clear(&self.events.call) {
            self.begin_draining();
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
    pub const fn raw(&mut self) -> RawQueue<'_> {
        RawQueue::new(self)
    }

    fn check(&self) -> Result<(), Error> {
        self.broken.map_or(Ok(()), |rule| Err(rule.into()))
    }

    fn wait_for_interrupt(&mut self, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Events { call, error, .. } = &self.events;
        if self.link.wait_for_call(call, error, left)? {
            self.begin_draining();
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

    fn begin_draining(&mut self) {
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
        let outcome = self.outcome(head, used).unwrap_or_else(Outcome::Protocol);
        let slot = &self.slots[usize::from(head)];
        let token = Token {
            slot: head,
            unique: slot.unique,
        };
        Completion::new(self, token, outcome)
    }

    /// Checks a reply as Linux 7.1 does, and a little more.
    fn outcome(&self, head: u16, used: u32) -> Result<Outcome, ProtocolError> {
        let slot = &self.slots[usize::from(head)];
        let room = slot.form.map_or(0, |_| OUT_HEADER + slot.room.total()) as u32;
        if used > room {
            return Err(ProtocolError::UsedLength { used, room });
        }
        let used = used as usize;
        if slot.form.is_none() {
            return Ok(Outcome::Body(0));
        }
        let mut header = [0; OUT_HEADER];
        let written = &mut header[..used.min(OUT_HEADER)];
        self.memory.fetch(self.buffer(head) + REPLY_OFFSET, written);
        let header = OutHeader::decode(written, used)?;
        if header.unique != slot.unique {
            return Err(ProtocolError::Unique {
                expected: slot.unique,
                found: header.unique,
            });
        }
        match header.result() {
            Err(errno) => Ok(Outcome::Errno(errno)),
            Ok(()) if used - OUT_HEADER < slot.room.least => Err(ReplyError::Truncated.into()),
            Ok(()) => Ok(Outcome::Body(used - OUT_HEADER)),
        }
    }

    /// Frees the buffers of a slot whose chain is no longer in flight.
    pub(crate) fn release(&mut self, slot: u16) {
        let slot = &mut self.slots[usize::from(slot)];
        self.pages.give_back(&slot.body);
        self.pages.give_back(&slot.readable);
        slot.body.clear();
        slot.readable.clear();
    }

    const fn buffer(&self, slot: u16) -> usize {
        self.buffers + slot as usize * SLOT
    }

    /// Where the body of the reply to `token` lies.
    pub(crate) fn body(&self, token: Token) -> &[Segment] {
        &self.slots[usize::from(token.slot)].body
    }

    pub(crate) fn reply_form(&self, token: Token) -> Option<ReplyForm> {
        self.slots[usize::from(token.slot)].form
    }

    /// Where the header of the reply to `token` lies.
    pub(crate) const fn reply_header(&self, token: Token) -> Segment {
        Segment {
            offset: self.buffer(token.slot) + REPLY_OFFSET,
            len: OUT_HEADER,
        }
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

    pub(crate) const fn pages_mut(&mut self) -> &mut PagePool {
        &mut self.pages
    }

    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Back to the state after a device reset: what was in flight is forgotten.
    pub(crate) fn reset(&mut self) {
        for slot in 0..self.ring.size() {
            self.release(slot);
        }
        self.ring.reset();
        link::clear(&self.events.call);
        link::clear(&self.events.kick);
        self.draining = false;
        self.in_flight = 0;
        self.broken = None;
        self.agreed = InitFlags::empty();
    }
}

fn take_pages(pool: &mut PagePool, len: usize, out: &mut Vec<Segment>) -> Result<(), Error> {
    if pool.take(len, out) {
        Ok(())
    } else {
        Err(Error::QueueFull)
    }
}

fn push(segments: &mut Vec<Segment>, offset: usize, len: usize) {
    if len > 0 {
        segments.push(Segment { offset, len });
    }
}

fn scatter(memory: &Memory, segments: &[Segment], mut bytes: &[u8]) {
    for segment in segments {
        let (now, later) = bytes.split_at(segment.len.min(bytes.len()));
        memory.put(segment.offset, now);
        bytes = later;
    }
}

impl Payload<'_> {
    const fn len(&self) -> usize {
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
