use std::thread;
use std::time::{Duration, Instant};

/// Longer than a daemon has to answer ([`Timeouts::message`](crate::Timeouts::message), unless it is
/// raised).
const MOST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// What it gains by what the processor runs, in parts of that time. A processor that mostly waits
/// loses it, also if it changes now and then to what does not wait.
const GAIN: u32 = 4;

/// How long a virtual processor waits for memory of the DAX window that is not there.
///
/// A guest may find nothing there for a moment, while its daemon replaces a mapping; or never again, as
/// after the end of the daemon, or where somebody on the host cut a file short. With a
/// [`ReservedWindow`](crate::ReservedWindow), `KVM_RUN` fails with EFAULT in both cases: a VMM then
/// [waits](Self::wait) and has the processor try again, for as long as that helps.
///
/// ```
/// # use virtio_fs_device::Patience;
/// # fn kvm_run() -> std::io::Result<()> { Ok(()) }
/// # const EFAULT: i32 = 14;
/// let mut patience = Patience::new();
/// let broken = loop {
///     match kvm_run() {
///         Err(error) if error.raw_os_error() == Some(EFAULT) => {
///             if !patience.wait() {
///                 break true;
///             }
///         }
///         // Whatever else it returns.
///         _ => break false,
///     }
/// };
/// assert!(!broken);
/// ```
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    /// When it ended waiting last.
    since: Instant,
}

impl Patience {
    /// That of a processor which has not waited yet: ten seconds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            left: MOST,
            since: Instant::now(),
        }
    }

    /// Waits for two milliseconds. `false` where the processor has waited for so long, in comparison
    /// with the time that it ran, that it will not help.
    #[must_use]
    pub fn wait(&mut self) -> bool {
        let begin = Instant::now();
        let ran = begin.saturating_duration_since(self.since);
        thread::sleep(PAUSE);
        self.since = Instant::now();
        self.spend(ran, self.since.saturating_duration_since(begin))
    }

    fn spend(&mut self, ran: Duration, waited: Duration) -> bool {
        let gained = ran.checked_div(GAIN).unwrap_or_default();
        let left = self.left.saturating_add(gained).min(MOST);
        self.left = left.saturating_sub(waited);
        !self.left.is_zero()
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
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
