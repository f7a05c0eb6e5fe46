use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, ProtocolError, sys};

/// The connection as a queue sees it: how to wait for an interrupt, and to notice that none can
/// come any more.
#[derive(Debug)]
pub(crate) struct Link {
    stream: UnixStream,
}

impl Link {
    pub(crate) const fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Waits until `call` is signalled, for `limit` at most, and clears it. False at the time-out.
    pub(crate) fn wait_for_call(
        &self,
        call: &EventFd,
        error: &EventFd,
        limit: Duration,
    ) -> Result<bool, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if clear(call) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut fds = [
                PollFd::from_borrowed_fd(sys::descriptor(call), PollFlags::IN),
                PollFd::from_borrowed_fd(sys::descriptor(error), PollFlags::IN),
                PollFd::new(&self.stream, PollFlags::RDHUP),
            ];
            match rustix::event::poll(&mut fds, Some(&timespec(left))) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(Error::io("wait for an interrupt")(e.into())),
            }
            let [called, failed, hung_up] = fds.map(|fd| !fd.revents().is_empty());
            if failed && clear(error) {
                return Err(ProtocolError::VringError.into());
            }
            if hung_up && !called {
                return Err(Error::Disconnected);
            }
        }
    }
}

/// Whether `event` was signalled; it no longer is.
pub(crate) fn clear(event: &EventFd) -> bool {
    event.read().is_ok()
}

pub(crate) fn signal(event: &EventFd) -> Result<(), Error> {
    match event.write(1) {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(Error::io("kick a queue")(e)),
        // Full: it is signalled, and has been for a while.
        _ => Ok(()),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
