use std::sync::Arc;

use fuse_wire::abi::{InHeader, OutHeader};
use fuse_wire::{ReplyError, ReplyForm, Request};

use crate::completion::Outcome;
use crate::memory::{Memory, PAGE, Segment};
use crate::pages::{PagePool, PageReuse};
use crate::queue::Payload;
use crate::room::Room;
use crate::{Error, ProtocolError};

/// Buffer of a slot: the request from the front on, the reply from here on.
const REPLY_OFFSET: usize = 3584;
const SLOT: usize = PAGE;
const IN_HEADER: usize = size_of::<InHeader>();
const OUT_HEADER: usize = size_of::<OutHeader>();
/// Longest body of a reply in a slot; beyond, it goes to pages.
const REPLY_ROOM: usize = SLOT - REPLY_OFFSET - OUT_HEADER;

/// How the requests of a queue and their replies lie in the memory.
///
/// Each request in flight has a slot, numbered as the first descriptor of its chain: a buffer for
/// headers and arguments. Data, and arguments that are too long for that, are in pages.
#[derive(Debug)]
pub(crate) struct Buffers {
    memory: Arc<Memory>,
    slots: Box<[Slot]>,
    /// Offset of the first slot's buffer.
    start: usize,
    pages: PagePool,
    /// Scratch for a chain.
    chain: Vec<Segment>,
}

/// A request, ready for the ring.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    pub(crate) segments: &'a [Segment],
    /// The first segment that the device writes.
    pub(crate) writable_from: usize,
}

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

impl Buffers {
    /// Bytes from `start` on that a queue of `size` needs with `pages` pages.
    pub(crate) const fn len(size: u16, pages: usize) -> usize {
        size as usize * SLOT + pages * PAGE
    }

    pub(crate) fn new(memory: Arc<Memory>, start: usize, size: u16, pages: usize) -> Self {
        Self {
            memory,
            slots: (0..size).map(|_| Slot::new()).collect(),
            start,
            pages: PagePool::new(start + usize::from(size) * SLOT, pages),
            chain: Vec::new(),
        }
    }

    /// Puts `request`, encoded as `message`, and its payload into the memory, and makes room for
    /// the reply. On an error the slot must be released.
    pub(crate) fn lay_out(
        &mut self,
        slot: u16,
        request: &Request<'_>,
        message: &[u8],
        payload: Payload<'_>,
    ) -> Result<Chain<'_>, Error> {
        let buffer = self.buffer(slot);
        let longest = self.slots.len();
        let slot = &mut self.slots[usize::from(slot)];
        let operation = &request.operation;
        slot.unique = request.header.unique;
        slot.form = operation.reply_form();
        slot.room = slot
            .form
            .map_or(Room::NONE, |form| Room::of(operation.opcode(), form));

        let (memory, pages, chain) = (&*self.memory, &mut self.pages, &mut self.chain);
        chain.clear();
        slot.lay_out_request(memory, buffer, message, pages, chain)?;
        slot.lay_out_payload(memory, payload, pages, chain)?;
        let mut writable_from = chain.len();
        slot.lay_out_reply(buffer, pages, chain)?;
        if chain.len() > longest {
            writable_from = join_adjacent(chain, writable_from);
        }
        Ok(Chain {
            segments: chain,
            writable_from,
        })
    }

    /// Checks the reply in `slot`, of which the device says that it wrote `used` bytes, as Linux
    /// 7.1 does, and a little more.
    pub(crate) fn check(&self, slot: u16, used: u32) -> Result<Outcome, ProtocolError> {
        let header = self.reply_header(slot);
        let slot = &self.slots[usize::from(slot)];
        let room = slot.form.map_or(0, |_| OUT_HEADER + slot.room.total()) as u32;
        if used > room {
            return Err(ProtocolError::UsedLength { used, room });
        }
        let used = used as usize;
        if slot.form.is_none() {
            return Ok(Outcome::Body(0));
        }
        let mut bytes = [0; OUT_HEADER];
        let written = &mut bytes[..used.min(OUT_HEADER)];
        self.memory.fetch(header.offset, written);
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

    /// `in_header.unique` of the request in `slot`.
    pub(crate) fn unique(&self, slot: u16) -> u64 {
        self.slots[usize::from(slot)].unique
    }

    /// The form of the reply to the request in `slot`.
    pub(crate) fn form(&self, slot: u16) -> Option<ReplyForm> {
        self.slots[usize::from(slot)].form
    }

    /// Where the header of the reply lies.
    pub(crate) const fn reply_header(&self, slot: u16) -> Segment {
        Segment {
            offset: self.buffer(slot) + REPLY_OFFSET,
            len: OUT_HEADER,
        }
    }

    /// Where the body of the reply lies.
    pub(crate) fn body(&self, slot: u16) -> &[Segment] {
        &self.slots[usize::from(slot)].body
    }

    /// Sets which pages are used first from now on.
    pub(crate) const fn set_page_reuse(&mut self, reuse: PageReuse) {
        self.pages.set_reuse(reuse);
    }

    /// Takes a page out of the pool for good.
    pub(crate) fn take_page(&mut self) -> Result<Segment, Error> {
        let mut page = Vec::new();
        take(&mut self.pages, PAGE, &mut page)?;
        Ok(page[0])
    }

    const fn buffer(&self, slot: u16) -> usize {
        self.start + slot as usize * SLOT
    }
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

    fn lay_out_request(
        &mut self,
        memory: &Memory,
        buffer: usize,
        message: &[u8],
        pages: &mut PagePool,
        chain: &mut Vec<Segment>,
    ) -> Result<(), Error> {
        let (header, arguments) = message.split_at(IN_HEADER);
        memory.put(buffer, header);
        if message.len() > REPLY_OFFSET {
            push(chain, buffer, IN_HEADER);
            take(pages, arguments.len(), &mut self.readable)?;
            scatter(memory, &self.readable, arguments);
            chain.extend_from_slice(&self.readable);
            return Ok(());
        }
        memory.put(buffer + IN_HEADER, arguments);
        // A request without a reply is one buffer, as FORGET is with Linux.
        let split = match self.form {
            Some(_) => IN_HEADER,
            None => message.len(),
        };
        push(chain, buffer, split);
        push(chain, buffer + split, message.len() - split);
        Ok(())
    }

    fn lay_out_payload(
        &mut self,
        memory: &Memory,
        payload: Payload<'_>,
        pages: &mut PagePool,
        chain: &mut Vec<Segment>,
    ) -> Result<(), Error> {
        let arguments = self.readable.len();
        take(pages, payload.len(), &mut self.readable)?;
        let pages = &self.readable[arguments..];
        if let Payload::Copied(data) = payload {
            scatter(memory, pages, data);
        }
        chain.extend_from_slice(pages);
        Ok(())
    }

    fn lay_out_reply(
        &mut self,
        buffer: usize,
        pages: &mut PagePool,
        chain: &mut Vec<Segment>,
    ) -> Result<(), Error> {
        if self.form.is_none() {
            return Ok(());
        }
        let reply = buffer + REPLY_OFFSET;
        push(chain, reply, OUT_HEADER);
        if self.room.arguments > REPLY_ROOM {
            take(pages, self.room.arguments, &mut self.body)?;
        } else {
            push(&mut self.body, reply + OUT_HEADER, self.room.arguments);
        }
        take(pages, self.room.pages, &mut self.body)?;
        chain.extend_from_slice(&self.body);
        Ok(())
    }
}

fn take(pool: &mut PagePool, len: usize, out: &mut Vec<Segment>) -> Result<(), Error> {
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

/// Joins neighbours in the memory that go the same way. Linux does not, but refuses rings of 4,
/// which are good for tests. Returns the new start of the writable part.
fn join_adjacent(segments: &mut Vec<Segment>, writable_from: usize) -> usize {
    let mut joined: Vec<Segment> = Vec::new();
    let mut start = writable_from;
    for (n, &segment) in segments.iter().enumerate() {
        match joined.last_mut() {
            Some(last) if n != writable_from && last.offset + last.len == segment.offset => {
                last.len += segment.len;
            }
            _ => joined.push(segment),
        }
        if n == writable_from {
            start = joined.len() - 1;
        }
    }
    *segments = joined;
    start
}

fn scatter(memory: &Memory, segments: &[Segment], mut bytes: &[u8]) {
    for segment in segments {
        let (now, later) = bytes.split_at(segment.len.min(bytes.len()));
        memory.put(segment.offset, now);
        bytes = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_within_a_direction() {
        let segment = |offset, len| Segment { offset, len };
        let mut chain = vec![
            segment(0, 40),
            segment(40, 16),
            segment(56, 16),
            segment(72, 8),
            segment(100, 4),
        ];
        assert_eq!(join_adjacent(&mut chain, 2), 1);
        assert_eq!(chain, [segment(0, 56), segment(56, 24), segment(100, 4)]);
        assert_eq!(join_adjacent(&mut chain, 3), 3);
    }
}
