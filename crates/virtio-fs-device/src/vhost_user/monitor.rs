use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::back_channel::BackChannel;
use super::session::Session;
use super::shared::Shared;
use crate::{During, Error, GuestSpace};

/// How long to wait before a daemon is looked for again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What a daemon hangs up, and asks for.
pub(super) struct Peer {
    stream: Arc<UnixStream>,
    back: Option<BackChannel>,
}

impl Peer {
    /// That of `session`, which has it no more.
    pub(super) fn of(session: &mut Session) -> Self {
        Self {
            stream: session.channel.stream(),
            back: session.back.take(),
        }
    }
}

/// Watches over a daemon, and over those that take its place, until the device is dropped: the one
/// thread of a device.
pub(super) fn run<M: GuestSpace>(shared: &Shared<M>, first: Peer) {
    let mut daemon = Some(first);
    let mut wait = FIRST_WAIT;
    while !shared.stopping() {
        let Some(peer) = &mut daemon else {
            match shared.connect_anew() {
                Ok(next) => {
                    tracing::info!("a daemon is there again");
                    daemon = Some(next);
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
        match watch(shared, peer) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the daemon is gone, or given up");
                // Who waits for it does so no more.
                if let Err(error) = peer.stream.shutdown(Shutdown::Both) {
                    tracing::debug!(%error, "the daemon is gone already");
                }
                daemon = None;
                shared.lost(error);
            }
            Err(errno) => {
                tracing::error!(error = %errno, "cannot watch over the daemon");
                shared.note(Error::io("watch over the daemon")(errno));
                shared.sleep(LONGEST_WAIT);
            }
        }
    }
}

/// Waits for anything to happen, passes interrupts on, and does what the daemon asks for.
///
/// # Errors
/// It cannot wait; within, why the daemon is to be taken for gone.
fn watch<M: GuestSpace>(shared: &Shared<M>, peer: &mut Peer) -> Result<Result<(), Error>, Errno> {
    let relay = shared.relay();
    let mut asks = peer.back.as_mut().zip(shared.window.as_ref());
    let patience = asks.as_ref().and_then(|(back, _)| back.patience());
    let own = [
        PollFd::new(&*peer.stream, PollFlags::RDHUP),
        PollFd::new(&shared.stop, PollFlags::IN),
        PollFd::new(&shared.wake, PollFlags::IN),
    ];
    let back = asks
        .as_ref()
        .map(|(back, _)| PollFd::new(&**back, back.awaits()));
    let calls = relay.iter().flat_map(|relay| relay.events());
    let calls = calls.map(|call| PollFd::from_borrowed_fd(call.as_fd(), PollFlags::IN));
    let mut fds: Vec<_> = own.into_iter().chain(back).chain(calls).collect();
    match rustix::event::poll(&mut fds, patience.map(timespec).as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Ok(())),
        Err(errno) => return Err(errno),
    }
    // The back-end channel is behind our own.
    let is_ready = |at| {
        fds.get(at)
            .is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty())
    };
    let hung_up = is_ready(0);
    let is_due = patience.is_some() || is_ready(3);
    shared.wake.take();
    if let Some(relay) = relay {
        relay.pass_on(&shared.health);
    }
    if hung_up {
        let during = During {
            doing: "serve the device",
            message: None,
            state: shared.health.state(),
        };
        return Ok(Err(Error::Disconnected { during }));
    }
    Ok(match &mut asks {
        Some((back, window)) if is_due => back.step(window, shared.health.state()),
        _ => Ok(()),
    })
}

/// Waits for `event`, for `limit` at most.
pub(super) fn wait_for(event: &impl AsFd, limit: Duration) {
    let mut fds = [PollFd::new(event, PollFlags::IN)];
    if let Err(error) = rustix::event::poll(&mut fds, Some(&timespec(limit))) {
        tracing::debug!(%error, "waited for less time than was wanted");
    }
}

pub(super) fn timespec(limit: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    }
}
