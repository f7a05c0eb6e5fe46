//! What a daemon asks of its front-end (the vhost-user specification, "Back-end message types").

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags};

use super::channel::Deadline;
use super::wire::{Fields, HEADER, RequestHeader, reply};
use crate::window::{FileMapping, Mappings, Refusal};
use crate::{Error, State};

/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`: there is nothing that could change.
const CONFIG_CHANGE: u32 = 2;
/// `VHOST_USER_BACKEND_SHMEM_MAP`.
const SHMEM_MAP: u32 = 9;
/// `VHOST_USER_BACKEND_SHMEM_UNMAP`.
const SHMEM_UNMAP: u32 = 10;

/// Bytes of `VhostUserMMap`: region, padding, offset in the file, offset in the region, length, flags.
const MAPPING: usize = 40;
/// The guest may write.
const WRITABLE: u64 = 1;
/// `VIRTIO_FS_SHMCAP_ID_CACHE`: the one region that the device has.
const CACHE: u8 = 0;

/// Our end of the back-end channel. It is never waited for: whoever looks after it does a step when
/// the socket is ready, and when the time is over that a message, or the answer to it, may take.
#[derive(Debug)]
pub(super) struct BackChannel {
    stream: UnixStream,
    limit: Duration,
    /// The message that is coming in, and how much of it is there.
    message: [u8; HEADER + MAPPING],
    there: usize,
    files: Vec<OwnedFd>,
    /// What is left to send of an answer.
    answer: Vec<u8>,
    /// Since a message began to come in, or its answer to go out.
    deadline: Option<Deadline>,
}

impl BackChannel {
    /// A channel whose messages may take `limit`, and the daemon's end of it.
    pub(super) fn new(limit: Duration) -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("make a socket pair"))?;
        let channel = Self {
            stream: ours,
            limit,
            message: [0; HEADER + MAPPING],
            there: 0,
            files: Vec::new(),
            answer: Vec::new(),
            deadline: None,
        };
        Ok((channel, theirs.into()))
    }

    /// What to wait for before the next step.
    pub(super) const fn awaits(&self) -> PollFlags {
        match self.answer.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::OUT,
        }
    }

    /// How long to wait for it, if not for ever.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.deadline.map(Deadline::remaining)
    }

    /// Does what can be done now, one message at most: `window` is what it is about.
    ///
    /// # Errors
    /// The daemon broke the protocol, is too slow or gone: it is to be given up.
    pub(super) fn step(&mut self, window: &Mappings, state: State) -> Result<(), Error> {
        self.advance(window, state)?;
        match self.deadline {
            Some(deadline) => deadline.naming(self.message_name()).check(),
            None => Ok(()),
        }
    }

    fn advance(&mut self, window: &Mappings, state: State) -> Result<(), Error> {
        if !self.answer.is_empty() {
            return self.send(state);
        }
        let broken = |request, rule| broken(request, rule, state);
        if !self.receive(HEADER, state)? {
            return Ok(());
        }
        let header = RequestHeader::parse(&self.message);
        let request = header.request;
        let body = match request {
            CONFIG_CHANGE => 0,
            SHMEM_MAP | SHMEM_UNMAP => MAPPING,
            _ => return Err(broken(request, "there is no such message")),
        };
        if !header.is_request() {
            return Err(broken(request, "it has other flags"));
        }
        if header.size as usize != body {
            return Err(broken(request, "it has another length"));
        }
        if !self.receive(HEADER.saturating_add(body), state)? {
            return Ok(());
        }
        self.there = 0;
        self.deadline = None;
        let files = std::mem::take(&mut self.files);
        let done = match (request, files.as_slice()) {
            (SHMEM_MAP, [file]) => map(&self.message, file.as_fd(), window),
            (SHMEM_UNMAP, []) => unmap(&self.message, window),
            (CONFIG_CHANGE, []) => Ok(()),
            _ => return Err(broken(request, "it has another number of descriptors")),
        };
        if let Err(why) = &done {
            // Whoever asked for it is told; a guest can have it happen.
            tracing::debug!(request, %why, "the daemon is refused a change of the DAX window");
        }
        if header.wants_reply() {
            self.answer = reply(request, u64::from(done.is_err()));
            self.send(state)?;
        }
        Ok(())
    }

    /// Receives what is there of the first `len` bytes of a message, and returns whether that is all.
    fn receive(&mut self, len: usize, state: State) -> Result<bool, Error> {
        let doing = "receive a message on the back-end channel";
        let late = Deadline::after(self.limit, doing, state).naming(self.message_name());
        while self.there < len {
            let into = self.message.get_mut(self.there..len).unwrap_or_default();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(into)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
            );
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.files.extend(descriptors);
                }
            }
            let received = match received {
                Ok(received) => received,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(late.failed(errno)),
            };
            if received.bytes == 0 {
                return Err(late.gone());
            }
            self.deadline.get_or_insert(late);
            self.there = self.there.saturating_add(received.bytes);
            if received.flags.contains(ReturnFlags::CTRUNC) || self.files.len() > 1 {
                let request = RequestHeader::parse(&self.message).request;
                return Err(broken(
                    request,
                    "it has another number of descriptors",
                    state,
                ));
            }
        }
        Ok(true)
    }

    /// What is coming in, or answered, as far as that is known.
    fn message_name(&self) -> Option<&'static str> {
        let known = self.there >= HEADER || !self.answer.is_empty();
        match RequestHeader::parse(&self.message).request {
            _ if !known => None,
            CONFIG_CHANGE => Some("BACKEND_CONFIG_CHANGE_MSG"),
            SHMEM_MAP => Some("BACKEND_SHMEM_MAP"),
            SHMEM_UNMAP => Some("BACKEND_SHMEM_UNMAP"),
            _ => None,
        }
    }

    /// Sends what there is room for of the answer.
    fn send(&mut self, state: State) -> Result<(), Error> {
        let doing = "answer a message on the back-end channel";
        let late = Deadline::after(self.limit, doing, state).naming(self.message_name());
        self.deadline.get_or_insert(late);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(&self.stream, &self.answer, flags) {
            Ok(count) => drop(self.answer.drain(..count.min(self.answer.len()))),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(late.failed(errno)),
        }
        if self.answer.is_empty() {
            self.deadline = None;
        }
        Ok(())
    }
}

/// That `request` is not as the protocol has it.
const fn broken(request: u32, rule: &'static str, state: State) -> Error {
    Error::BackChannel {
        request,
        state,
        rule,
    }
}

impl AsFd for BackChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A range of a region, as a message has it.
struct Range {
    region: u8,
    file_offset: u64,
    offset: u64,
    len: u64,
    flags: u64,
}

impl Range {
    fn parse(message: &[u8]) -> Self {
        let mut fields = Fields::new(message.get(HEADER..).unwrap_or_default());
        let [region, ..] = fields.u64().to_ne_bytes();
        Self {
            region,
            file_offset: fields.u64(),
            offset: fields.u64(),
            len: fields.u64(),
            flags: fields.u64(),
        }
    }
}

fn map(message: &[u8], file: BorrowedFd<'_>, window: &Mappings) -> Result<(), Refusal> {
    let range = Range::parse(message);
    match (range.region, range.flags & !WRITABLE) {
        (CACHE, 0) => window.map(FileMapping {
            offset: range.offset,
            len: range.len,
            file,
            file_offset: range.file_offset,
            writable: range.flags & WRITABLE != 0,
        }),
        (CACHE, _) => Err(Refusal::Flags),
        _ => Err(Refusal::Region),
    }
}

fn unmap(message: &[u8], window: &Mappings) -> Result<(), Refusal> {
    let range = Range::parse(message);
    match range.region {
        CACHE => window.unmap(range.offset, range.len),
        _ => Err(Refusal::Region),
    }
}
