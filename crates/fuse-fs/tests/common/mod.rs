//! A guest by hand: encodes requests, serves them, takes replies apart.

#![allow(dead_code, reason = "each test file uses the part of it that it needs")]

pub(crate) mod every;
pub(crate) mod files;
pub(crate) mod probe;

use std::ffi::CString;

use fuse_fs::abi::{InHeader, InitIn, InitOut, OutHeader};
use fuse_fs::flags::InitFlags;
use fuse_fs::{
    Blocking, BufferSink, BufferSource, Errno, Extensions, NodeId, Outcome, PayloadSink,
    REPLY_BUFFER, Serve,
};
use fuse_wire::{MAX_ARGUMENTS, Operation, Request};
use zerocopy::{FromBytes, Immutable, KnownLayout};

pub(crate) const UNIQUE: u64 = 0x1122_3344_5566_7788;

/// The reply to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Body(Vec<u8>),
    Error(Errno),
    NoReply,
    WouldBlock,
    WouldWait,
}

impl Answer {
    pub(crate) fn body(self) -> Vec<u8> {
        match self {
            Self::Body(body) => body,
            other => panic!("not a success: {other:?}"),
        }
    }

    pub(crate) fn structure<T: FromBytes + KnownLayout + Immutable>(self) -> T {
        let body = self.body();
        T::read_from_bytes(&body).unwrap_or_else(|_| panic!("{} bytes of body", body.len()))
    }

    pub(crate) fn error(&self) -> Errno {
        match self {
            Self::Error(errno) => *errno,
            Self::Body(body) => panic!("success, {} bytes", body.len()),
            other => panic!("not an error: {other:?}"),
        }
    }

    pub(crate) fn is_empty_success(&self) -> bool {
        matches!(self, Self::Body(body) if body.is_empty())
    }
}

/// How one request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) blocking: Blocking,
    /// Room for the body of the reply; `None` for no room at all.
    pub(crate) room: Option<usize>,
    pub(crate) reply_buffer: usize,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            blocking: Blocking::Allowed,
            room: Some(2 << 20),
            reply_buffer: REPLY_BUFFER,
        }
    }
}

/// The driver of one session.
pub(crate) struct Guest<'a> {
    pub(crate) server: &'a dyn Serve,
    pub(crate) agreed: InitFlags,
    pub(crate) sending: Sending,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(server: &'a dyn Serve) -> Self {
        Self {
            server,
            agreed: InitFlags::empty(),
            sending: Sending::default(),
        }
    }

    /// Begins a session as a kernel of today does, offering everything.
    pub(crate) fn begun(server: &'a dyn Serve) -> Self {
        let mut guest = Self::new(server);
        guest.init(&offer(InitFlags::all()));
        guest
    }

    pub(crate) fn init(&mut self, init: &InitIn) -> InitOut {
        self.agreed = InitFlags::empty();
        let out: InitOut = self.ask(NodeId(0), Operation::Init(*init)).structure();
        self.agreed = out.agreed();
        out
    }

    pub(crate) fn ask(&self, node: NodeId, operation: Operation<'_>) -> Answer {
        self.ask_with_data(node, operation, &[])
    }

    pub(crate) fn ask_with_data(
        &self,
        node: NodeId,
        operation: Operation<'_>,
        data: &[u8],
    ) -> Answer {
        let message = encode(node, operation, data.len(), self.agreed);
        self.send(&message, data)
    }

    pub(crate) fn send(&self, message: &[u8], data: &[u8]) -> Answer {
        let mut payload = vec![0xa5; self.sending.room.unwrap_or(0)];
        let mut reply = vec![0xa5; self.sending.reply_buffer];
        let mut sink = BufferSink::new(&mut payload);
        let outcome = self.server.serve(
            message,
            &mut BufferSource::new(data),
            self.sending.room.map(|_| &mut sink as &mut dyn PayloadSink),
            &mut reply,
            self.sending.blocking,
        );
        match outcome {
            Outcome::Reply {
                head,
                payload: payload_len,
            } => self.check_reply(&reply[..head], &payload[..payload_len]),
            Outcome::NoReply => Answer::NoReply,
            Outcome::WouldBlock => Answer::WouldBlock,
            Outcome::WouldWait => Answer::WouldWait,
        }
    }

    fn check_reply(&self, head: &[u8], payload: &[u8]) -> Answer {
        let (header, body) = OutHeader::read_from_prefix(head).unwrap();
        assert_eq!(header.len as usize, head.len() + payload.len());
        assert_eq!(header.unique, UNIQUE);
        let body = [body, payload].concat();
        assert!(body.len() <= self.sending.room.unwrap());
        if header.error == 0 {
            return Answer::Body(body);
        }
        assert!(body.is_empty(), "an error has no body");
        assert!((-511..0).contains(&header.error));
        Answer::Error(Errno::from_raw(-header.error))
    }
}

pub(crate) fn offer(flags: InitFlags) -> InitIn {
    let (low, high) = flags.halves();
    InitIn {
        major: 7,
        minor: 45,
        max_readahead: 128 << 10,
        flags: low,
        flags2: high,
        ..Default::default()
    }
}

pub(crate) fn encode(
    node: NodeId,
    operation: Operation<'_>,
    payload_len: usize,
    agreed: InitFlags,
) -> Vec<u8> {
    let request = Request {
        header: InHeader {
            unique: UNIQUE,
            nodeid: node,
            uid: 1000,
            gid: 1000,
            pid: 42,
            ..Default::default()
        },
        operation,
        extensions: Extensions::default(),
    };
    let mut buffer = vec![0; MAX_ARGUMENTS];
    let len = request.encode(payload_len, agreed, &mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

pub(crate) fn c_string(text: impl AsRef<[u8]>) -> CString {
    CString::new(text.as_ref()).unwrap()
}
