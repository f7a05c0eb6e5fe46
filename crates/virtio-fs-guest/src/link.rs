use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, ProtocolError, sys};

/// The connection as a queue sees it: how to wait for an interrupt, and to notice that none can
/// come any more.
#[derive(Debug)]
pub(crate) struct Link {
    /// `None` where the device's end is somebody else's to watch.
    stream: Option<UnixStream>,
    /// [`Options::halt_poll`](crate::Options::halt_poll).
    halt_poll: Duration,
}

impl Link {
    pub(crate) const fn new(stream: Option<UnixStream>, halt_poll: Duration) -> Self {
        Self { stream, halt_poll }
    }

    /// Waits until `call` is signalled, for `limit` at most, and clears it. Returns how often it
    /// was signalled, 0 at the time-out.
    pub(crate) fn wait_for_call(
        &self,
        call: &EventFd,
        error: &EventFd,
        limit: Duration,
    ) -> Result<u64, Error> {
        let start = Instant::now();
        let deadline = start + limit;
        let calls = self.look_for_calls(call, start + self.halt_poll.min(limit));
        if calls > 0 {
            return Ok(calls);
        }
        loop {
            let calls = clear(call);
            if calls > 0 {
                return Ok(calls);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(0);
            }
            let error_fd = sys::descriptor(error);
            let (last, hang_up) = match &self.stream {
                Some(stream) => (stream.as_fd(), PollFlags::RDHUP),
                None => (error_fd, PollFlags::empty()),
            };
            let mut fds = [
                PollFd::from_borrowed_fd(sys::descriptor(call), PollFlags::IN),
                PollFd::from_borrowed_fd(error_fd, PollFlags::IN),
                PollFd::from_borrowed_fd(last, hang_up),
            ];
            match rustix::event::poll(&mut fds, Some(&timespec(left))) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(Error::io("wait for an interrupt")(e.into())),
            }
            let [called, failed, hung_up] = fds.map(|fd| !fd.revents().is_empty());
            if failed && clear(error) > 0 {
                return Err(ProtocolError::VringError.into());
            }
            if hung_up && !called {
                return Err(Error::Disconnected);
            }
        }
    }

    /// As [`wait_for_call`](Self::wait_for_call), until `end` and without sleeping.
    fn look_for_calls(&self, call: &EventFd, end: Instant) -> u64 {
        while Instant::now() < end {
            let calls = clear(call);
            if calls > 0 {
                return calls;
            }
            std::thread::yield_now();
        }
        0
    }
}

/// How often `event` was signalled since it was last cleared.
pub(crate) fn clear(event: &EventFd) -> u64 {
    // What cannot be read is a counter of 0.
    event.read().unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    fn event() -> EventFd {
        EventFd::new(EFD_NONBLOCK).unwrap()
    }

    #[test]
    fn an_interrupt_is_noticed_while_the_driver_stays_on_its_processor() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let link = Link::new(Some(ours), NEVER);
        let (call, error) = (event(), event());
        let device = call.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || signal(&device).unwrap());
            let calls = link.wait_for_call(&call, &error, NEVER).unwrap();
            assert_eq!(calls, 1);
        });
        assert_eq!(clear(&call), 0);
    }

    #[test]
    fn looking_for_an_interrupt_ends_with_the_time_out() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let link = Link::new(Some(ours), NEVER);
        let limit = Duration::from_millis(1);
        let calls = link.wait_for_call(&event(), &event(), limit).unwrap();
        assert_eq!(calls, 0);
    }

    #[test]
    fn a_driver_that_looked_in_vain_sleeps_and_is_woken() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(Some(ours), Duration::from_millis(1));
        drop(theirs);
        // Noticed by one who sleeps alone.
        let result = link.wait_for_call(&event(), &event(), NEVER);
        assert!(matches!(result, Err(Error::Disconnected)), "{result:?}");
    }
}
