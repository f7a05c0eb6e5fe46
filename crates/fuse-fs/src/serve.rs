use crate::{PayloadSink, PayloadSource, State};

/// Whether a request may wait where it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blocking {
    /// It may.
    Allowed,
    /// It may not: others are behind it in the same queue.
    Forbidden,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is answered. The reply is the first `head` bytes of the reply buffer, then the first
    /// `payload` bytes that were written to the sink.
    Reply {
        /// Bytes in the reply buffer.
        head: usize,
        /// Bytes in the sink.
        payload: usize,
    },
    /// It is done, and has no reply: it asked for none, or was too broken to be answered.
    NoReply,
    /// It would have to wait. Nothing has changed; serve it again with [`Blocking::Allowed`], and
    /// with a sink and a source that start anew.
    WouldBlock,
    /// As [`WouldBlock`](Self::WouldBlock), but what it waits for is a lock of somebody else, who
    /// may never give it up. Serve it again where it holds up nobody, those least who also wait;
    /// where that is not possible, the answer is ENOLCK. [`Serve::cancel_waits`] ends the wait.
    WouldWait,
}

/// Serves requests: what a transport sees of a [`Session`](crate::Session).
pub trait Serve: Send + Sync {
    /// Serves one request.
    ///
    /// * `message`: header and arguments, up to the payload
    ///   ([`fuse_wire::argument_len_before_payload`]) and no more than
    ///   [`fuse_wire::MAX_ARGUMENTS`].
    /// * `source`: what follows `message` in the request.
    /// * `sink`: the room for the reply **behind** its header; the header has no place in it.
    ///   `None` where there is not even room for the header.
    /// * `reply`: buffer for the reply, or for the part of it that is not payload. It need not be
    ///   larger than [`REPLY_BUFFER`]; what the guest has no room for is never
    ///   put there.
    fn serve(
        &self,
        message: &[u8],
        source: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome;

    /// Makes all requests that wait for a lock at this moment fail with ENOLCK. What a transport
    /// waits for before it can stop, it ends with this.
    ///
    /// A request that begins to wait a moment later is not affected: repeat it until none is left.
    fn cancel_waits(&self) {}

    /// The transport was reset, or the guest is gone: ends the session and forgets what it held.
    /// The next request must be INIT.
    fn reset(&self);

    /// The state of the session, if it can be saved and loaded. A transport whose device is moved,
    /// or is to be taken from a snapshot, asks for it.
    fn state(&self) -> Option<&dyn State> {
        None
    }
}

/// Bytes that the `reply` buffer of [`Serve::serve`] needs: an extended attribute of 64 KiB and
/// its header, or as much of a directory.
pub const REPLY_BUFFER: usize = 64 * 1024 + 64;
