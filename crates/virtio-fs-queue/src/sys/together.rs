use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{hint, mem};

/// For how long the last to help is waited for awake: longer than it has left to do, as a rule.
const AWAKE: Duration = Duration::from_micros(50);

/// Lets other threads join in what one of them does, for as long as that does it. Made once, so that
/// nothing is allocated for each time.
#[derive(Debug, Default)]
pub(crate) struct Together {
    state: Mutex<State>,
    /// Threads that have joined in. Changed with the state locked.
    inside: AtomicUsize,
    none_inside: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// While others may join in.
    work: Option<Work>,
    /// Whether somebody waits for `none_inside`.
    awaited: bool,
}

/// Work of a [`Together::share`] that has not returned yet.
#[derive(Debug, Clone, Copy)]
struct Work(*const (dyn Fn() + Sync + 'static));

// SAFETY: it points to what is `Sync`, which other threads may call.
unsafe impl Send for Work {}

impl Together {
    /// Does `work`, after `call` has called for helpers. Those that [`join`](Self::join) meanwhile do
    /// it, too, at the same time; it is for `work` to see who does which part. Returns when the last
    /// of them is done.
    pub(crate) fn share(&self, work: &(dyn Fn() + Sync), call: impl FnOnce()) {
        let _open = self.open(work);
        call();
        work();
    }

    /// Does what is shared now, if anything is.
    pub(crate) fn join(&self) {
        let Some((work, _inside)) = self.enter() else {
            return;
        };
        // SAFETY: what `work` points to was lent to a `share`. As long as this thread counts as
        // inside, which `_inside` is dropped last to end, that does not return: it drops its `Open`
        // first, whether it returns or unwinds, and that waits until nobody is. This thread counted
        // as inside before the lock was released under which `work` was found, and an `Open` removes
        // that under the same lock before it looks who is inside.
        unsafe { (*work.0)() }
    }

    fn open<'w>(&self, work: &'w (dyn Fn() + Sync + 'w)) -> Open<'_> {
        // SAFETY: only the lifetime is another one. `join` says why the pointer is not used after
        // the borrow has ended.
        let work: *const (dyn Fn() + Sync + 'static) = unsafe { mem::transmute(work) };
        self.lock().work = Some(Work(work));
        Open(self)
    }

    fn enter(&self) -> Option<(Work, Inside<'_>)> {
        let state = self.lock();
        let work = state.work?;
        self.inside.fetch_add(1, Ordering::Relaxed);
        Some((work, Inside(self)))
    }

    fn is_anybody_inside(&self) -> bool {
        // What they did is seen by who sees that they left.
        self.inside.load(Ordering::Acquire) > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Others may join in, until this is dropped.
struct Open<'t>(&'t Together);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Self(together) = self;
        together.lock().work = None;
        if !together.is_anybody_inside() {
            return;
        }
        let since = Instant::now();
        while since.elapsed() < AWAKE {
            hint::spin_loop();
            if !together.is_anybody_inside() {
                return;
            }
        }
        let mut state = together.lock();
        while together.is_anybody_inside() {
            state.awaited = true;
            state = together
                .none_inside
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.awaited = false;
    }
}

/// This thread has joined in, until this is dropped.
struct Inside<'t>(&'t Together);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let state = self.0.lock();
        self.0.inside.fetch_sub(1, Ordering::Release);
        if state.awaited {
            self.0.none_inside.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn who_shares_waits_for_who_joined_in_also_when_it_panics() {
        let together = Together::default();
        let sharer = thread::current().id();
        for (patience, panics) in [(0, false), (5, false), (0, true), (5, true)] {
            let (both, done) = (Barrier::new(2), AtomicBool::new(false));
            let work = || {
                both.wait();
                if thread::current().id() != sharer {
                    // Long enough for the other one to give up waiting awake.
                    thread::sleep(Duration::from_millis(patience));
                    done.store(true, Ordering::Relaxed);
                } else if panics {
                    panic!("as it is told");
                }
            };
            thread::scope(|scope| {
                let share = || together.share(&work, || drop(scope.spawn(|| together.join())));
                assert_eq!(catch_unwind(AssertUnwindSafe(share)).is_err(), panics);
                assert!(done.load(Ordering::Relaxed));
            });
        }
    }

    #[test]
    fn who_is_late_finds_nothing_to_do() {
        let together = Together::default();
        let times = AtomicUsize::new(0);
        let work = || {
            times.fetch_add(1, Ordering::Relaxed);
        };
        together.join();
        together.share(&work, || {});
        together.join();
        assert_eq!(times.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn all_are_gone_when_it_returns_however_they_come() {
        let together = Together::default();
        let ending = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !ending.load(Ordering::Relaxed) {
                        together.join();
                    }
                });
            }
            for round in 0..2000 {
                let left = AtomicUsize::new(round % 16);
                let take = |left: usize| left.checked_sub(1);
                let work = || {
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                        .is_ok()
                    {}
                };
                together.share(&work, || {});
                assert!(!together.is_anybody_inside());
                assert_eq!(left.load(Ordering::Relaxed), 0);
            }
            ending.store(true, Ordering::Relaxed);
        });
    }
}
