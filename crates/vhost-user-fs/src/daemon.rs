use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error as FrameworkError, ShutdownHandle, VhostUserDaemon};

use crate::{Backend, Memory, SharedMemory};

/// Why a daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The system refused what the daemon needs to wait for a front-end.
    #[error("cannot wait for a front-end to connect")]
    Wait(#[source] io::Error),
    /// The threads of a session could not be started.
    #[error("cannot start a vhost-user session: {0}")]
    Session(FrameworkError),
}

/// Serves a device to one front-end after the other.
///
/// One front-end is served at a time; another one that connects waits for its turn. When a
/// front-end disconnects, what it had in flight is completed, its session ends, and the next one
/// starts anew.
#[derive(Debug)]
pub struct Daemon {
    backend: Backend,
    listener: UnixListener,
    control: Arc<Control>,
}

/// Ends a [`Daemon`], from any thread.
#[derive(Debug, Clone)]
pub struct StopHandle {
    control: Arc<Control>,
}

struct Control {
    stopping: AtomicBool,
    /// Readable from when the daemon is to stop.
    wake: OwnedFd,
    connection: Mutex<Option<ShutdownHandle>>,
}

impl Daemon {
    /// Serves `backend` to who connects to `listener`.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(backend: Backend, listener: UnixListener) -> Result<Self, DaemonError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| DaemonError::Wait(errno.into()))?;
        Ok(Self {
            backend,
            listener,
            control: Arc::new(Control {
                stopping: AtomicBool::new(false),
                wake,
                connection: Mutex::new(None),
            }),
        })
    }

    /// Ends [`run`](Self::run).
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle {
            control: Arc::clone(&self.control),
        }
    }

    /// Serves until it is stopped. A front-end that breaks the protocol only loses its connection.
    ///
    /// # Errors
    /// The daemon cannot go on.
    pub fn run(self) -> Result<(), DaemonError> {
        while self.wait_for_front_end()? {
            let result = self.serve_front_end();
            // The framework's threads have ended with it.
            self.backend.disconnect();
            result?;
        }
        Ok(())
    }

    /// Returns whether there is one; there is none when the daemon is to stop.
    fn wait_for_front_end(&self) -> Result<bool, DaemonError> {
        let mut fds = [
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(self.control.wake.as_fd(), PollFlags::IN),
        ];
        loop {
            match poll(&mut fds, None) {
                Ok(_) => return Ok(!self.control.is_stopping()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(DaemonError::Wait(errno.into())),
            }
        }
    }

    fn serve_front_end(&self) -> Result<(), DaemonError> {
        let listener = self.listener.try_clone().map_err(DaemonError::Wait)?;
        let memory = SharedMemory::new(Memory::new());
        let name = "vhost-user".to_owned();
        let mut session = VhostUserDaemon::new(name, self.backend.clone(), memory)
            .map_err(DaemonError::Session)?;
        session
            .start(&mut Listener::from(listener))
            .map_err(DaemonError::Session)?;
        tracing::info!("front-end connected");
        *self.control.connection() = session.shutdown_handle();
        if self.control.is_stopping() {
            session.request_shutdown();
        }
        let result = session.wait();
        *self.control.connection() = None;
        report(result);
        // The end of the session waits for its threads, and those for who keeps a queue busy.
        self.backend.halt();
        Ok(())
    }
}

fn report(result: Result<(), FrameworkError>) {
    match result {
        Ok(())
        | Err(FrameworkError::HandleRequest(
            VhostUserError::Disconnected | VhostUserError::PartialMessage,
        )) => tracing::info!("front-end disconnected"),
        Err(error) => tracing::warn!(%error, "connection to the front-end ended"),
    }
}

impl StopHandle {
    /// Ends the daemon: what is in flight is completed, the connection is closed.
    pub fn stop(&self) {
        self.control.stopping.store(true, Ordering::SeqCst);
        if let Err(error) = rustix::io::write(&self.control.wake, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot wake the daemon up");
        }
        if let Some(connection) = self.control.connection().as_ref() {
            connection.shutdown();
        }
    }
}

impl Control {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn connection(&self) -> MutexGuard<'_, Option<ShutdownHandle>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("stopping", &self.stopping)
            .finish_non_exhaustive()
    }
}
