//! A daemon that does what it should, but for where the fuzzer says what it does instead.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, OFlags};

use crate::fake::{self, Message, answer, message, receive, regions, send};
use crate::input::Input;
use crate::{MEMORY, PAGE, WINDOW};

const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_BACKEND_REQ_FD: u32 = 21;
const GET_INFLIGHT_FD: u32 = 31;
const SET_DEVICE_STATE_FD: u32 = 42;
const GET_SHMEM_CONFIG: u32 = 44;
// What is asked on the back-end channel.
const BACKEND_CONFIG_CHANGE: u32 = 2;
const SHMEM_MAP: u32 = 9;
const SHMEM_UNMAP: u32 = 10;
/// Most descriptors that are kept.
const MAX_KEPT: usize = 32;

pub(crate) struct Daemon<'a> {
    input: Input<'a>,
    /// Protocol features that it offers.
    protocol: u64,
    /// Messages until it does something else than it should.
    good: u8,
    /// Descriptors that it was given.
    kept: Vec<File>,
    back_channel: Option<UnixStream>,
}

impl<'a> Daemon<'a> {
    pub(crate) fn new(mut input: Input<'a>) -> Self {
        Self {
            protocol: fake::ALL & !input.long(),
            good: input.byte(),
            kept: Vec::new(),
            back_channel: None,
            input,
        }
    }

    /// Serves one connection.
    pub(crate) fn serve(&mut self, mut stream: UnixStream) {
        while let Some(message) = receive(&mut stream) {
            if !self.reply(&stream, message) {
                break;
            }
        }
        self.kept.clear();
        self.back_channel = None;
    }

    /// Does something about a message, and returns whether it goes on.
    fn reply(&mut self, stream: &UnixStream, (request, flags, body, given): Message) -> bool {
        let body = match request {
            GET_PROTOCOL_FEATURES => Some(self.protocol.to_ne_bytes().to_vec()),
            GET_SHMEM_CONFIG => Some(regions(WINDOW)),
            _ => answer(request, flags, &body),
        };
        let right = body.map(|body| message(request, &body)).unwrap_or_default();
        let state = match (request, given) {
            (SET_DEVICE_STATE_FD, state) => state,
            (SET_BACKEND_REQ_FD, Some(channel)) => {
                self.back_channel = Some(OwnedFd::from(channel).into());
                None
            }
            (_, given) => {
                self.kept
                    .extend(given.filter(|_| self.kept.len() < MAX_KEPT));
                None
            }
        };
        if self.good > 0 || self.input.is_empty() {
            self.good = self.good.saturating_sub(1);
            let record = (request == GET_INFLIGHT_FD).then(memory_file);
            send(stream, &right, record.as_ref());
            return true;
        }
        let goes_on = self.misbehave(stream, right, state);
        self.good = self.input.byte();
        goes_on
    }

    fn misbehave(&mut self, stream: &UnixStream, mut right: Vec<u8>, state: Option<File>) -> bool {
        match self.input.byte() % 14 {
            0 => return false,
            // Nothing.
            1 => right.clear(),
            2 => right = self.input.bytes().to_vec(),
            3 => {
                let (at, value) = (self.input.byte(), self.input.byte());
                if let Some(byte) = right.get_mut(usize::from(at)) {
                    *byte = value;
                }
            }
            // Another number: whatever matters in a body is one, at one end or the other.
            4 => {
                let number = self.input.long().to_ne_bytes();
                let at = match self.input.flag() {
                    true => right.get_mut(12..20),
                    false => right.last_chunk_mut::<8>().map(|last| &mut last[..]),
                };
                if let Some(at) = at {
                    at.copy_from_slice(&number);
                }
            }
            5 => right.truncate(self.input.byte().into()),
            6 => right = right.repeat(2),
            7 => {
                right.extend_from_slice(self.input.bytes());
                let body = right.len().saturating_sub(12) as u32;
                if let Some(size) = right.get_mut(8..12) {
                    size.copy_from_slice(&body.to_ne_bytes());
                }
            }
            // In parts, a descriptor with each.
            8 => {
                let part = usize::from(self.input.byte()).max(1);
                for part in right.chunks(part) {
                    send(stream, part, Some(&self.file()));
                }
                return true;
            }
            9 => {
                send(stream, &right, None);
                self.write_state(state);
                return true;
            }
            // Where the state comes from; in an answer that says so.
            10 => {
                right.truncate(12);
                right.resize(20, 0);
                send(stream, &right, Some(&self.file()));
                return true;
            }
            11 => self.signal(),
            12 => self.write_memory(),
            _ => self.ask(),
        }
        send(stream, &right, None);
        true
    }

    /// Of any kind.
    fn file(&mut self) -> File {
        match self.input.byte() % 4 {
            0 => memory_file(),
            1 => File::open("/dev/null").unwrap(),
            2 => OwnedFd::from(UnixStream::pair().unwrap().0).into(),
            _ => rustix::pipe::pipe().unwrap().0.into(),
        }
    }

    /// Writes a state, or reads one and ends that early, or keeps it.
    fn write_state(&mut self, state: Option<File>) {
        let Some(mut state) = state else { return };
        let chunk = self.input.bytes().repeat(self.input.byte().into());
        let _ = state.write_all(&chunk);
        if self.input.flag() {
            self.kept.push(state);
        }
    }

    /// Signals what it was given, which can also be interrupts, and may have others wait for room.
    fn signal(&mut self) {
        let (count, blocks) = (self.input.long(), self.input.flag());
        for event in &mut self.kept {
            let ready = &mut [PollFd::new(event, PollFlags::OUT)];
            if rustix::event::poll(ready, Some(&Timespec::default())) != Ok(1) {
                continue;
            }
            let flags = rustix::fs::fcntl_getfl(&*event).unwrap();
            let _ = rustix::fs::fcntl_setfl(&*event, flags | OFlags::NONBLOCK);
            let _ = rustix::io::write(&*event, &count.to_ne_bytes());
            if blocks {
                let _ = rustix::fs::fcntl_setfl(&*event, flags - OFlags::NONBLOCK);
            }
        }
    }

    /// Writes to the guest's memory, or to the log of what is written there.
    fn write_memory(&mut self) {
        let at = self.input.long() % MEMORY;
        let bytes = self.input.bytes();
        for file in &self.kept {
            let _ = file.write_all_at(bytes, at);
        }
    }

    /// Asks for something on the back-end channel: mostly what it may, as few guesses are.
    fn ask(&mut self) {
        let request = match self.input.byte() % 4 {
            0 => SHMEM_MAP,
            1 => SHMEM_UNMAP,
            2 => BACKEND_CONFIG_CHANGE,
            _ => self.input.byte().into(),
        };
        let (offset, pages) = (self.input.byte(), self.input.byte() % 4 + 1);
        let mut fields = [0, 0, u64::from(offset) * PAGE, u64::from(pages) * PAGE, 1];
        let (field, value) = (self.input.byte(), self.input.long());
        if let Some(field) = fields.get_mut(usize::from(field).wrapping_sub(1)) {
            *field = value;
        }
        let body = fields.map(u64::to_ne_bytes).concat();
        let has_body = request != BACKEND_CONFIG_CHANGE;
        let mut asked = message(request, if has_body { &body } else { &[] });
        // It is no reply, and wants one.
        asked[4] = 1 | 1 << 3;
        let file = match self.input.flag() {
            false => (request == SHMEM_MAP).then(memory_file),
            true => {
                asked.truncate(self.input.byte().into());
                self.input.flag().then(|| self.file())
            }
        };
        if let Some(channel) = &self.back_channel {
            send(channel, &asked, file.as_ref());
        }
    }
}

fn memory_file() -> File {
    let file = rustix::fs::memfd_create(c"fuzz", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(file.as_fd(), 2 * PAGE).unwrap();
    file.into()
}
