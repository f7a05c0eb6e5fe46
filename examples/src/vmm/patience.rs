//! How long a processor waits for memory that is not there.
//!
//! A guest that uses its DAX window may find nothing there for a moment, while its daemon replaces a
//! mapping; or never again, as after the end of the daemon, or where somebody on the host cut a file
//! short.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than a daemon has to answer (`virtio_fs_device::Timeouts::message`).
const MOST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// What it gains by what the processor runs, in parts of that time. A processor that mostly waits
/// loses it, also if it changes now and then to what does not wait.
const GAIN: u32 = 4;

/// What is left of a processor's patience.
pub(super) struct Patience {
    left: Duration,
    /// When it ended waiting last.
    since: Instant,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            left: MOST,
            since: Instant::now(),
        }
    }

    /// Waits a little. `false` where it has waited for so long that it will not help.
    pub(super) fn wait(&mut self) -> bool {
        let begin = Instant::now();
        let ran = begin - self.since;
        thread::sleep(PAUSE);
        self.since = Instant::now();
        self.spend(ran, self.since - begin)
    }

    fn spend(&mut self, ran: Duration, waited: Duration) -> bool {
        self.left = (self.left + ran / GAIN).min(MOST).saturating_sub(waited);
        !self.left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds_of(ran: Duration) -> usize {
        let mut patience = Patience::new();
        let rounds = (0..100_000).take_while(|_| patience.spend(ran, PAUSE));
        rounds.count()
    }

    #[test]
    fn memory_that_never_comes_is_not_waited_for_for_ever() {
        assert_eq!(rounds_of(Duration::ZERO), 4999);
        assert!((5000..20_000).contains(&rounds_of(2 * PAUSE)));
    }

    #[test]
    fn who_rarely_waits_may_do_so_for_ever() {
        assert_eq!(rounds_of(5 * PAUSE), 100_000);
    }
}
