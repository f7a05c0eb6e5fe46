//! The thread of a queue that is being served.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::{Drained, GuestSpace, Position, Processors, Queue};

/// How often a ring is looked at whose driver does not kick.
const POLL_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// How the thread of a queue learns that something is available.
#[derive(Debug, Clone)]
pub enum Kick {
    /// Somebody signals this eventfd(2).
    Event(Arc<OwnedFd>),
    /// Nobody tells: the ring is looked at every millisecond.
    Polled,
}

/// Which of the device's queues a worker serves, and where.
#[derive(Debug, Clone)]
pub struct Place {
    /// The queue's number, which the thread is named after: `virtio-fs-q0`.
    pub index: u16,
    /// Where the thread is to run; `None` for anywhere.
    pub processors: Option<Processors>,
}

/// Serves a queue on a thread of its own, until [`stop`](Self::stop) or dropped.
///
/// The thread makes one system call for each time that it wakes up: events are registered
/// edge-triggered (epoll(7)), and each write to an eventfd is an edge, whether or not the one before
/// was read. So they are never read, and it does not matter who else listens to them.
pub struct Worker<AS: GuestSpace> {
    shared: Arc<Shared<AS>>,
    kick: Kick,
    thread: Option<JoinHandle<()>>,
}

struct Shared<AS: GuestSpace> {
    queue: Queue<AS>,
    epoll: OwnedFd,
    /// Signalled when there is something new in the fields below.
    wake: OwnedFd,
    ending: AtomicBool,
    polled: AtomicBool,
    /// To be called when the driver broke the ring.
    broken: Box<dyn Fn() + Send + Sync>,
}

impl<AS: GuestSpace> Worker<AS> {
    /// Serves `queue` at its place, what is available already included. Where the driver breaks the
    /// ring, `broken` is called, once, from the thread.
    ///
    /// # Errors
    /// The system has no descriptors or threads left, or nobody can wait for `kick`.
    pub fn start(
        place: Place,
        queue: Queue<AS>,
        kick: Kick,
        broken: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ending: AtomicBool::new(false),
            polled: AtomicBool::new(matches!(kick, Kick::Polled)),
            broken,
        });
        shared.listen_to(&shared.wake)?;
        if let Kick::Event(event) = &kick {
            shared.listen_to(event)?;
        }
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("virtio-fs-q{}", place.index))
            .spawn(move || {
                place.take();
                theirs.run();
            })?;
        Ok(Self {
            shared,
            kick,
            thread: Some(thread),
        })
    }

    /// Goes on with another kick, one that was signalled before included.
    ///
    /// # Errors
    /// As [`start`](Self::start); then nobody waits for either.
    pub fn set_kick(&mut self, kick: Kick) -> io::Result<()> {
        if let Kick::Event(event) = &self.kick {
            // Others have it open, too: it would stay registered when it is closed here.
            epoll::delete(&self.shared.epoll, event)?;
        }
        if let Kick::Event(event) = &kick {
            self.shared.listen_to(event)?;
        }
        let polled = matches!(kick, Kick::Polled);
        self.kick = kick;
        self.shared.polled.store(polled, Ordering::SeqCst);
        self.shared.wake();
        Ok(())
    }

    /// [`Queue::is_within`] of the queue.
    #[must_use]
    pub fn is_within(&self, memory: &AS::M) -> bool {
        self.shared.queue.is_within(memory)
    }

    /// [`Queue::stop`], and waits for the thread.
    pub fn stop(self) -> Position {
        self.shared.queue.stop()
    }
}

impl<AS: GuestSpace> Drop for Worker<AS> {
    fn drop(&mut self) {
        self.shared.queue.stop();
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a queue panicked");
        }
    }
}

impl<AS: GuestSpace> fmt::Debug for Worker<AS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.shared.queue)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// What cannot be any more, as processors were taken from this process, is no reason to serve
    /// nobody.
    fn take(&self) {
        if let Some(processors) = &self.processors
            && let Err(error) = processors.pin_this_thread()
        {
            let queue = self.index;
            tracing::warn!(queue, %processors, %error, "cannot keep the thread of a queue to its processors");
        }
    }
}

impl<AS: GuestSpace> Shared<AS> {
    /// What the thread does.
    fn run(&self) {
        let mut broken = false;
        while !self.ending.load(Ordering::SeqCst) {
            if self.queue.drain() == Drained::Broken && !broken {
                broken = true;
                (self.broken)();
            }
            if let Err(error) = self.wait() {
                tracing::error!(%error, "cannot wait for kicks; a queue is served no more");
                return;
            }
        }
    }

    /// Waits for a kick or something else to do.
    fn wait(&self) -> Result<(), Errno> {
        let timeout = self.polled.load(Ordering::SeqCst).then_some(&POLL_INTERVAL);
        let mut events = [epoll::Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; 2];
        match epoll::wait(&self.epoll, &mut events, timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn listen_to(&self, event: impl AsFd) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            event,
            EventData::new_u64(0),
            flags,
        )?)
    }

    fn wake(&self) {
        if let Err(error) = rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot wake the thread of a queue up");
        }
    }
}
