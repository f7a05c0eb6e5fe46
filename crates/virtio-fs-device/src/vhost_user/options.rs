use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::window::is_of_pages;
use crate::{Error, Window};

/// A vhost-user daemon, such as `virtiofsd`, and how it is dealt with.
pub struct VhostUser {
    pub(crate) connect: Connect,
    /// How long the daemon has for what.
    pub timeouts: Timeouts,
    /// What becomes of the device when the daemon dies while it is active. Default
    /// [`Recovery::NeedsReset`].
    pub recovery: Recovery,
    /// Most bytes of the daemon's state, when the device is saved or restored. Default 64 MiB.
    pub state_limit: u64,
    /// Where the daemon may map files for the guest to use without a copy (DAX), where it offers to
    /// (`SHMEM`). Default `None`.
    pub window: Option<Window>,
}

/// How long a daemon has. One that takes longer is given up: what it says later would be taken for
/// the answer to something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until it listens, when the device is made. Default 5 s.
    pub connect: Duration,
    /// For all the messages of one call that it can answer at once. Default 5 s.
    pub message: Duration,
    /// To stop all queues, for which it waits for what is in flight. Default 30 s.
    pub stop: Duration,
    /// To save or restore its state. Default 60 s.
    pub state: Duration,
}

/// What becomes of an active device whose daemon dies. In either case a daemon that listens where
/// the last one did is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recovery {
    /// The next daemon knows nothing of the files that the guest has open: the device is failed, and
    /// the driver is told that it needs a reset.
    #[default]
    NeedsReset,
    /// The next daemon knows all that the last one did, and the device goes on with it, unnoticed by
    /// the guest. The daemon has to offer `INFLIGHT_SHMFD` for that; one that does not must have had
    /// nothing in flight when it died. Else, or where the guest has files mapped through the DAX
    /// window, which go with their daemon, it is as [`NeedsReset`](Self::NeedsReset).
    Resume,
}

/// Where a daemon is found.
pub(crate) enum Connect {
    Path(PathBuf),
    By(Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>),
}

impl VhostUser {
    /// The daemon that listens at `socket`.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::with(Connect::Path(socket.into()))
    }

    /// The daemon to which `connect` connects, now and whenever it was lost: one that the VMM starts
    /// itself with one end of a socket pair, for instance. It is called from a thread of the device
    /// which the device waits for when it is dropped, so it must not wait long.
    #[must_use]
    pub fn by(connect: impl Fn() -> io::Result<UnixStream> + Send + Sync + 'static) -> Self {
        Self::with(Connect::By(Box::new(connect)))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.window {
            Some(window) if window.size == 0 || !is_of_pages(window.size) => {
                Err(Error::WindowSize(window.size))
            }
            _ => Ok(()),
        }
    }

    fn with(connect: Connect) -> Self {
        Self {
            connect,
            timeouts: Timeouts::default(),
            recovery: Recovery::default(),
            state_limit: 64 << 20,
            window: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            message: Duration::from_secs(5),
            stop: Duration::from_secs(30),
            state: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for VhostUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUser")
            .field("connect", &self.connect)
            .field("timeouts", &self.timeouts)
            .field("recovery", &self.recovery)
            .field("state_limit", &self.state_limit)
            .field("window", &self.window)
            .finish()
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::By(_) => f.write_str("By"),
        }
    }
}
