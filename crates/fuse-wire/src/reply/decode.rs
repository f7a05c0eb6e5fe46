use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Reply, ReplyForm};
use crate::Errno;
use crate::abi::{InitOut, OutHeader};
use crate::cursor::Cursor;

/// The rule that a reply broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Fewer than the 16 bytes of a header.
    #[error("the reply has {0} bytes, fewer than its header")]
    TruncatedHeader(usize),
    /// `header.len` is not the length of the reply.
    #[error("the header says {header} bytes, the reply has {actual}")]
    Length {
        /// What the header says.
        header: u32,
        /// Bytes that are there.
        actual: usize,
    },
    /// `header.error` is neither 0 nor one of -511 to -1.
    #[error("{0} is not an error that a reply can carry")]
    Error(i32),
    /// Bytes follow an error.
    #[error("{0} bytes are left over after an error")]
    BodyAfterError(usize),
    /// The body ends early.
    #[error("the body is truncated")]
    Truncated,
    /// Bytes are left over after the body.
    #[error("{0} bytes are left over after the body")]
    TrailingBytes(usize),
    /// More data than was asked for.
    #[error("the reply has {actual} bytes of data, {max} were asked for")]
    TooMuchData {
        /// Bytes asked for.
        max: u32,
        /// Bytes that are there.
        actual: usize,
    },
}

/// A reply and the request that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The request that is answered.
    pub unique: u64,
    /// How it went.
    pub result: Result<Reply<'a>, Errno>,
}

impl OutHeader {
    /// Reads the header at the start of `message`, for a reply of `reply_len` bytes in all, and
    /// checks it. For receivers that have the data of a READ written elsewhere;
    /// [`Reply::decode`] decodes a reply whole.
    ///
    /// # Errors
    /// Says which rule the header breaks.
    pub fn decode(message: &[u8], reply_len: usize) -> Result<Self, ReplyError> {
        let (header, _) = Self::read_from_prefix(message)
            .map_err(|_| ReplyError::TruncatedHeader(message.len()))?;
        if usize::try_from(header.len) != Ok(reply_len) {
            return Err(ReplyError::Length {
                header: header.len,
                actual: reply_len,
            });
        }
        match header.error {
            0 => {}
            Errno::LOWEST_ON_WIRE..=-1 => {
                let body_len = reply_len.saturating_sub(size_of::<Self>());
                if body_len > 0 {
                    return Err(ReplyError::BodyAfterError(body_len));
                }
            }
            other => return Err(ReplyError::Error(other)),
        }
        Ok(header)
    }

    /// The error that a checked header reports.
    ///
    /// # Errors
    /// The reply is this error.
    pub const fn result(&self) -> Result<(), Errno> {
        match self.error {
            0 => Ok(()),
            error => Err(Errno::from_raw(error.saturating_neg())),
        }
    }
}

impl<'a> Reply<'a> {
    /// Checks and decodes one reply: header and body are all of `message`. `form` is that of the
    /// request it is for ([`Operation::reply_form`](crate::Operation::reply_form)).
    ///
    /// # Errors
    /// Says which rule the reply breaks. That the peer reports an error is no error here.
    pub fn decode(form: ReplyForm, message: &'a [u8]) -> Result<Answer<'a>, ReplyError> {
        let header = OutHeader::decode(message, message.len())?;
        let result = match header.result() {
            Ok(()) => {
                let mut body = Cursor::new(message);
                body.take(size_of::<OutHeader>());
                Ok(decode_body(form, body)?)
            }
            Err(errno) => Err(errno),
        };
        Ok(Answer {
            unique: header.unique,
            result,
        })
    }
}

#[inline]
fn decode_body(form: ReplyForm, mut body: Cursor<'_>) -> Result<Reply<'_>, ReplyError> {
    let reply = match form {
        ReplyForm::Empty => Reply::Empty,
        ReplyForm::Entry => Reply::Entry(read(&mut body)?),
        ReplyForm::Attr => Reply::Attr(read(&mut body)?),
        ReplyForm::Data { max } => Reply::Data(data(&mut body, max)?),
        ReplyForm::XattrSize => Reply::XattrSize(read(&mut body)?),
        ReplyForm::Open => Reply::Open(read(&mut body)?),
        ReplyForm::Create => Reply::Create(read(&mut body)?, read(&mut body)?),
        ReplyForm::Write => Reply::Write(read(&mut body)?),
        ReplyForm::StatFs => Reply::StatFs(read(&mut body)?),
        ReplyForm::Init => Reply::Init(init(&mut body)?),
        ReplyForm::Lk => Reply::Lk(read(&mut body)?),
        ReplyForm::BMap => Reply::BMap(read(&mut body)?),
        ReplyForm::Ioctl { max } => Reply::Ioctl(read(&mut body)?, data(&mut body, max)?),
        ReplyForm::Poll => Reply::Poll(read(&mut body)?),
        ReplyForm::LSeek => Reply::LSeek(read(&mut body)?),
        ReplyForm::Statx => Reply::Statx(read(&mut body)?),
        ReplyForm::CopyFileRange64 => Reply::CopyFileRange64(read(&mut body)?),
    };
    match body.remaining() {
        0 => Ok(reply),
        trailing => Err(ReplyError::TrailingBytes(trailing)),
    }
}

#[inline]
fn read<T: FromBytes + KnownLayout + Immutable>(body: &mut Cursor<'_>) -> Result<T, ReplyError> {
    body.read().ok_or(ReplyError::Truncated)
}

#[inline]
fn data<'a>(body: &mut Cursor<'a>, max: u32) -> Result<&'a [u8], ReplyError> {
    let data = body.take_rest();
    if u32::try_from(data.len()).is_ok_and(|len| len <= max) {
        Ok(data)
    } else {
        Err(ReplyError::TooMuchData {
            max,
            actual: data.len(),
        })
    }
}

/// INIT's reply has 8 bytes before 7.5, 24 before 7.23 and 64 since. What is missing is zero.
fn init(body: &mut Cursor<'_>) -> Result<InitOut, ReplyError> {
    if !matches!(
        body.remaining(),
        InitOut::COMPAT_SIZE | InitOut::COMPAT_22_SIZE
    ) {
        return read(body);
    }
    let mut out = InitOut::default();
    let sent = body.take_rest();
    if let Some(start) = out.as_mut_bytes().get_mut(..sent.len()) {
        start.copy_from_slice(sent);
    }
    Ok(out)
}
