//! The threads that serve a mount.
//!
//! A thread is started when a request comes while all others are busy, up to a limit, and kept. The
//! last one always goes on to read: what would make it wait is put aside for the others. So a
//! request that waits for a disk keeps no FORGET waiting, and no INTERRUPT of itself. Who waits for a
//! lock of somebody else, perhaps for ever, has a thread of his own.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

use fuse_fs::{
    Blocking, BufferSink, BufferSource, Negotiation, Outcome, PayloadSink, REPLY_BUFFER, Serve,
};
use fuse_wire::abi::{InHeader, InterruptIn, OutHeader};
use fuse_wire::{Errno, Opcode};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::device::{Device, RawRequest, RequestBuffer};
use super::pages::Pages;

/// Most data in a reply, in bytes.
const MAX_READ: usize = Negotiation::MAX_WRITE as usize;

/// Serves the mount behind `device` on up to `max_threads` threads, at least 2, until it is gone.
///
/// Where the device fails, `unmount` has to make the mount go away, which ends the other threads.
///
/// # Errors
/// Why the device failed.
pub(super) fn serve(
    device: Device,
    filesystem: &dyn Serve,
    max_threads: usize,
    unmount: &(dyn Fn() + Sync),
) -> io::Result<()> {
    let workers = Workers {
        device: Arc::new(device),
        filesystem,
        max_threads: max_threads.max(2),
        unmount,
        state: Mutex::new(State {
            threads: 1,
            reading: 1,
            ..State::default()
        }),
        waited: Condvar::new(),
    };
    thread::scope(|scope| workers.work(scope, &workers.device));
    match workers.state().failure.take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Workers<'f> {
    device: Arc<Device>,
    filesystem: &'f dyn Serve,
    max_threads: usize,
    unmount: &'f (dyn Fn() + Sync),
    state: Mutex<State>,
    /// One that waited for a lock does so no longer.
    waited: Condvar,
}

/// Most requests that wait for a lock. What exceeds it is ENOLCK.
const MAX_WAITING: usize = 1024;
/// After which whoever has begun to wait meanwhile is told to give up, too.
const CANCEL_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Default)]
struct State {
    threads: usize,
    /// Those that read, or are about to.
    reading: usize,
    /// Requests that wait for a thread that may wait. Their number is bounded by that of the
    /// processes that use the mount, and by what INIT says of background requests.
    aside: VecDeque<Aside>,
    /// Requests that wait for a lock.
    waiting: usize,
    failure: Option<io::Error>,
}

/// A request that is put aside, and where it is to be answered.
struct Aside {
    device: Arc<Device>,
    bytes: Box<[u8]>,
}

impl Aside {
    fn new(device: &Arc<Device>, bytes: &[u8]) -> Self {
        Self {
            device: Arc::clone(device),
            bytes: bytes.into(),
        }
    }
}

impl<'f> Workers<'f> {
    /// What a thread does.
    fn work<'s>(&'s self, scope: &'s Scope<'s, 'f>, device: &Arc<Device>) {
        if let Err(error) = self.read_and_serve(scope, device) {
            self.state().failure.get_or_insert(error);
            (self.unmount)();
        }
        self.cancel_waits();
    }

    fn read_and_serve<'s>(
        &'s self,
        scope: &'s Scope<'s, 'f>,
        device: &Arc<Device>,
    ) -> io::Result<()> {
        let mut request = RequestBuffer::new();
        let mut buffers = Buffers::new();
        while let Some(bytes) = device.receive(&mut request)? {
            let mut blocking = self.stop_reading(scope);
            if let Some(unique) = interrupted(bytes) {
                self.withdraw(unique);
            }
            if header(bytes).is_some_and(|it| it.opcode == Opcode::SetLkW.raw()) {
                blocking = Blocking::Forbidden;
            }
            match buffers.serve(self.filesystem, device, bytes, blocking) {
                Served::Done => {}
                Served::WouldBlock => self.put_aside(device, bytes),
                Served::WouldWait => self.wait(scope, device, bytes),
            }
            while let Some(aside) = self.take_up_or_read() {
                buffers.serve(
                    self.filesystem,
                    &aside.device,
                    &aside.bytes,
                    Blocking::Allowed,
                );
            }
        }
        Ok(())
    }

    /// The calling thread has a request. Returns whether it may wait: only where another reads.
    fn stop_reading<'s>(&'s self, scope: &'s Scope<'s, 'f>) -> Blocking {
        let mut state = self.state();
        state.reading -= 1;
        if state.reading > 0 {
            return Blocking::Allowed;
        }
        if state.threads == self.max_threads {
            return Blocking::Forbidden;
        }
        let device = self.another_device();
        let started = thread::Builder::new()
            .name("mount".to_owned())
            .spawn_scoped(scope, move || self.work(scope, &device));
        match started {
            Ok(_) => {
                state.threads += 1;
                state.reading += 1;
                Blocking::Allowed
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start another thread");
                Blocking::Forbidden
            }
        }
    }

    /// The mount by a descriptor of its own, so that threads do not share one list of requests
    /// under way; by the common one where the kernel does not know how.
    fn another_device(&self) -> Arc<Device> {
        match self.device.another() {
            Ok(device) => Arc::new(device),
            Err(error) => {
                tracing::debug!(%error, "threads share a descriptor");
                Arc::clone(&self.device)
            }
        }
    }

    fn put_aside(&self, device: &Arc<Device>, bytes: &[u8]) {
        self.state().aside.push_back(Aside::new(device, bytes));
    }

    /// Serves a request that waits for a lock on a thread that does nothing else.
    fn wait<'s>(&'s self, scope: &'s Scope<'s, 'f>, device: &Arc<Device>, bytes: &[u8]) {
        let mut state = self.state();
        let aside = Aside::new(device, bytes);
        let started = match state.waiting {
            MAX_WAITING => Err(io::Error::from(io::ErrorKind::ResourceBusy)),
            _ => thread::Builder::new()
                .name("mount-lock".to_owned())
                .spawn_scoped(scope, move || self.wait_for_lock(&aside)),
        };
        match started {
            Ok(_) => state.waiting += 1,
            Err(error) => {
                tracing::debug!(%error, "cannot wait for a lock");
                fail(
                    device,
                    header(bytes).unwrap_or_default().unique,
                    Errno::ENOLCK,
                );
            }
        }
    }

    fn wait_for_lock(&self, Aside { device, bytes }: &Aside) {
        Buffers::new().serve(self.filesystem, device, bytes, Blocking::Allowed);
        self.state().waiting -= 1;
        self.waited.notify_all();
    }

    /// Ends what would keep the threads from ending. Whoever asked is gone, or is told ENOLCK.
    fn cancel_waits(&self) {
        let mut state = self.state();
        while state.waiting > 0 {
            self.filesystem.cancel_waits();
            state = self
                .waited
                .wait_timeout(state, CANCEL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A request that the calling thread, which is done with another, may wait for; or none, and it
    /// is one of those that read.
    fn take_up_or_read(&self) -> Option<Aside> {
        let mut state = self.state();
        let aside = match state.reading {
            0 => None,
            _ => state.aside.pop_front(),
        };
        if aside.is_none() {
            state.reading += 1;
        }
        aside
    }

    /// Answers the request `unique` with EINTR, if it is one that nobody has begun.
    fn withdraw(&self, unique: u64) {
        let aside = {
            let mut state = self.state();
            let place = state
                .aside
                .iter()
                .position(|aside| header(&aside.bytes).is_some_and(|it| it.unique == unique));
            place.and_then(|place| state.aside.remove(place))
        };
        if let Some(aside) = aside {
            fail(&aside.device, unique, Errno::EINTR);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Done,
    /// It is to be served again where it may wait.
    WouldBlock,
    /// It is to be served again where it may wait, perhaps for ever.
    WouldWait,
}

/// What a thread needs for a reply.
struct Buffers {
    reply: Box<[u8]>,
    data: Pages,
}

impl Buffers {
    fn new() -> Self {
        Self {
            reply: vec![0; REPLY_BUFFER].into_boxed_slice(),
            data: Pages::new(MAX_READ),
        }
    }

    /// Serves the request in `bytes`, which came by `device`, and answers it.
    fn serve(
        &mut self,
        filesystem: &dyn Serve,
        device: &Device,
        bytes: &[u8],
        blocking: Blocking,
    ) -> Served {
        let RawRequest { message, payload } = RawRequest::split(bytes);
        let mut source = BufferSource::new(payload);
        let mut sink = BufferSink::new(self.data.bytes());
        // What a panic leaves behind is the filesystem's own, behind locks that it has to mind
        // anyway; the buffers hold nothing from one request to the next.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let sink = Some(&mut sink as &mut dyn PayloadSink);
            filesystem.serve(message, &mut source, sink, &mut self.reply, blocking)
        }));
        match outcome {
            Ok(Outcome::Reply { head, payload }) => {
                let sent = device.send(&self.reply[..head], &self.data.bytes()[..payload]);
                if let Err(error) = sent {
                    let header = header(bytes).unwrap_or_default();
                    tracing::error!(
                        opcode = header.opcode,
                        "the kernel refuses a reply: {error}"
                    );
                    fail(device, header.unique, Errno::EIO);
                }
                Served::Done
            }
            Ok(Outcome::NoReply) => Served::Done,
            Ok(Outcome::WouldBlock) => Served::WouldBlock,
            Ok(Outcome::WouldWait) => Served::WouldWait,
            Err(_) => {
                let unique = header(bytes).unwrap_or_default().unique;
                fail(device, unique, Errno::EIO);
                Served::Done
            }
        }
    }
}

/// Answers with an error.
fn fail(device: &Device, unique: u64, errno: Errno) {
    let header = OutHeader::failure(unique, errno);
    if let Err(error) = device.send(header.as_bytes(), &[]) {
        tracing::error!(unique, "the kernel refuses an error reply: {error}");
    }
}

fn header(request: &[u8]) -> Option<InHeader> {
    let (header, _) = InHeader::read_from_prefix(request).ok()?;
    Some(header)
}

/// Which request an INTERRUPT is about.
fn interrupted(request: &[u8]) -> Option<u64> {
    let (header, arguments) = InHeader::read_from_prefix(request).ok()?;
    let (args, _) = InterruptIn::read_from_prefix(arguments).ok()?;
    (header.opcode == Opcode::Interrupt.raw()).then_some(args.unique)
}

#[cfg(test)]
mod tests;
