use fuse_wire::abi::OutHeader;
use fuse_wire::{Errno, Reply};

use super::{Answer, Failure};
use crate::{Outcome, PayloadSink};

const HEADER_LEN: usize = size_of::<OutHeader>();

/// Where the reply to one request goes, and how much of it the guest can take.
pub(crate) struct Room<'a> {
    unique: u64,
    /// At least as long as a header.
    buffer: &'a mut [u8],
    sink: &'a mut dyn PayloadSink,
}

impl<'a> Room<'a> {
    /// `None` where not even the header of a reply fits.
    pub(crate) fn new(
        unique: u64,
        sink: Option<&'a mut (dyn PayloadSink + '_)>,
        buffer: &'a mut [u8],
    ) -> Option<Self> {
        let sink = sink?;
        (buffer.len() >= HEADER_LEN).then_some(Self {
            unique,
            buffer,
            sink,
        })
    }

    /// Bytes of body that can be buffered and that the guest can take.
    pub(crate) fn body_len(&self) -> usize {
        let buffered = self.buffer.len().saturating_sub(HEADER_LEN);
        buffered.min(self.sink.remaining())
    }

    /// Where the data of a READ goes.
    pub(crate) fn sink(&mut self) -> &mut dyn PayloadSink {
        self.sink
    }

    /// Answers with an error.
    pub(crate) fn fail(&mut self, errno: Errno) -> Outcome {
        self.answer(&OutHeader::failure(self.unique, errno), 0, 0)
    }

    /// Answers with `reply`.
    ///
    /// # Errors
    /// EINVAL where there is no room for it.
    pub(crate) fn reply(&mut self, reply: &Reply<'_>) -> Answer {
        let end = HEADER_LEN.saturating_add(self.body_len());
        let buffer = self.buffer.get_mut(..end).unwrap_or_default();
        let head = reply
            .encode(self.unique, buffer)
            .map_err(|_| Errno::EINVAL)?;
        Ok(Outcome::Reply { head, payload: 0 })
    }

    /// Answers with what `fill` puts into the body, which is at most `max` bytes long.
    ///
    /// # Errors
    /// Those of `fill`. It is a fault if `fill` says that it put more there than fits: what the
    /// buffer held before is not the guest's to see.
    pub(crate) fn fill(
        &mut self,
        max: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Failure>,
    ) -> Answer {
        let end = HEADER_LEN.saturating_add(self.body_len().min(max));
        let body = self.buffer.get_mut(HEADER_LEN..end).unwrap_or_default();
        let max = body.len();
        let len = fill(body)?;
        if len > max {
            return Err(Failure::Fault("the reply is longer than its buffer"));
        }
        Ok(self.answer(&OutHeader::success(self.unique, len), len, 0))
    }

    /// Answers with the first `len` bytes that were written to the sink.
    pub(crate) fn payload(&mut self, len: usize) -> Outcome {
        self.answer(&OutHeader::success(self.unique, len), 0, len)
    }

    fn answer(&mut self, header: &OutHeader, buffered: usize, payload: usize) -> Outcome {
        if let Some(front) = self.buffer.first_chunk_mut::<HEADER_LEN>() {
            *front = zerocopy::transmute!(*header);
        }
        Outcome::Reply {
            head: HEADER_LEN.saturating_add(buffered),
            payload,
        }
    }
}
