use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Shuts a socket down if it is not dropped in time: the `vhost` crate waits for an answer without
/// a limit, and takes a time-out of the socket's own for a reason to try again.
#[derive(Debug)]
pub(crate) struct Watchdog {
    expired: Arc<AtomicBool>,
    /// Dropped to say that all is well.
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn new(stream: UnixStream, limit: Duration) -> Self {
        let expired = Arc::new(AtomicBool::new(false));
        let (alive, gone) = mpsc::channel::<()>();
        let thread = std::thread::spawn({
            let expired = Arc::clone(&expired);
            move || {
                if gone.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    expired.store(true, Ordering::SeqCst);
                    // It fails where the peer is gone already, which ends the wait as well.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        });
        Self {
            expired,
            alive: Some(alive),
            thread: Some(thread),
        }
    }

    /// Whether time was up.
    pub(crate) fn expired(&self) -> bool {
        self.expired.load(Ordering::SeqCst)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // The thread has nothing in it that panics.
            let _ = thread.join();
        }
    }
}
