//! What the fuzz targets share: how a message and what is known about it lie in a fuzzer's input.
//!
//! Before the bytes of the message come a few that choose what it is decoded as. One of them says
//! whether the length in the header is made right first, as few guessed ones are.

use fuse_wire::ReplyForm;
use fuse_wire::flags::InitFlags;

/// What [`Request::decode`](fuse_wire::Request::decode) takes.
#[derive(Debug)]
pub struct RequestInput {
    /// Header and arguments.
    pub message: Vec<u8>,
    /// Bytes that follow.
    pub payload_len: usize,
    /// What INIT settled.
    pub agreed: InitFlags,
}

/// The flags that decide how a request is read, by the bits of the first byte.
const AGREED: [InitFlags; 3] = [
    InitFlags::SETXATTR_EXT,
    InitFlags::SECURITY_CTX,
    InitFlags::CREATE_SUPP_GROUP,
];
/// In the first byte: the length is made right.
const FIX_LENGTH: u8 = 1 << 7;

impl RequestInput {
    /// Flags, length of the payload, message.
    #[must_use]
    pub fn new(input: &[u8]) -> Option<Self> {
        let (&[flags, payload_len], message) = input.split_first_chunk()?;
        let chosen = |&(bit, _): &(usize, InitFlags)| flags & (1 << bit) != 0;
        let agreed = AGREED.into_iter().enumerate().filter(chosen);
        let payload_len = usize::from(payload_len);
        Some(Self {
            message: with_length(message, payload_len, flags & FIX_LENGTH != 0),
            payload_len,
            agreed: agreed.map(|(_, flag)| flag).collect(),
        })
    }

    /// The input that becomes this.
    #[must_use]
    pub fn seed(message: &[u8], payload_len: usize, agreed: InitFlags) -> Vec<u8> {
        let bit = |(bit, flag)| u8::from(agreed.contains(flag)) << bit;
        let flags: u8 = AGREED.into_iter().enumerate().map(bit).sum();
        let payload_len = u8::try_from(payload_len).unwrap_or(0);
        [&[flags, payload_len], message].concat()
    }
}

/// What [`Reply::decode`](fuse_wire::Reply::decode) takes.
#[derive(Debug)]
pub struct ReplyInput {
    /// Header and body.
    pub message: Vec<u8>,
    /// The form of the body.
    pub form: ReplyForm,
}

/// Most bytes of data that were asked for.
const MAX_DATA: u32 = 64;

/// The forms, by the first byte.
const FORMS: [ReplyForm; 17] = [
    ReplyForm::Empty,
    ReplyForm::Entry,
    ReplyForm::Attr,
    ReplyForm::Data { max: MAX_DATA },
    ReplyForm::XattrSize,
    ReplyForm::Open,
    ReplyForm::Create,
    ReplyForm::Write,
    ReplyForm::StatFs,
    ReplyForm::Init,
    ReplyForm::Lk,
    ReplyForm::BMap,
    ReplyForm::Ioctl { max: MAX_DATA },
    ReplyForm::Poll,
    ReplyForm::LSeek,
    ReplyForm::Statx,
    ReplyForm::CopyFileRange64,
];

impl ReplyInput {
    /// Form, message.
    #[must_use]
    pub fn new(input: &[u8]) -> Option<Self> {
        let (&first, message) = input.split_first()?;
        Some(Self {
            message: with_length(message, 0, first & FIX_LENGTH != 0),
            form: *FORMS.get(usize::from(first & !FIX_LENGTH))?,
        })
    }

    /// The input that becomes this.
    #[must_use]
    pub fn seed(message: &[u8], form: ReplyForm) -> Vec<u8> {
        let same =
            |other: &ReplyForm| core::mem::discriminant(other) == core::mem::discriminant(&form);
        let first = FORMS
            .iter()
            .position(same)
            .and_then(|at| u8::try_from(at).ok());
        [&[first.unwrap_or(0)], message].concat()
    }
}

fn with_length(message: &[u8], payload_len: usize, fix: bool) -> Vec<u8> {
    let mut message = message.to_vec();
    let len = u32::try_from(message.len() + payload_len).unwrap_or(0);
    if let (true, Some(field)) = (fix, message.first_chunk_mut()) {
        *field = len.to_ne_bytes();
    }
    message
}
