//! The descriptors by which driver and device signal each other.
//!
//! What a front-end gives is held here as long as it is connected, and that it is gone shows when
//! nobody holds the other end of its connection any more. So nothing is taken that could hold it: an
//! eventfd cannot, and of a socket only the half that signals is kept (see [`seal`]).

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// How long a thread may wait for a front-end to make room, while somebody waits for the thread.
const LET_GO_INTERVAL: Duration = Duration::from_millis(10);

/// What a front-end gave is nothing to signal by.
#[derive(Debug, thiserror::Error)]
#[error("the descriptor for an event is {0}")]
pub(crate) struct NoEvent(&'static str);

impl From<NoEvent> for io::Error {
    fn from(error: NoEvent) -> Self {
        Self::other(error)
    }
}

/// Checks an event that the front-end signals, a vring's *kick*.
///
/// # Errors
/// It is no eventfd. One cannot wait for most others, and what one can wait for has to be read.
pub fn kick(event: File) -> io::Result<File> {
    match kind(&event)? {
        Kind::Event => Ok(event),
        Kind::Socket => Err(NoEvent("a socket, not an eventfd").into()),
    }
}

/// Checks an event that the front-end listens to, a vring's *call* or *err*. Nothing arrives at it any
/// more where it is a socket: see [`Handler::set_channel`](crate::front_end::Handler::set_channel).
///
/// # Errors
/// It is neither an eventfd nor a connected stream socket.
pub fn call(event: File) -> io::Result<File> {
    listened(&event)?;
    Ok(event)
}

fn listened(event: &File) -> io::Result<Kind> {
    let kind = kind(event)?;
    if kind == Kind::Socket {
        seal(event)?;
    }
    Ok(kind)
}

/// Has nothing arrive at `socket` any more. Descriptors that were on the way there, or come there
/// later, would stay open as long as it does.
///
/// # Errors
/// It is no connected stream socket.
pub(crate) fn seal(socket: impl AsFd) -> io::Result<()> {
    shutdown(&socket, Shutdown::Read)?;
    let mut arrived = [0; 1 << 12];
    while recv(&socket, &mut arrived, RecvFlags::DONTWAIT)?.1 > 0 {}
    Ok(())
}

/// An event that the front-end listens to, a vring's *call* or *err*; it can be replaced at any
/// time, by another one or by none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal(Arc<ArcSwapOption<Listened>>);

#[derive(Debug)]
struct Listened {
    event: File,
    kind: Kind,
    /// Who writes to it waits until there is room, and the front-end may never make any. It is asked
    /// for then: what is shared with the front-end is left as it is.
    waits: bool,
    failed: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    /// As with User Mode Linux, which cannot wait for eventfds.
    Socket,
}

impl Signal {
    /// Returns whether there was none before.
    ///
    /// # Errors
    /// `event` is neither an eventfd nor a connected stream socket; then the one before stays.
    pub(crate) fn replace(&self, event: Option<File>) -> io::Result<bool> {
        let listened = event.map(Listened::new).transpose()?;
        Ok(self.swap(listened))
    }

    /// From now on nobody listens.
    pub(crate) fn clear(&self) {
        self.swap(None);
    }

    /// Returns whether there was none before.
    fn swap(&self, listened: Option<Listened>) -> bool {
        let before = self.0.swap(listened.map(Arc::new));
        if let Some(before) = &before {
            before.wait_for_others();
        }
        before.is_none()
    }

    /// Signals, where somebody listens.
    pub(crate) fn signal(&self) {
        if let Some(listened) = &*self.0.load() {
            listened.signal();
        }
    }

    fn waits(&self) -> bool {
        self.0.load().as_ref().is_some_and(|event| event.waits)
    }

    fn let_go(&self) {
        if let Some(listened) = &*self.0.load() {
            listened.let_go();
        }
    }
}

/// Does `work`, which takes until other threads have signalled, and has none of them wait for a
/// front-end for ever meanwhile: `signals` are all that they may signal before they get to that.
pub(crate) fn keep_going<T>(signals: &[Signal], work: impl FnOnce() -> T) -> T {
    if !signals.iter().any(Signal::waits) {
        return work();
    }
    thread::scope(|scope| {
        let (done, working) = channel::<()>();
        let helper = thread::Builder::new().name("virtio-fs-stop".to_owned());
        let helper = helper.spawn_scoped(scope, move || {
            while working.recv_timeout(LET_GO_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                signals.iter().for_each(Signal::let_go);
            }
        });
        if let Err(error) = helper {
            tracing::warn!(%error, "a queue may wait for its front-end");
        }
        let result = work();
        drop(done);
        result
    })
}

impl Listened {
    fn new(event: File) -> io::Result<Self> {
        let kind = listened(&event)?;
        let blocking = !fcntl_getfl(&event)?.contains(OFlags::NONBLOCK);
        Ok(Self {
            kind,
            waits: blocking && kind == Kind::Event,
            failed: AtomicBool::new(false),
            event,
        })
    }

    fn signal(&self) {
        if self.waits && !self.has_room() {
            return;
        }
        let one = 1u64.to_ne_bytes();
        let done = match self.kind {
            Kind::Event => rustix::io::write(&self.event, &one),
            Kind::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                send(&self.event, &one, flags)
            }
        };
        match done {
            // Where there is no room for one more it is signalled already.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => {
                if !self.failed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "cannot signal an event of the front-end's");
                }
            }
        }
    }

    /// Whether there is room for one more. Where there is none it is signalled already.
    ///
    /// A front-end that fills it up right after that has the thread wait which serves its queue, or
    /// one of the pool: [`let_go`](Self::let_go) ends that where somebody waits for the thread.
    fn has_room(&self) -> bool {
        let mut events = [PollFd::new(&self.event, PollFlags::OUT)];
        let at_once = Timespec::default();
        loop {
            match poll(&mut events, Some(&at_once)) {
                Ok(ready) => return ready != 0,
                Err(Errno::INTR) => {}
                // The write tells what is wrong.
                Err(_) => return true,
            }
        }
    }

    /// Makes room where there is none, so that who waits for that goes on. Only a front-end that
    /// fills its own event up loses anything by it.
    fn let_go(&self) {
        if self.waits && !self.has_room() {
            let mut count = [0; 8];
            let count = &mut [IoSliceMut::new(&mut count)];
            // That it has no position is said by -1. Where it fails, somebody else made room.
            let _ = preadv2(&self.event, count, u64::MAX, ReadWriteFlags::NOWAIT);
        }
    }

    /// Waits until nobody signals it any more: nobody new does.
    fn wait_for_others(self: &Arc<Self>) {
        while self.waits && Arc::strong_count(self) > 1 {
            self.let_go();
            thread::yield_now();
        }
    }
}

fn kind(event: &File) -> io::Result<Kind> {
    match FileType::from_raw_mode(fstat(event)?.st_mode) {
        // What has no type is an anonymous inode, as that of an eventfd is.
        FileType::Unknown => Ok(Kind::Event),
        FileType::Socket => Ok(Kind::Socket),
        FileType::Fifo => Err(NoEvent("a pipe, not an eventfd").into()),
        _ => Err(NoEvent("a file, not an eventfd").into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn full() -> File {
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        event.into()
    }

    /// What happens where the front-end fills its event up just after it had room.
    fn wait_for_room(signal: &Signal) {
        let listened = signal.0.load_full().unwrap();
        rustix::io::write(&listened.event, &1u64.to_ne_bytes()).unwrap();
    }

    #[test]
    fn who_waits_for_the_front_end_is_let_go() {
        let signal = Signal::default();
        signal.replace(Some(full())).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait_for_room(&signal));
            keep_going(std::slice::from_ref(&signal), || waiting.join().unwrap());
        });
        let waiting = signal.0.load_full().unwrap();
        rustix::io::write(&waiting.event, &(u64::MAX - 2).to_ne_bytes()).unwrap();
        drop(waiting);
        thread::scope(|scope| {
            scope.spawn(|| wait_for_room(&signal));
            // Also where it takes another event, or none, instead.
            while Arc::strong_count(&signal.0.load_full().unwrap()) == 2 {
                thread::yield_now();
            }
            signal.replace(None).unwrap();
        });
    }

    #[test]
    fn a_socket_is_signalled_and_receives_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&theirs, b"arrived", SendFlags::empty()).unwrap();
        let signal = Signal::default();
        let given = OwnedFd::from(ours.try_clone().unwrap());
        assert!(signal.replace(Some(given.into())).unwrap());
        assert_eq!(
            recv(&ours, &mut [0; 8][..], RecvFlags::DONTWAIT).unwrap().1,
            0
        );
        let more = send(&theirs, b"more", SendFlags::NOSIGNAL);
        assert_eq!(more, Err(Errno::PIPE));
        signal.signal();
        assert_eq!(
            recv(&theirs, &mut [0; 9][..], RecvFlags::empty())
                .unwrap()
                .1,
            8
        );
    }
}
