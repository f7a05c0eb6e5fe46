use zerocopy::IntoBytes;

use super::Reply;
use crate::Errno;
use crate::abi::OutHeader;
use crate::writer::{MessageTooLong, Writer};

impl OutHeader {
    /// The header of a reply that reports success and has `body_len` bytes of body.
    ///
    /// A body of 4 GiB or more cannot be announced and becomes an error.
    #[must_use]
    #[inline]
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
    /// The buffer is too short, or the body has 4 GiB or more.
    pub fn encode(&self, unique: u64, buffer: &mut [u8]) -> Result<usize, MessageTooLong> {
        let (first, second) = self.parts();
        let header = OutHeader::success(unique, first.len().saturating_add(second.len()));
        let mut out = Writer::new(buffer);
        out.structure(&header);
        out.bytes(first);
        out.bytes(second);
        if header.error != 0 {
            return Err(MessageTooLong {
                needed: out.len(),
                room: usize::try_from(u32::MAX).unwrap_or(usize::MAX),
            });
        }
        Ok(out.finish()?.len())
    }

    /// The body in at most two pieces.
    #[inline]
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
