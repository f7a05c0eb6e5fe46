//! One request: copied in, served, its reply copied out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuse_fs::{Blocking, Outcome, PayloadSink, Serve};
use fuse_wire::abi::{InHeader, OutHeader};
use fuse_wire::{Errno, MAX_ARGUMENTS, argument_len_before_payload};
use vm_memory::GuestMemoryRegion;
use zerocopy::{FromBytes, IntoBytes};

use crate::Stats;
use crate::chain::Chain;
use crate::payload::{GuestSink, GuestSource};
use crate::segment::Cursor;
use crate::split::Readers;
use crate::write_log::Log;

const IN_HEADER_LEN: usize = size_of::<InHeader>();
const OUT_HEADER_LEN: usize = size_of::<OutHeader>();

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// The chain is to be given back, with a reply of so many bytes.
    Done(u32),
    /// It is to be served again where it may wait.
    WouldBlock,
    /// It is to be served again where it may wait for ever.
    WouldWait,
}

/// Who serves, who counts, and who learns what is written.
#[derive(Clone, Copy)]
pub(crate) struct Server<'s> {
    pub(crate) filesystem: &'s dyn Serve,
    pub(crate) log: Option<&'s Log>,
    pub(crate) stats: &'s Stats,
    /// Who reads along, where somebody may.
    pub(crate) readers: Option<Readers<'s>>,
}

/// Copies header and arguments to `message`, which then has exactly those. A payload stays where it
/// is.
pub(crate) fn copy_message<R: GuestMemoryRegion>(chain: &Chain<'_, R>, message: &mut Vec<u8>) {
    let mut readable = chain.readable();
    message.clear();
    append(message, &mut readable, IN_HEADER_LEN);
    let arguments_end = InHeader::read_from_prefix(message)
        .ok()
        .and_then(|(header, _)| argument_len_before_payload(header.opcode))
        .unwrap_or(MAX_ARGUMENTS);
    let left = arguments_end.saturating_sub(message.len());
    append(message, &mut readable, left);
}

/// Appends up to `len` bytes, of those that are there.
fn append<R: GuestMemoryRegion>(
    message: &mut Vec<u8>,
    readable: &mut Cursor<'_, '_, R>,
    len: usize,
) {
    let start = message.len();
    let end = start.saturating_add(len.min(readable.remaining()));
    message.resize(end, 0);
    let read = readable.read(message.get_mut(start..).unwrap_or_default());
    message.truncate(start.saturating_add(read));
}

impl Server<'_> {
    /// Serves the request in `chain` whose header and arguments are in `message`; `reply` is a
    /// buffer for the reply.
    pub(crate) fn serve<R: GuestMemoryRegion>(
        &self,
        chain: &Chain<'_, R>,
        message: &[u8],
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Served {
        let mut readable = chain.readable();
        readable.advance(message.len());
        let mut source = GuestSource::new(readable);
        let mut body = chain.writable();
        let has_room = body.remaining() >= OUT_HEADER_LEN;
        body.advance(OUT_HEADER_LEN);
        let mut sink = GuestSink::new(body, self.log, self.readers);

        // What a panic leaves behind is the filesystem's own, behind locks that it has to mind
        // anyway; the sink and the source are not used again.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let sink: Option<&mut dyn PayloadSink> = if has_room { Some(&mut sink) } else { None };
            self.filesystem
                .serve(message, &mut source, sink, reply, blocking)
        }));
        match outcome {
            Ok(Outcome::Reply { head, payload }) => {
                let payload = payload.min(sink.written());
                Served::Done(self.write_reply(chain, reply.get(..head), payload))
            }
            Ok(Outcome::NoReply) => Served::Done(0),
            Ok(Outcome::WouldBlock) => Served::WouldBlock,
            Ok(Outcome::WouldWait) => Served::WouldWait,
            Err(_) => {
                self.stats.panic();
                Served::Done(self.fail(chain, message, Errno::EIO))
            }
        }
    }

    /// Answers with `errno`, if there is room, and returns the length of the reply.
    pub(crate) fn fail<R: GuestMemoryRegion>(
        &self,
        chain: &Chain<'_, R>,
        message: &[u8],
        errno: Errno,
    ) -> u32 {
        let has_room = chain.writable().remaining() >= OUT_HEADER_LEN;
        match InHeader::read_from_prefix(message) {
            Ok((header, _)) if has_room => {
                let reply = OutHeader::failure(header.unique, errno);
                self.write_reply(chain, Some(reply.as_bytes()), 0)
            }
            _ => 0,
        }
    }

    /// Puts the buffered part of the reply in place, before the payload, and returns the length of
    /// both.
    fn write_reply<R: GuestMemoryRegion>(
        &self,
        chain: &Chain<'_, R>,
        head: Option<&[u8]>,
        payload: usize,
    ) -> u32 {
        let head = head.unwrap_or_default();
        let written = chain.writable().write(head, self.log);
        u32::try_from(written.saturating_add(payload)).unwrap_or(u32::MAX)
    }
}
