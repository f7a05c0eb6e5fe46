//! Waiting for locks.
//!
//! The host's kernel would let a thread wait, but only a signal could make that thread give up. So
//! whoever waits tries again and again: at once when somebody in this process has dropped a lock on
//! the file, which may be another guest's, and else after a while, for those of other processes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuse_fs::{Errno, Result};

use crate::budget::{Budget, Permit};
use crate::inode_table::Identity;

/// How long who waits rests before it tries again: at first, and at most. A lock of another process
/// is taken this much later than it could be.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// Most requests of a guest that wait at the same time. Each has a thread.
const MAX_WAITING: usize = 512;
/// Interrupts that came before what they interrupt, and are remembered.
const MAX_EARLY: usize = 64;

/// All who wait in this process.
static WAITERS: Mutex<Vec<Arc<Waiter>>> = Mutex::new(Vec::new());
/// How many those are.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// The number of the next share.
static NEXT_SHARE: AtomicU64 = AtomicU64::new(0);

/// Which file of the host a lock is on, whoever sees it and by whatever way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    dev: (u32, u32),
    ino: u64,
}

impl From<Identity> for FileId {
    fn from(identity: Identity) -> Self {
        Self {
            dev: identity.dev,
            ino: identity.ino,
        }
    }
}

/// Whether a lock could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Done,
    /// Another one stands in the way.
    Conflict,
}

/// Those of one guest who wait.
#[derive(Debug)]
pub(crate) struct Waits {
    share: u64,
    places: Budget,
    /// Interrupts of requests that had not begun to wait, the newest last.
    early: Mutex<VecDeque<u64>>,
}

#[derive(Debug)]
struct Waiter {
    file: FileId,
    share: u64,
    unique: u64,
    signal: Mutex<Option<Signal>>,
    signalled: Condvar,
}

/// Why who waits is woken. The later ones count more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    Released,
    Interrupted,
    Cancelled,
}

/// One who waits, until dropped.
struct Waiting {
    waiter: Arc<Waiter>,
    _place: Permit,
}

impl Waits {
    pub(crate) fn new() -> Self {
        Self {
            share: NEXT_SHARE.fetch_add(1, Ordering::Relaxed),
            places: Budget::new(MAX_WAITING),
            early: Mutex::default(),
        }
    }

    /// Attempts it until it is done.
    ///
    /// # Errors
    /// Those of `attempt`; EINTR when the request is interrupted; ENOLCK when waits are cancelled,
    /// or too many wait.
    pub(crate) fn wait_for(
        &self,
        unique: u64,
        file: FileId,
        mut attempt: impl FnMut() -> Result<Attempt>,
    ) -> Result<()> {
        let waiting = self.begin(unique, file)?;
        let mut pause = FIRST_PAUSE;
        while attempt()? == Attempt::Conflict {
            pause = match waiting.rest(pause) {
                None => LONGEST_PAUSE.min(pause.saturating_mul(2)),
                Some(Signal::Released) => FIRST_PAUSE,
                Some(Signal::Interrupted) => return Err(Errno::EINTR.into()),
                Some(Signal::Cancelled) => return Err(Errno::ENOLCK.into()),
            };
        }
        Ok(())
    }

    /// The request `unique` is to give up, now or when it begins to wait.
    pub(crate) fn interrupt(&self, unique: u64) {
        let is_it = |waiter: &Waiter| waiter.share == self.share && waiter.unique == unique;
        // Whoever begins to wait looks there while it is locked.
        let mut early = lock(&self.early);
        if signal(Signal::Interrupted, is_it) == 0 {
            if early.len() == MAX_EARLY {
                early.pop_front();
            }
            early.push_back(unique);
        }
    }

    /// Whoever waits now is to give up.
    pub(crate) fn cancel(&self) {
        signal(Signal::Cancelled, |waiter| waiter.share == self.share);
    }

    /// Whoever waits now is to give up, and the numbers of requests so far mean nothing any more.
    pub(crate) fn end_session(&self) {
        lock(&self.early).clear();
        self.cancel();
    }

    fn begin(&self, unique: u64, file: FileId) -> Result<Waiting> {
        let place = self.places.take().ok_or(Errno::ENOLCK)?;
        let waiter = Arc::new(Waiter {
            file,
            share: self.share,
            unique,
            signal: Mutex::new(None),
            signalled: Condvar::new(),
        });
        let mut early = lock(&self.early);
        if let Some(place) = early.iter().position(|&early| early == unique) {
            early.remove(place);
            return Err(Errno::EINTR.into());
        }
        lock(&WAITERS).push(Arc::clone(&waiter));
        WAITING.fetch_add(1, Ordering::SeqCst);
        Ok(Waiting {
            waiter,
            _place: place,
        })
    }
}

/// A lock on `file` was dropped, or excludes less than before.
pub(crate) fn released(file: FileId) {
    signal(Signal::Released, |waiter| waiter.file == file);
}

/// Wakes those who wait and `concerns`, and returns how many those are.
fn signal(signal: Signal, concerns: impl Fn(&Waiter) -> bool) -> usize {
    if WAITING.load(Ordering::SeqCst) == 0 {
        return 0;
    }
    let waiters = lock(&WAITERS);
    let concerned = waiters.iter().filter(|waiter| concerns(waiter));
    let wake = |waiter: &Arc<Waiter>| {
        let mut pending = lock(&waiter.signal);
        *pending = (*pending).max(Some(signal));
        drop(pending);
        waiter.signalled.notify_one();
    };
    concerned.map(wake).count()
}

impl Waiting {
    /// Waits for a signal, for so long.
    fn rest(&self, pause: Duration) -> Option<Signal> {
        let pending = lock(&self.waiter.signal);
        let none = |pending: &mut Option<Signal>| pending.is_none();
        let rested = self
            .waiter
            .signalled
            .wait_timeout_while(pending, pause, none);
        let (mut pending, _) = rested.unwrap_or_else(PoisonError::into_inner);
        pending.take()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiters = lock(&WAITERS);
        let is_it = |waiter: &Arc<Waiter>| Arc::ptr_eq(waiter, &self.waiter);
        if let Some(place) = waiters.iter().position(is_it) {
            waiters.swap_remove(place);
            WAITING.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId {
        dev: (1, 2),
        ino: 3,
    };

    #[test]
    fn who_was_interrupted_before_does_not_begin() {
        let waits = Waits::new();
        waits.interrupt(7);
        let attempt = || Ok(Attempt::Conflict);
        let waited = waits.wait_for(7, FILE, attempt);
        assert_eq!(waited, Err(Errno::EINTR.into()));
        // Once only, and only the newest are remembered.
        waits.wait_for(7, FILE, || Ok(Attempt::Done)).unwrap();
        for unique in 0..=MAX_EARLY as u64 {
            waits.interrupt(unique);
        }
        waits.wait_for(0, FILE, || Ok(Attempt::Done)).unwrap();
        waits.wait_for(1, FILE, attempt).unwrap_err();
    }

    /// The next guest may number its requests from the same number on.
    #[test]
    fn who_was_interrupted_in_another_session_begins() {
        let waits = Waits::new();
        waits.interrupt(7);
        waits.end_session();
        waits.wait_for(7, FILE, || Ok(Attempt::Done)).unwrap();
    }

    #[test]
    fn interrupts_and_cancels_are_for_one_share() {
        let (mine, other) = (Waits::new(), Waits::new());
        let mut attempts = 0;
        let waited = mine.wait_for(1, FILE, || {
            attempts += 1;
            match attempts {
                1 => other.interrupt(1),
                2 => other.cancel(),
                3 => mine.interrupt(2),
                4 => released(FILE),
                5 => mine.cancel(),
                _ => unreachable!("it was told to give up"),
            }
            Ok(Attempt::Conflict)
        });
        assert_eq!(waited, Err(Errno::ENOLCK.into()));
        assert_eq!(attempts, 5);
    }

    #[test]
    fn no_more_wait_than_there_are_places() {
        let waits = Waits::new();
        let all: Vec<_> = (0..MAX_WAITING as u64)
            .map(|unique| waits.begin(unique, FILE).ok().unwrap())
            .collect();
        assert!(waits.begin(0, FILE).is_err());
        drop(all);
        assert!(waits.begin(0, FILE).is_ok());
    }
}
