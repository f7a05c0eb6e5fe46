use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Something that a filesystem may hold up for ever, on a thread of its own. That thread owns what
/// the work takes, and goes on with it when nobody waits any more.
#[derive(Debug)]
pub(super) struct Pending<T>(Mutex<Receiver<T>>);

impl<T: Send + 'static> Pending<T> {
    /// Begins `work`; where the system has no thread left, it is done here and now.
    pub(super) fn begin(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (done, is_done) = channel();
        // A thread that cannot be started does not give back what it was to do.
        let work = Arc::new(Mutex::new(Some(move || {
            // Whoever waited may be gone.
            let _ = done.send(work());
        })));
        let take =
            |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let theirs = Arc::clone(&work);
        let thread = thread::Builder::new().name("virtio-fs-end".to_owned());
        let started = thread.spawn(move || {
            if let Some(work) = take(&theirs) {
                work();
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "there is no thread for it: a filesystem is waited for");
            if let Some(work) = take(&work) {
                work();
            }
        }
        Self(Mutex::new(is_done))
    }

    /// Waits until it is done, and returns what came of it: `None` where it panicked, of which nothing
    /// more is to be expected either.
    ///
    /// # Errors
    /// It is not done by `deadline`, and can be waited for again.
    pub(super) fn wait(mut self, deadline: Instant) -> Result<Option<T>, Self> {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_done = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        match is_done.recv_timeout(left) {
            Ok(done) => Ok(Some(done)),
            Err(RecvTimeoutError::Timeout) => Err(self),
            Err(RecvTimeoutError::Disconnected) => {
                tracing::error!("a filesystem panicked in a call of the device");
                Ok(None)
            }
        }
    }
}
