//! Signalling what a daemon shares.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::{Error, Event};

/// How long a daemon can hold up whoever signals an event that it has, too.
const LET_GO_INTERVAL: Duration = Duration::from_millis(10);

/// Signals all of `events`.
pub(super) fn signal_all(events: &[&Event]) -> Result<(), Error> {
    let signal = || events.iter().try_for_each(|event| event.signal());
    let signalled = keep_going(events, signal);
    signalled.map_err(Error::io("kick a queue"))
}

/// Does `work`, which signals some of `events`.
///
/// A daemon that fills one up right after it had room would have this thread wait for ever, in
/// whatever mode the event was made: meanwhile another thread makes room.
pub(super) fn keep_going<T>(events: &[&Event], work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, working) = channel::<()>();
        let helper = thread::Builder::new().name("virtio-fs-kick".to_owned());
        let helper = helper.spawn_scoped(scope, move || {
            while working.recv_timeout(LET_GO_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for event in events.iter().filter(|event| !event.has_room()) {
                    event.take();
                }
            }
        });
        if let Err(error) = helper {
            tracing::warn!(%error, "a daemon could hold up who signals an event");
        }
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_fills_an_event_up_holds_nobody_up() {
        let event = Event::from(vmm_sys_util::eventfd::EventFd::new(0).unwrap());
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        signal_all(&[&event]).unwrap();
        // As where it had room a moment ago.
        let late = || rustix::io::write(&event, &1u64.to_ne_bytes());
        assert_eq!(keep_going(&[&event], late), Ok(8));
        assert_eq!(event.take(), 1);
    }
}
