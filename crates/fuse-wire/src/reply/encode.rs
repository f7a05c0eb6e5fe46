use zerocopy::IntoBytes;

use super::Reply;
use crate::Errno;
use crate::abi::OutHeader;

/// The reply does not fit the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reply has {needed} bytes, the buffer {room}")]
pub struct ReplyTooLong {
    /// Bytes of the reply.
    pub needed: usize,
    /// Bytes of the buffer.
    pub room: usize,
}

impl OutHeader {
    /// The header of a reply that reports success and has `body_len` bytes of body.
    ///
    /// A body of 4 GiB or more cannot be announced and becomes an error.
    #[must_use]
    pub fn success(unique: u64, body_len: usize) -> Self {
        match size_of::<Self>()
            .checked_add(body_len)
            .and_then(|len| u32::try_from(len).ok())
        {
            Some(len) => Self {
                len,
                error: 0,
                unique,
            },
            None => Self::failure(unique, Errno::EOVERFLOW),
        }
    }

    /// The whole of a reply that reports an error.
    #[must_use]
    pub const fn failure(unique: u64, errno: Errno) -> Self {
        Self {
            len: size_of::<Self>() as u32,
            error: errno.raw().saturating_neg(),
            unique,
        }
    }
}

impl Reply<'_> {
    /// Writes the reply to `unique`, header and body, to the start of `buffer` and returns its
    /// length in bytes. The rest of the buffer is left as it was.
    ///
    /// # Errors
    /// The buffer is too short; it is left as it was.
    pub fn encode(&self, unique: u64, buffer: &mut [u8]) -> Result<usize, ReplyTooLong> {
        let (first, second) = self.parts();
        let body_len = first.len().saturating_add(second.len());
        let header = OutHeader::success(unique, body_len);
        let needed = size_of::<OutHeader>().saturating_add(body_len);
        let room = buffer.len();
        let mut out = buffer
            .get_mut(..needed)
            .ok_or(ReplyTooLong { needed, room })?;
        for part in [header.as_bytes(), first, second] {
            let (now, later) = out.split_at_mut_checked(part.len()).unwrap_or_default();
            now.copy_from_slice(part);
            out = later;
        }
        Ok(needed)
    }

    /// The body in at most two pieces.
    fn parts(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Empty => (&[], &[]),
            Self::Entry(out) => (out.as_bytes(), &[]),
            Self::Attr(out) => (out.as_bytes(), &[]),
            Self::Data(data) => (data, &[]),
            Self::XattrSize(out) => (out.as_bytes(), &[]),
            Self::Open(out) => (out.as_bytes(), &[]),
            Self::Create(entry, open) => (entry.as_bytes(), open.as_bytes()),
            Self::Write(out) => (out.as_bytes(), &[]),
            Self::StatFs(out) => (out.as_bytes(), &[]),
            Self::Init(out) => (out.as_bytes(), &[]),
            Self::Lk(out) => (out.as_bytes(), &[]),
            Self::BMap(out) => (out.as_bytes(), &[]),
            Self::Ioctl(out, data) => (out.as_bytes(), data),
            Self::Poll(out) => (out.as_bytes(), &[]),
            Self::LSeek(out) => (out.as_bytes(), &[]),
            Self::Statx(out) => (out.as_bytes(), &[]),
            Self::CopyFileRange64(out) => (out.as_bytes(), &[]),
        }
    }
}
