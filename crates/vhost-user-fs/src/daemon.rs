use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::Backend;
use crate::connection::Connection;
use crate::front_end::Service;

/// How long a front-end waits to be accepted when the system has no room for it.
const RETRY_INTERVAL: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Why a daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The system refused what the daemon needs to wait for a front-end, or the listener is none.
    #[error("cannot wait for a front-end to connect")]
    Wait(#[source] io::Error),
}

/// Serves a device to one front-end after the other.
///
/// One front-end is served at a time; another one that connects waits for its turn. When a
/// front-end disconnects, what it had in flight is completed, its session ends, and the next one
/// starts anew. So it is when one breaks the protocol, or asks for more than the system has.
///
/// What it serves is a [`Backend`], or any other [`Service`].
#[derive(Debug)]
pub struct Daemon<S = Backend> {
    service: S,
    listener: UnixListener,
    control: Arc<Control>,
}

/// Ends a [`Daemon`], from any thread.
#[derive(Debug, Clone)]
pub struct StopHandle {
    control: Arc<Control>,
}

#[derive(Debug)]
struct Control {
    stopping: AtomicBool,
    /// Readable from when the daemon is to stop.
    wake: OwnedFd,
    /// Where a front-end is being served.
    connection: Mutex<Option<Arc<UnixStream>>>,
}

impl<S: Service> Daemon<S> {
    /// Serves `service` to who connects to `listener`.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(service: S, listener: UnixListener) -> Result<Self, DaemonError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| DaemonError::Wait(errno.into()))?;
        Ok(Self {
            service,
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

    /// Serves until it is stopped. What is wrong with a front-end ends its connection, no more.
    ///
    /// # Errors
    /// The daemon cannot go on.
    pub fn run(self) -> Result<(), DaemonError> {
        while self.wait_for_front_end()? {
            if let Some(stream) = self.accept()? {
                self.serve(stream);
            }
        }
        Ok(())
    }

    /// Returns whether there is one; there is none when the daemon is to stop.
    fn wait_for_front_end(&self) -> Result<bool, DaemonError> {
        let listener = PollFd::new(&self.listener, PollFlags::IN);
        self.control.wait(Some(listener), None)
    }

    /// Accepts a front-end, if it is still there and the system has room for it.
    fn accept(&self) -> Result<Option<UnixStream>, DaemonError> {
        let error = match self.listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                tracing::error!(%error, "cannot accept a front-end yet");
                self.control.wait(None, Some(&RETRY_INTERVAL))?;
                Ok(None)
            }
            _ => Err(DaemonError::Wait(error)),
        }
    }

    fn serve(&self, stream: UnixStream) {
        let mut connection = match Connection::new(self.service.handler(), stream) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, "cannot serve a front-end");
                return;
            }
        };
        tracing::info!("front-end connected");
        self.control.set_connection(Some(connection.stream()));
        let result = connection.serve();
        self.control.set_connection(None);
        match result {
            Ok(()) => tracing::info!("front-end disconnected"),
            Err(error) => tracing::warn!(%error, "connection to the front-end ended"),
        }
    }
}

impl StopHandle {
    /// Ends the daemon: what is in flight is completed, the connection is closed.
    pub fn stop(&self) {
        let control = &self.control;
        control.stopping.store(true, Ordering::SeqCst);
        if let Err(error) = rustix::io::write(&control.wake, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot wake the daemon up");
        }
        if let Some(connection) = &*control.connection() {
            hang_up(connection);
        }
    }
}

impl Control {
    /// Waits for `listener`, for `timeout` to pass or for the daemon to be stopped, and returns
    /// whether it is to go on.
    fn wait(
        &self,
        listener: Option<PollFd<'_>>,
        timeout: Option<&Timespec>,
    ) -> Result<bool, DaemonError> {
        let wake = PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN);
        let mut fds: Vec<_> = listener.into_iter().chain([wake]).collect();
        loop {
            match poll(&mut fds, timeout) {
                Ok(_) => return Ok(!self.stopping.load(Ordering::SeqCst)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(DaemonError::Wait(errno.into())),
            }
        }
    }

    /// One that is set when the daemon is to stop already ends at once.
    fn set_connection(&self, connection: Option<Arc<UnixStream>>) {
        let mut current = self.connection();
        *current = connection;
        if let (true, Some(connection)) = (self.stopping.load(Ordering::SeqCst), &*current) {
            hang_up(connection);
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Arc<UnixStream>>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn hang_up(connection: &UnixStream) {
    if let Err(error) = connection.shutdown(Shutdown::Both) {
        tracing::debug!(%error, "the front-end is gone already");
    }
}
