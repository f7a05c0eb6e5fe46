//! Looking out for the next chain for a while, before the driver is asked to kick.

use std::fmt;
use std::hint;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many times the ring is looked at for each time that the clock is: a look and the pause
/// behind it take some 40 ns, the clock as long again, and more where it is no register.
const LOOKS_PER_CLOCK: u32 = 16;
/// Most opportunities to poll that are let pass after polls that found nothing.
const MAX_SKIPPED: u32 = 64;
/// How long a few looks take only where the thread lost its processor meanwhile: a third of what
/// the scheduler gives a thread at once where several want the same processor.
const PREEMPTED: Duration = Duration::from_millis(1);
/// Opportunities that are let pass then. Where losses follow upon each other, eight times as many
/// each time, up to a tenth of a second's worth.
const SKIPPED_AFTER_LOSS: RangeInclusive<u32> = 64..=4096;
/// Polls without a loss after which the next one is the first again: on a machine with two busy
/// processors there was one every few milliseconds, some hundreds of polls.
const CALM: u32 = 2048;
/// How long a poll lasts at most where the requests before it took long.
const LONGEST: Duration = Duration::from_micros(200);

/// For how long queues look out for the next chain before they ask for a kick, and how many do so
/// at once. All queues of a device share one, and devices may.
///
/// A driver that is about to send its next request need not kick then, which ends a virtual
/// machine's turn on its processor, and the thread that serves the queue need not be woken up. What
/// that costs is bounded:
///
/// * A poll that finds nothing has the next 1, then 2, 4 ... up to 64 opportunities pass, and one
///   that does not halves that: polls go on where more of them find something than do not. So a
///   guest that is slow, or idle, costs next to nothing.
/// * A poll during which the thread lost its processor to others has more opportunities pass, and
///   thousands of them where that happens often. On a machine with too much to do, time spent
///   polling is time not given when there is something to serve.
/// * Where the requests since the last poll took long, it lasts for half of that, if that is more
///   than the limit, but for 200 microseconds at most: a driver that waited so long has gone to
///   sleep itself, and takes longer to send the next one.
/// * No more queues poll at once than half of the processors that the process may use: what they
///   wait for needs some to run on. With one processor nothing is ever polled.
/// * A queue does not poll after it left a request to the [`Pool`](crate::Pool): the driver may
///   well wait for that one, and the pool needs the processor.
#[derive(Debug)]
pub struct Polling {
    limit: PollLimit,
    /// Most queues that poll at once.
    most: usize,
    /// How many do.
    now: AtomicUsize,
}

/// How long a queue polls at most after short requests: 0 to 1000 microseconds, where 0 means never.
///
/// Its text is the number of microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollLimit(pub(crate) Duration);

/// No limit for polling: not a number of microseconds, or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a number of microseconds from 0 to {MAX_MICROS}; 0 means never")]
pub struct PollLimitError;

/// What takes longer than this is worth being woken up for.
const MAX_MICROS: u32 = 1000;

impl PollLimit {
    /// No polling.
    pub const NEVER: Self = Self(Duration::ZERO);

    /// A limit of so many microseconds.
    ///
    /// # Errors
    /// There are more than 1000.
    pub const fn from_micros(micros: u32) -> Result<Self, PollLimitError> {
        if micros > MAX_MICROS {
            return Err(PollLimitError);
        }
        Ok(Self(Duration::from_micros(micros as u64)))
    }
}

/// 20 us: a driver that waits on its processor, and has its next request at hand, takes less than 5;
/// to wake up an idle processor takes 20 to 50. On a machine with two processors and nothing else to
/// do, six times as many single requests were served, with half of the processor time for each; with
/// both processors busy with other work it made no difference beyond the noise.
impl Default for PollLimit {
    fn default() -> Self {
        Self(Duration::from_micros(20))
    }
}

impl FromStr for PollLimit {
    type Err = PollLimitError;

    fn from_str(text: &str) -> Result<Self, PollLimitError> {
        text.parse()
            .map_err(|_| PollLimitError)
            .and_then(Self::from_micros)
    }
}

impl fmt::Display for PollLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_micros().fmt(f)
    }
}

impl Polling {
    /// Each queue polls for `limit` at most, if the process may use more than one processor.
    #[must_use]
    pub fn new(limit: PollLimit) -> Self {
        Self::on(processors(), limit)
    }

    /// No queue polls.
    #[must_use]
    pub const fn never() -> Self {
        Self::on(0, PollLimit::NEVER)
    }

    pub(crate) const fn on(processors: usize, limit: PollLimit) -> Self {
        Self {
            limit,
            most: if limit.0.is_zero() {
                0
            } else {
                processors.div_euclid(2)
            },
            now: AtomicUsize::new(0),
        }
    }

    /// Leave to poll, where not enough others do already.
    fn begin(&self) -> Option<Turn<'_>> {
        let more = |now: usize| (now < self.most).then(|| now.saturating_add(1));
        self.now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Turn(self))
    }
}

/// Processors that the process may run on: those of its first thread, as others may have been
/// confined to fewer.
pub(crate) fn processors() -> usize {
    let process = rustix::process::getpid();
    match rustix::thread::sched_getaffinity(Some(process)) {
        Ok(set) => usize::try_from(set.count()).unwrap_or(usize::MAX),
        // More processors than fit into the set.
        Err(_) => usize::MAX,
    }
}

/// One queue polls, until this is dropped.
struct Turn<'p>(&'p Polling);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of an opportunity to poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled<T> {
    Found(T),
    /// Nothing, until time was up.
    Nothing,
    /// It was let pass.
    Skipped,
}

/// Decides for one queue which opportunities to poll are worth it.
#[derive(Debug, Default)]
pub(crate) struct Poller {
    /// Opportunities to let pass.
    skip: u32,
    /// How many were to be let pass after the last poll.
    skipped: u32,
    /// How many were to be let pass after the last loss of the processor.
    lost: u32,
    /// Polls since then.
    calm: u32,
    /// Since when the queue has been serving requests, where that is known.
    busy_since: Option<Instant>,
}

impl Poller {
    /// The queue begins to serve.
    pub(crate) fn wake(&mut self, polling: &Polling) {
        let polls_next = self.skip == 0 && polling.most > 0;
        self.busy_since = polls_next.then(Instant::now);
    }

    /// Calls `look` until there is something, for as long as `polling` allows.
    pub(crate) fn poll<T>(
        &mut self,
        polling: &Polling,
        look: impl FnMut() -> Option<T>,
    ) -> Polled<T> {
        self.poll_by(Instant::now, polling, look)
    }

    fn poll_by<T>(
        &mut self,
        clock: impl Fn() -> Instant,
        polling: &Polling,
        mut look: impl FnMut() -> Option<T>,
    ) -> Polled<T> {
        if self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return Polled::Skipped;
        }
        let Some(_turn) = polling.begin() else {
            return Polled::Skipped;
        };
        let began = clock();
        let limit = self.limit(polling, began);
        self.calm = self.calm.saturating_add(1);
        let mut before = began;
        loop {
            let found = (0..LOOKS_PER_CLOCK).find_map(|_| {
                let found = look();
                if found.is_none() {
                    hint::spin_loop();
                }
                found
            });
            let now = clock();
            if now.saturating_duration_since(before) >= PREEMPTED.max(limit) {
                self.let_pass_after_loss();
            } else if found.is_some() {
                self.let_pass(self.skipped.div_euclid(2));
            } else if now.saturating_duration_since(began) >= limit {
                let more = self.skipped.saturating_mul(2).clamp(1, MAX_SKIPPED);
                self.let_pass(self.skipped.max(more));
            } else {
                before = now;
                continue;
            }
            self.busy_since = found.is_some().then_some(now);
            return found.map_or(Polled::Nothing, Polled::Found);
        }
    }

    /// For how long a poll that begins `now` is worth it.
    fn limit(&mut self, polling: &Polling, now: Instant) -> Duration {
        let PollLimit(limit) = polling.limit;
        match self.busy_since.take() {
            Some(since) => {
                let half = now.saturating_duration_since(since).checked_div(2);
                limit.max(half.unwrap_or_default().min(LONGEST))
            }
            None => limit,
        }
    }

    fn let_pass_after_loss(&mut self) {
        let (least, most) = (*SKIPPED_AFTER_LOSS.start(), *SKIPPED_AFTER_LOSS.end());
        let more = if self.calm < CALM {
            self.lost.saturating_mul(8)
        } else {
            0
        };
        self.lost = more.clamp(least, most);
        self.calm = 0;
        self.let_pass(self.lost);
    }

    fn let_pass(&mut self, opportunities: u32) {
        self.skipped = opportunities;
        self.skip = opportunities;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMIT: PollLimit = PollLimit(Duration::from_micros(20));

    /// A clock that goes on by a microsecond whenever it is read.
    fn clock() -> impl Fn() -> Instant {
        let (start, read) = (Instant::now(), Cell::new(0));
        move || {
            read.set(read.get() + 1);
            start + Duration::from_micros(read.get())
        }
    }

    fn poll(
        poller: &mut Poller,
        polling: &Polling,
        look: impl FnMut() -> Option<u8>,
    ) -> Polled<u8> {
        poller.poll_by(clock(), polling, look)
    }

    /// How many opportunities pass until it polls again, and finds `found`.
    fn passes(poller: &mut Poller, polling: &Polling, found: Option<u8>) -> u32 {
        let mut passed = 0;
        while poll(poller, polling, || found) == Polled::Skipped {
            passed += 1;
        }
        passed
    }

    #[test]
    fn looks_until_there_is_something_or_time_is_up() {
        let polling = Polling::on(2, LIMIT);
        let mut looks = 0;
        let found = poll(&mut Poller::default(), &polling, || {
            looks += 1;
            (looks == 100).then_some(7)
        });
        assert_eq!(found, Polled::Found(7));
        let mut looks = 0;
        let found = poll(&mut Poller::default(), &polling, || {
            looks += 1;
            None
        });
        assert_eq!(found, Polled::Nothing);
        assert_eq!(looks, 20 * LOOKS_PER_CLOCK);
    }

    #[test]
    fn polls_that_find_nothing_become_rare_and_those_that_do_not_frequent() {
        let polling = Polling::on(2, LIMIT);
        let mut poller = Poller::default();
        for _ in 0..2 {
            for expected in [0, 1, 2, 4, 8, 16, 32, 64, 64, 64] {
                assert_eq!(passes(&mut poller, &polling, None), expected);
            }
            for expected in [64, 32, 16, 8, 4, 2, 1, 0, 0, 0] {
                assert_eq!(passes(&mut poller, &polling, Some(1)), expected);
            }
        }
        // As many of one kind as of the other.
        for found in [None, None, None, None, None, Some(1), None, Some(1), None] {
            passes(&mut poller, &polling, found);
        }
        assert_eq!(passes(&mut poller, &polling, None), 16);
    }

    /// Has `poller` lose its processor during a poll.
    fn lose(poller: &mut Poller, polling: &Polling, found: Option<u8>) {
        let (start, read) = (Instant::now(), Cell::new(0));
        let slow = || start + PREEMPTED * read.replace(read.get() + 1);
        let polled = loop {
            match poller.poll_by(slow, polling, || found) {
                Polled::Skipped => {}
                polled => break polled,
            }
        };
        assert_eq!(polled, found.map_or(Polled::Nothing, Polled::Found));
    }

    #[test]
    fn a_thread_that_often_loses_its_processor_hardly_polls() {
        let polling = Polling::on(2, LIMIT);
        let mut poller = Poller::default();
        for (found, expected) in [(None, 64), (Some(7), 512), (None, 4096), (None, 4096)] {
            lose(&mut poller, &polling, found);
            // A poll in vain makes it no more frequent.
            assert_eq!(passes(&mut poller, &polling, None), expected);
        }
        let mut expected = 4096;
        while expected > 0 {
            assert_eq!(passes(&mut poller, &polling, Some(1)), expected);
            expected /= 2;
        }
        for _ in 0..CALM {
            assert_eq!(passes(&mut poller, &polling, Some(1)), 0);
        }
        lose(&mut poller, &polling, None);
        assert_eq!(passes(&mut poller, &polling, Some(1)), 64);
    }

    #[test]
    fn a_poll_after_long_requests_lasts_longer() {
        let polling = Polling::on(2, LIMIT);
        for (busy, expected) in [(10, 20), (40, 20), (100, 50), (300, 150), (5_000, 200)] {
            let start = Instant::now();
            let (micros, looks) = (Cell::new(0), Cell::new(0));
            let clock = || start + Duration::from_micros(micros.replace(micros.get() + 1));
            let mut poller = Poller::default();
            let found = poller.poll_by(clock, &polling, || Some(1));
            assert_eq!(found, Polled::Found(1));
            micros.set(1 + busy);
            let polled = poller.poll_by(clock, &polling, || {
                looks.set(looks.get() + 1);
                None::<u8>
            });
            assert_eq!(polled, Polled::Nothing);
            assert_eq!(looks.get(), expected * LOOKS_PER_CLOCK, "{busy}");
        }
    }

    #[test]
    fn half_of_the_processors_poll_at_once_and_one_alone_never_does() {
        let look = || Some(1);
        for (processors, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (8, 4)] {
            let polling = Polling::on(processors, LIMIT);
            let turns: Vec<_> = std::iter::from_fn(|| polling.begin()).collect();
            assert_eq!(turns.len(), most);
            assert_eq!(
                poll(&mut Poller::default(), &polling, look),
                Polled::Skipped
            );
            drop(turns);
            let polled = poll(&mut Poller::default(), &polling, look);
            assert_eq!(polled == Polled::Found(1), most > 0);
        }
    }

    #[test]
    fn time_is_bounded_and_none_means_never() {
        for bad in ["1001", "-1", "", "4294967297", "5us"] {
            assert_eq!(bad.parse::<PollLimit>(), Err(PollLimitError), "{bad}");
        }
        for good in ["0", "50", "1000"] {
            assert_eq!(good.parse::<PollLimit>().unwrap().to_string(), good);
        }
        assert_eq!("0".parse(), Ok(PollLimit::NEVER));
        for never in [Polling::never(), Polling::on(8, PollLimit::NEVER)] {
            let polled = poll(&mut Poller::default(), &never, || Some(1));
            assert_eq!(polled, Polled::Skipped);
        }
    }
}
