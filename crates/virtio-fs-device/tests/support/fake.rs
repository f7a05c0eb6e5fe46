//! A daemon that serves nothing, says what it is told to say, and at some message something else. It
//! notes in each log that it wrote to a page, and to one that is none.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// What a daemon does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Says nothing any more.
    Silence,
    /// Closes the connection.
    HangUp,
    /// Answers, a byte at a time and ever so slowly.
    Trickle,
    /// Answers what is no message.
    Junk,
    /// Answers half, and closes the connection.
    Half,
    /// Answers something else.
    OtherRequest,
    /// Says that its answer is longer than it can be.
    Endless,
    /// Answers with an empty body.
    Empty,
    /// Answers with a longer body.
    Longer,
    /// Answers all ones.
    Ones,
    /// Sends a descriptor that nobody asked for.
    Descriptor,
    /// Says the same twice.
    Twice,
    /// Takes the descriptor for its state, and never does anything with it.
    KeepsState,
    /// Has more state than anybody wants, or wants no end of it.
    EndlessState,
}

pub(crate) const FAULTS: [Fault; 14] = [
    Fault::Silence,
    Fault::HangUp,
    Fault::Trickle,
    Fault::Junk,
    Fault::Half,
    Fault::OtherRequest,
    Fault::Endless,
    Fault::Empty,
    Fault::Longer,
    Fault::Ones,
    Fault::Descriptor,
    Fault::Twice,
    Fault::KeepsState,
    Fault::EndlessState,
];

const NEED_REPLY: u32 = 1 << 3;

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

/// All protocol features that matter.
pub(crate) const ALL: u64 = MQ
    | LOG_SHMFD
    | REPLY_ACK
    | BACKEND_REQ
    | CONFIG
    | INFLIGHT_SHMFD
    | RESET_DEVICE
    | CONFIGURE_MEM_SLOTS
    | DEVICE_STATE
    | SHMEM;

/// Serves `stream`, with `fault` at message `at`, counted from 0, and returns the numbers of those that
/// came, that one the last.
pub(crate) fn serve(stream: UnixStream, fault: Fault, at: usize) -> Vec<u32> {
    serve_with(ALL, stream, fault, at)
}

/// As [`serve`], with the protocol features `protocol`.
pub(crate) fn serve_with(protocol: u64, stream: UnixStream, fault: Fault, at: usize) -> Vec<u32> {
    let asks = Asks {
        window: WINDOW,
        channel: std::sync::mpsc::channel().0,
    };
    serve_that_asks(protocol, &asks, stream, fault, at)
}

/// What a daemon says of its window, and where its end of the back-end channel goes.
pub(crate) struct Asks {
    /// Bytes.
    pub(crate) window: u64,
    pub(crate) channel: std::sync::mpsc::Sender<UnixStream>,
}

/// The page that is noted in each log: the first of what `virtio-fs-guest` has for memory, which does
/// not begin at 0.
pub(crate) const WRITTEN: u64 = 0x10_0000;

/// Bytes of a window.
pub(crate) const WINDOW: u64 = 16 << 20;

/// As [`serve_with`], for somebody who makes requests on the back-end channel.
pub(crate) fn serve_that_asks(
    protocol: u64,
    asks: &Asks,
    mut stream: UnixStream,
    fault: Fault,
    at: usize,
) -> Vec<u32> {
    let needed = |request| match request {
        6 => LOG_SHMFD,
        17 => MQ,
        21 => BACKEND_REQ,
        24 => CONFIG,
        31 | 32 => INFLIGHT_SHMFD,
        34 => RESET_DEVICE,
        36..=38 => CONFIGURE_MEM_SLOTS,
        42 | 43 => DEVICE_STATE,
        44 => SHMEM,
        _ => 0,
    };
    // A channel that nobody wants stays open.
    let mut kept = Vec::new();
    let mut came = Vec::new();
    while let Some((request, flags, body, given)) = receive(&mut stream) {
        came.push(request);
        let needed = needed(request);
        assert_eq!(needed & protocol, needed, "{request} was not agreed on");
        let acknowledges = flags & NEED_REPLY == 0 || protocol & REPLY_ACK != 0;
        assert!(acknowledges, "no acknowledgement was agreed on");
        let answer = match request {
            15 => Some(protocol.to_ne_bytes().to_vec()),
            44 => Some(regions(asks.window)),
            _ => answer(request, flags, &body),
        };
        if came.len() > at {
            misbehave(
                &mut stream,
                fault,
                request,
                answer.unwrap_or_default(),
                given,
            );
            return came;
        }
        let mut state = None;
        match (request, given) {
            // SET_LOG_BASE
            (6, Some(log)) => {
                for page in [0, WRITTEN] {
                    log.write_all_at(&[1], page / 8).unwrap();
                }
            }
            (21, Some(channel)) => {
                kept.extend(asks.channel.send(OwnedFd::from(channel).into()).err());
            }
            (42, given) => state = given,
            _ => {}
        }
        let Some(answer) = answer else { continue };
        let file = (request == 31).then(record);
        send(&stream, &message(request, &answer), file.as_ref());
        if let Some(state) = state {
            transfer(state, body[0] == 0);
        }
    }
    came
}

/// Writes a state, or reads one, which may come to an early end on either side.
fn transfer(mut file: File, saves: bool) {
    let _ = match saves {
        // More than a pipe has room for.
        true => file.write_all(&[7; 100 << 10]),
        false => file.read_to_end(&mut Vec::new()).map(drop),
    };
}

pub(crate) type Message = (u32, u32, Vec<u8>, Option<File>);

pub(crate) fn receive(stream: &mut UnixStream) -> Option<Message> {
    let mut header = [0; 12];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut header)];
    let received = rustix::net::recvmsg(&*stream, into, &mut control, RecvFlags::WAITALL).ok()?;
    if received.bytes < 12 {
        return None;
    }
    let mut given = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            given = files.map(File::from).last();
        }
    }
    let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; field(8) as usize];
    stream.read_exact(&mut body).ok()?;
    Some((field(0), field(4), body, given))
}

/// What a daemon should answer, if anything.
pub(crate) fn answer(request: u32, flags: u32, body: &[u8]) -> Option<Vec<u8>> {
    let number = |value: u64| Some(value.to_ne_bytes().to_vec());
    match request {
        // GET_FEATURES: all that there are.
        1 => number(1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 26),
        17 => number(64),
        36 => number(32),
        // GET_CONFIG
        24 => {
            let mut config = body.to_vec();
            config[12..16].copy_from_slice(b"fake");
            config[48] = 1;
            Some(config)
        }
        // GET_VRING_BASE, SET_LOG_BASE, GET_INFLIGHT_FD
        11 | 6 => Some(body.to_vec()),
        31 => {
            let mut record = body.to_vec();
            record[1] = 16;
            Some(record)
        }
        // SET_DEVICE_STATE_FD: it takes the descriptor.
        42 => number(1 << 8),
        43 => number(0),
        _ if flags & NEED_REPLY != 0 => number(0),
        _ => None,
    }
}

/// The file of a record of what is in flight.
fn record() -> File {
    File::from(rustix::fs::memfd_create(c"record", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
}

/// A configuration of one shared memory region.
pub(crate) fn regions(size: u64) -> Vec<u8> {
    let mut config = vec![0; 8 + 256 * 8];
    config[0] = 1;
    config[8..16].copy_from_slice(&size.to_ne_bytes());
    config
}

fn misbehave(
    stream: &mut UnixStream,
    fault: Fault,
    request: u32,
    body: Vec<u8>,
    given: Option<File>,
) {
    let right = message(request, &body);
    let file = tempfile::tempfile().unwrap();
    let bytes = match fault {
        Fault::Silence => Vec::new(),
        Fault::HangUp => return,
        Fault::Trickle => {
            for byte in right.iter().cycle() {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            return;
        }
        Fault::Junk => vec![0xa5; 300],
        Fault::Half => {
            send(stream, &right[..right.len() / 2], None);
            return;
        }
        Fault::OtherRequest => message(request + 1, &body),
        Fault::Endless => {
            let mut message = right;
            message[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
            message
        }
        Fault::Empty => message(request, &[]),
        Fault::Longer => message(request, &[&body[..], &[0; 8]].concat()),
        Fault::Ones => message(request, &vec![0xff; body.len()]),
        Fault::Descriptor | Fault::KeepsState => right,
        Fault::EndlessState => {
            send(stream, &right, None);
            if let Some(mut state) = given {
                while state.write_all(&[7; 4096]).is_ok() {}
            }
            // Nothing else is wrong with it.
            serve(stream.try_clone().unwrap(), Fault::Silence, usize::MAX);
            return;
        }
        Fault::Twice => right.repeat(2),
    };
    let file = (fault == Fault::Descriptor).then_some(&file);
    send(stream, &bytes, file);
    // Until it is given up.
    while receive(stream).is_some() {}
}

/// A reply.
pub(crate) fn message(request: u32, body: &[u8]) -> Vec<u8> {
    let header = [request, 1 | 1 << 2, body.len() as u32];
    let header = header.iter().flat_map(|field| field.to_ne_bytes());
    header.chain(body.iter().copied()).collect()
}

pub(crate) fn send(stream: &UnixStream, bytes: &[u8], file: Option<&File>) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    }
    let bytes = [std::io::IoSlice::new(bytes)];
    // It may have been given up already.
    let _ = rustix::net::sendmsg(stream, &bytes, &mut control, SendFlags::NOSIGNAL);
}
