use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use rustix::io::Errno;

/// An event that the front-end listens to, a vring's *call* or *err*; it can be replaced at any
/// time, by another one or by none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal(Arc<ArcSwapOption<Listened>>);

#[derive(Debug)]
struct Listened {
    event: File,
    failed: AtomicBool,
}

impl Signal {
    /// Returns whether there was none before.
    pub(crate) fn replace(&self, event: Option<File>) -> bool {
        let listened = event.map(|event| {
            Arc::new(Listened {
                event,
                failed: AtomicBool::new(false),
            })
        });
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
    fn signal(&self) {
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
}
