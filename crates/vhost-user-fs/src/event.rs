use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

/// An event that the front-end listens to, a vring's *call* or *err*; it can be replaced at any
/// time, by another one or by none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal(Arc<ArcSwapOption<Listened>>);

#[derive(Debug)]
struct Listened {
    event: File,
    /// Who writes to it waits until there is room, and the front-end may never make any. It is asked
    /// for then: what is shared with the front-end is left as it is.
    waits: bool,
    failed: AtomicBool,
}

impl Signal {
    /// Returns whether there was none before.
    pub(crate) fn replace(&self, event: Option<File>) -> bool {
        let listened = event.map(|event| Arc::new(Listened::new(event)));
        self.0.swap(listened).is_none()
    }

    /// Signals, where somebody listens.
    pub(crate) fn signal(&self) {
        if let Some(listened) = &*self.0.load() {
            listened.signal();
        }
    }
}

impl Listened {
    fn new(event: File) -> Self {
        let flags = fcntl_getfl(&event);
        Self {
            waits: !flags.is_ok_and(|flags| flags.contains(OFlags::NONBLOCK)),
            failed: AtomicBool::new(false),
            event,
        }
    }

    fn signal(&self) {
        if self.waits && !self.has_room() {
            return;
        }
        match rustix::io::write(&self.event, &1u64.to_ne_bytes()) {
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
}
