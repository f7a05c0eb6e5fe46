use std::io;

use fuse_wire::{DirentError, EncodeError, Errno, ReplyError};

/// Why a request, or the set-up of a device, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filesystem answered with an error: the device works.
    #[error("the filesystem answered {0}")]
    Errno(Errno),
    /// The device broke a rule on which Linux relies.
    #[error("the device broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The back-end did not answer in time.
    #[error("the back-end took longer than {limit:?} {doing}")]
    Timeout {
        /// What it was waited for.
        doing: &'static str,
        /// How long it had.
        limit: std::time::Duration,
    },
    /// The back-end closed the connection, or its end of it is gone.
    #[error("the back-end closed the connection")]
    Disconnected,
    /// A vhost-user message failed or was refused.
    #[error("vhost-user: cannot {doing}: {source}")]
    VhostUser {
        /// What the message was for.
        doing: &'static str,
        /// What became of it.
        source: vhost::Error,
    },
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What it was for.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The back-end lacks what was asked for.
    #[error("the back-end has no {0}")]
    Unsupported(&'static str),
    /// Options that contradict each other or the protocol.
    #[error("{0}")]
    Options(&'static str),
    /// The ring has no free descriptors, or the pool no free pages: take completions first.
    #[error("the queue is full: take completions first")]
    QueueFull,
    /// The request needs a longer chain than the ring allows.
    #[error("the request is too long for the queue")]
    RequestTooLong,
    /// The request contradicts itself.
    #[error("the request cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// Other requests are in flight.
    #[error("other requests are in flight on the queue: take their completions first")]
    Busy,
}

/// The rule that a device broke. Linux answers most of these with EIO or a broken device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The used ring names a chain that is not in flight.
    #[error("the used ring names chain {0}, which is not in flight")]
    UsedId(u32),
    /// `used.idx` ran ahead of everything that was made available.
    #[error("the used index moved by {0}, more than there are descriptors")]
    UsedIndex(u16),
    /// More bytes used than the chain can take, or any where nothing was writable.
    #[error("{used} bytes used of a chain with room for {room}")]
    UsedLength {
        /// What the used ring says.
        used: u32,
        /// What the chain has room for.
        room: u32,
    },
    /// The reply itself is malformed, or `out_header.len` is not `used.len`.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// An entry of a directory is malformed.
    #[error(transparent)]
    Dirent(#[from] DirentError),
    /// The reply is not to this request.
    #[error("the reply is to {found}, the request was {expected}")]
    Unique {
        /// The request's own.
        expected: u64,
        /// What the header says.
        found: u64,
    },
    /// A chain was used, but no interrupt came though one was asked for.
    #[error("a chain was used without the interrupt that was asked for")]
    MissingInterrupt,
    /// The back-end signalled the vring's error eventfd.
    #[error("the back-end reports an error of the vring")]
    VringError,
    /// Another major version of FUSE.
    #[error("the server speaks FUSE {0}")]
    Version(u32),
}

impl Error {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// The filesystem's error number, where this is one.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Errno(errno) => Some(*errno),
            _ => None,
        }
    }
}
