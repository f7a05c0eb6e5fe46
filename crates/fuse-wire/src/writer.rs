use zerocopy::{Immutable, IntoBytes};

/// A message does not fit the buffer that it was to be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has {needed} bytes, there is room for {room}")]
pub struct MessageTooLong {
    /// Bytes of the message.
    pub needed: usize,
    /// Bytes of the buffer, or the most that the protocol can announce.
    pub room: usize,
}

/// Writes a message from front to back. What does not fit is counted but not written, so that
/// [`Writer::finish`] can say how much room was needed.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    pub(crate) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(out) = self.buffer.get_mut(self.len..end) {
            out.copy_from_slice(bytes);
        }
        self.len = end;
    }

    #[inline]
    pub(crate) fn structure<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.bytes(value.as_bytes());
    }

    /// Zeros up to the next multiple of `alignment` bytes, counted from `start`.
    #[inline]
    pub(crate) fn pad(&mut self, start: usize, alignment: usize) {
        let written = self.len.saturating_sub(start);
        let padded = written
            .checked_next_multiple_of(alignment)
            .unwrap_or(written);
        let end = start.saturating_add(padded);
        if let Some(out) = self.buffer.get_mut(self.len..end) {
            out.fill(0);
        }
        self.len = end;
    }

    /// Writes `value` over the start of the message, where its room was left.
    #[inline]
    pub(crate) fn overwrite_start<T: IntoBytes + Immutable>(&mut self, value: &T) {
        if let Some(out) = self.buffer.get_mut(..size_of::<T>()) {
            out.copy_from_slice(value.as_bytes());
        }
    }

    /// Bytes written or counted so far.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// What was written.
    #[inline]
    pub(crate) fn finish(self) -> Result<&'a mut [u8], MessageTooLong> {
        let too_long = MessageTooLong {
            needed: self.len,
            room: self.buffer.len(),
        };
        self.buffer.get_mut(..self.len).ok_or(too_long)
    }
}

/// `value` in the width of its field, whose largest value is `max`.
#[inline]
pub(crate) fn announced<T: Into<u32> + TryFrom<usize>>(
    value: usize,
    max: T,
) -> Result<T, MessageTooLong> {
    T::try_from(value).map_err(|_| MessageTooLong {
        needed: value,
        room: usize::try_from(max.into()).unwrap_or(usize::MAX),
    })
}
