use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::shared::Shared;
use crate::{Error, GuestSpace};

/// How long to wait before a daemon is looked for again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Watches over the daemon at the other end of `stream`, and over those that take its place, until
/// the device is dropped: the one thread of a device.
pub(super) fn run<M: GuestSpace>(shared: &Shared<M>, stream: Arc<UnixStream>) {
    let mut daemon = Some(stream);
    let mut wait = FIRST_WAIT;
    while !shared.stopping() {
        let Some(stream) = &daemon else {
            match shared.connect_anew() {
                Ok(stream) => {
                    tracing::info!("a daemon is there again");
                    daemon = Some(stream);
                    wait = FIRST_WAIT;
                }
                Err(error) => {
                    if wait == FIRST_WAIT {
                        tracing::warn!(%error, "the daemon is not back yet");
                    }
                    shared.note(error);
                    shared.sleep(wait);
                    wait = wait.saturating_mul(2).min(LONGEST_WAIT);
                }
            }
            continue;
        };
        match watch(shared, stream) {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!("the daemon is gone");
                shared.lost();
                daemon = None;
            }
            Err(errno) => {
                tracing::error!(error = %errno, "cannot watch over the daemon");
                shared.note(Error::io("watch over the daemon")(errno));
                shared.sleep(LONGEST_WAIT);
            }
        }
    }
}

/// Waits for anything to happen, passes interrupts on, and returns whether the daemon hung up.
fn watch<M: GuestSpace>(shared: &Shared<M>, stream: &UnixStream) -> Result<bool, Errno> {
    let relay = shared.relay();
    let own = [
        PollFd::new(stream, PollFlags::RDHUP),
        PollFd::new(&shared.stop, PollFlags::IN),
        PollFd::new(&shared.wake, PollFlags::IN),
    ];
    let calls = relay.iter().flat_map(|relay| relay.events());
    let calls = calls.map(|call| PollFd::from_borrowed_fd(call.as_fd(), PollFlags::IN));
    let mut fds: Vec<_> = own.into_iter().chain(calls).collect();
    match rustix::event::poll(&mut fds, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let hung_up = fds.first().is_some_and(|fd| !fd.revents().is_empty());
    shared.wake.take();
    if let Some(relay) = relay {
        relay.pass_on(&shared.health);
    }
    Ok(hung_up)
}

/// Waits for `event`, for `limit` at most.
pub(super) fn wait_for(event: &impl AsFd, limit: Duration) {
    let timeout = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(event, PollFlags::IN)];
    if let Err(error) = rustix::event::poll(&mut fds, Some(&timeout)) {
        tracing::debug!(%error, "waited for less time than was wanted");
    }
}
