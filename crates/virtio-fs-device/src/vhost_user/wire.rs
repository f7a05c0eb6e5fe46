//! Messages as they travel (the vhost-user specification, "Message Specification").

use virtio_fs_config::CONFIG_LEN;

/// What a front-end asks; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemTable = 5,
    SetLogBase = 6,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    SetBackendReqFd = 21,
    GetConfig = 24,
    GetInflightFd = 31,
    SetInflightFd = 32,
    ResetDevice = 34,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
    SetDeviceStateFd = 42,
    CheckDeviceState = 43,
    GetShmemConfig = 44,
}

impl Request {
    /// What the specification calls it, without `VHOST_USER_`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::GetFeatures => "GET_FEATURES",
            Self::SetFeatures => "SET_FEATURES",
            Self::SetOwner => "SET_OWNER",
            Self::SetMemTable => "SET_MEM_TABLE",
            Self::SetLogBase => "SET_LOG_BASE",
            Self::SetVringNum => "SET_VRING_NUM",
            Self::SetVringAddr => "SET_VRING_ADDR",
            Self::SetVringBase => "SET_VRING_BASE",
            Self::GetVringBase => "GET_VRING_BASE",
            Self::SetVringKick => "SET_VRING_KICK",
            Self::SetVringCall => "SET_VRING_CALL",
            Self::SetVringErr => "SET_VRING_ERR",
            Self::GetProtocolFeatures => "GET_PROTOCOL_FEATURES",
            Self::SetProtocolFeatures => "SET_PROTOCOL_FEATURES",
            Self::GetQueueNum => "GET_QUEUE_NUM",
            Self::SetVringEnable => "SET_VRING_ENABLE",
            Self::SetBackendReqFd => "SET_BACKEND_REQ_FD",
            Self::GetConfig => "GET_CONFIG",
            Self::GetInflightFd => "GET_INFLIGHT_FD",
            Self::SetInflightFd => "SET_INFLIGHT_FD",
            Self::ResetDevice => "RESET_DEVICE",
            Self::GetMaxMemSlots => "GET_MAX_MEM_SLOTS",
            Self::AddMemReg => "ADD_MEM_REG",
            Self::RemMemReg => "REM_MEM_REG",
            Self::SetDeviceStateFd => "SET_DEVICE_STATE_FD",
            Self::CheckDeviceState => "CHECK_DEVICE_STATE",
            Self::GetShmemConfig => "GET_SHMEM_CONFIG",
        }
    }

    /// Whether a descriptor comes with its reply.
    pub(super) const fn asks_for_file(self) -> bool {
        matches!(self, Self::GetInflightFd)
    }

    /// Whether the body of its reply, or of its acknowledgement, can have so many bytes.
    pub(super) const fn is_answered_by(self, bytes: usize) -> bool {
        match self {
            // What is in it differs from daemon to daemon.
            Self::SetLogBase => bytes <= MAX_IGNORED,
            Self::GetConfig => bytes == CONFIG_HEAD + CONFIG_LEN,
            // The structure has padding at its end, or has not.
            Self::GetInflightFd => bytes == 20 || bytes == 24,
            Self::GetShmemConfig => bytes == SHMEM_CONFIG,
            _ => bytes == size_of::<u64>(),
        }
    }
}

/// `VHOST_F_LOG_ALL`: which pages are written is noted.
pub(super) const LOG_ALL: u64 = 1 << 26;
/// `VHOST_USER_F_PROTOCOL_FEATURES`, without which nothing here works.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Bits of the protocol features.
pub(super) mod protocol {
    pub(crate) const MQ: u64 = 1 << 0;
    pub(crate) const LOG_SHMFD: u64 = 1 << 1;
    pub(crate) const REPLY_ACK: u64 = 1 << 3;
    pub(crate) const BACKEND_REQ: u64 = 1 << 5;
    pub(crate) const CONFIG: u64 = 1 << 9;
    pub(crate) const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub(crate) const RESET_DEVICE: u64 = 1 << 13;
    pub(crate) const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub(crate) const DEVICE_STATE: u64 = 1 << 19;
    pub(crate) const SHMEM: u64 = 1 << 22;
}

/// Bytes of a header: request, flags, size of the body.
pub(super) const HEADER: usize = 12;
/// Bytes before the configuration space itself: offset, size and flags.
pub(super) const CONFIG_HEAD: usize = 12;
/// Bytes of `VhostUserShMemConfig`: number of regions, padding, and the size of each.
const SHMEM_CONFIG: usize = 8 + 256 * 8;
/// Most bytes of a reply that has nothing in it of use here.
const MAX_IGNORED: usize = 64;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0b11;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A message that is put together field by field, in the order of bytes of this machine.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: Request,
    body: Vec<u8>,
}

/// The header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyHeader {
    request: u32,
    flags: u32,
    /// Bytes of the body.
    pub(super) size: u32,
}

/// The header of what a daemon asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestHeader {
    pub(super) request: u32,
    flags: u32,
    /// Bytes of the body.
    pub(super) size: u32,
}

/// The body of a message, taken apart field by field.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl Message {
    pub(super) const fn new(request: Request) -> Self {
        Self {
            request,
            body: Vec::new(),
        }
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self
    }

    /// The whole message; whether the back-end is to acknowledge it.
    pub(super) fn encode(&self, acknowledge: bool) -> Vec<u8> {
        let flags = if acknowledge {
            VERSION | NEED_REPLY
        } else {
            VERSION
        };
        // No message here comes near to 4 GiB.
        let size = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let mut whole = Vec::with_capacity(HEADER.saturating_add(self.body.len()));
        for field in [self.request as u32, flags, size] {
            whole.extend_from_slice(&field.to_ne_bytes());
        }
        whole.extend_from_slice(&self.body);
        whole
    }
}

impl ReplyHeader {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            request: fields.u32(),
            flags: fields.u32(),
            size: fields.u32(),
        }
    }

    /// Whether this is the reply to `request`.
    pub(super) const fn answers(self, request: Request) -> bool {
        self.request == request as u32 && self.flags & (VERSION_MASK | REPLY) == VERSION | REPLY
    }
}

impl RequestHeader {
    /// What `message` begins with; what is not there counts as 0.
    pub(super) fn parse(message: &[u8]) -> Self {
        let mut fields = Fields(message);
        Self {
            request: fields.u32(),
            flags: fields.u32(),
            size: fields.u32(),
        }
    }

    pub(super) const fn is_request(self) -> bool {
        self.flags & !NEED_REPLY == VERSION
    }

    pub(super) const fn wants_reply(self) -> bool {
        self.flags & NEED_REPLY != 0
    }
}

/// The answer `value` to a daemon's `request`.
pub(super) fn reply(request: u32, value: u64) -> Vec<u8> {
    let fields = [request, VERSION | REPLY, size_of::<u64>() as u32];
    let header = fields.iter().flat_map(|field| field.to_ne_bytes());
    header.chain(value.to_ne_bytes()).collect()
}

impl<'a> Fields<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// The next field; 0 behind the end, as whoever asks has checked the length.
    pub(super) fn u32(&mut self) -> u32 {
        self.take().map_or(0, u32::from_ne_bytes)
    }

    /// As [`u32`](Self::u32).
    pub(super) fn u64(&mut self) -> u64 {
        self.take().map_or(0, u64::from_ne_bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (&field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_header_and_its_fields() {
        let message = Message::new(Request::SetVringNum).u32(1).u32(512);
        let mut expected = Vec::new();
        for field in [8u32, 1 | 8, 8, 1, 512] {
            expected.extend(field.to_ne_bytes());
        }
        assert_eq!(message.encode(true), expected);
    }

    #[test]
    fn only_a_reply_to_the_request_answers_it() {
        let parse = |request: u32, flags: u32| {
            let mut bytes = [0; HEADER];
            bytes[..4].copy_from_slice(&request.to_ne_bytes());
            bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
            bytes[8] = 9;
            ReplyHeader::parse(&bytes)
        };
        assert!(parse(11, 0b101).answers(Request::GetVringBase));
        assert_eq!(parse(11, 0b101).size, 9);
        for (request, flags) in [(10, 0b101), (11, 0b001), (11, 0b110), (11, 0b100)] {
            assert!(!parse(request, flags).answers(Request::GetVringBase));
        }
    }

    #[test]
    fn each_reply_has_its_length() {
        for (request, lengths) in [
            (Request::GetFeatures, vec![8]),
            (Request::SetFeatures, vec![8]),
            (Request::SetLogBase, (0..=64).collect()),
            (Request::GetConfig, vec![12 + 40]),
            (Request::GetInflightFd, vec![20, 24]),
            (Request::GetShmemConfig, vec![8 + 256 * 8]),
        ] {
            let answers = |&bytes: &usize| request.is_answered_by(bytes);
            let found: Vec<_> = (0..4096).filter(answers).collect();
            assert_eq!(found, lengths, "{}", request.name());
        }
    }

    #[test]
    fn what_is_behind_the_end_is_zero() {
        let mut fields = Fields::new(&[1, 1, 1, 1, 2]);
        assert_eq!(fields.u32(), 0x0101_0101);
        assert_eq!(fields.u32(), 0);
        assert_eq!(fields.u64(), 0);
    }
}
