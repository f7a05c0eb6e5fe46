//! The memory of a daemon, looked at while it works.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::daemon::{Daemon, DaemonError};

/// How often it is looked at. Linux keeps no peak of it: that of `VmHWM` has the guest's memory in
/// it.
const PERIOD: Duration = Duration::from_millis(1);

/// Looks at how much memory is a daemon's own.
#[derive(Debug)]
pub struct Watch {
    /// Closed to end it.
    end: Sender<()>,
    thread: JoinHandle<Result<u64, DaemonError>>,
}

impl Watch {
    /// Looks from now on.
    #[must_use]
    pub fn begin(daemon: &Daemon) -> Self {
        let memory = daemon.private_memory();
        let (end, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut most = memory.kib()?;
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                most = most.max(memory.kib()?);
            }
            Ok(most.max(memory.kib()?))
        });
        Self { end, thread }
    }

    /// The most that was seen, in KiB.
    ///
    /// # Errors
    /// The daemon has ended.
    pub fn end(self) -> Result<u64, DaemonError> {
        drop(self.end);
        match self.thread.join() {
            Ok(most) => most,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
