use fuse_wire::{Errno, Reply};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BS;

use crate::memory::Segment;
use crate::queue::{Queue, Token};
use crate::{Error, ProtocolError};

/// A request that the device is done with. Its reply stays in the shared memory, and the queue is
/// borrowed, until this is dropped.
#[derive(Debug)]
pub struct Completion<'q> {
    queue: &'q mut Queue,
    token: Token,
    outcome: Outcome,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded, with so many bytes of body.
    Body(usize),
    Errno(Errno),
    Protocol(ProtocolError),
}

impl<'q> Completion<'q> {
    pub(crate) const fn new(queue: &'q mut Queue, token: Token, outcome: Outcome) -> Self {
        Self {
            queue,
            token,
            outcome,
        }
    }

    /// The request.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// How it went: the number of bytes of the reply's body.
    ///
    /// # Errors
    /// [`Error::Errno`] is the filesystem's answer, [`Error::Protocol`] the device's fault.
    pub const fn result(&self) -> Result<usize, Error> {
        match self.outcome {
            Outcome::Body(len) => Ok(len),
            Outcome::Errno(errno) => Err(Error::Errno(errno)),
            Outcome::Protocol(rule) => Err(Error::Protocol(rule)),
        }
    }

    /// Copies what of the reply's body lies from `offset` on, as much of it as fits, and returns
    /// how many bytes that was. An error has no body.
    pub fn copy_to(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let mut copied = 0;
        let mut skip = offset;
        for slice in self.slices() {
            let len = slice.len();
            if let Ok(rest) = slice.offset(skip.min(len)) {
                copied += rest.copy_to(&mut buffer[copied..]);
            }
            skip = skip.saturating_sub(len);
        }
        copied
    }

    /// The reply's body where it lies, in order. The device may still change it.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'_, BS<'_, ()>>> {
        let mut left = match self.outcome {
            Outcome::Body(len) => len,
            _ => 0,
        };
        self.queue
            .buffers()
            .body(self.token.slot())
            .iter()
            .map_while(move |segment| {
                let len = segment.len.min(left);
                left -= len;
                let part = Segment {
                    offset: segment.offset,
                    len,
                };
                (len > 0).then(|| self.queue.memory().slice(part))
            })
    }

    /// The reply, copied out of the shared memory and decoded.
    ///
    /// # Errors
    /// As [`result`](Self::result). A request that expects no reply has [`Reply::Empty`].
    pub fn reply(&mut self) -> Result<Reply<'_>, Error> {
        let len = self.result()?;
        let Some(form) = self.queue.buffers().form(self.token.slot()) else {
            return Ok(Reply::Empty);
        };
        let header = self.queue.buffers().reply_header(self.token.slot());
        let mut message = std::mem::take(self.queue.reply_scratch());
        message.resize(header.len + len, 0);
        self.queue
            .memory()
            .fetch(header.offset, &mut message[..header.len]);
        self.copy_to(0, &mut message[header.len..]);
        let scratch = self.queue.reply_scratch();
        *scratch = message;
        match Reply::decode(form, scratch) {
            // The header may have changed since it was checked.
            Ok(answer) => answer.result.map_err(Error::Errno),
            Err(rule) => Err(ProtocolError::from(rule).into()),
        }
    }
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        self.queue.buffers_mut().release(self.token.slot());
    }
}
