//! Where the threads of the processors stop when they are to.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Open,
    Closed,
    /// No thread comes back from here.
    Torn,
}

/// Stops threads, and knows when they have.
#[derive(Debug)]
pub(super) struct Gate {
    /// With the number of threads that are not stopped.
    inner: Mutex<(Position, usize)>,
    changed: Condvar,
}

impl Gate {
    /// A closed one.
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new((Position::Closed, 0)),
            changed: Condvar::new(),
        }
    }

    /// There is one thread more, until it [leaves](Self::leave).
    pub(super) fn enter(&self) {
        self.lock().1 += 1;
    }

    pub(super) fn open(&self) {
        self.lock().0 = Position::Open;
        self.changed.notify_all();
    }

    /// Closes it, and calls `nudge` every now and then until all threads have stopped.
    pub(super) fn close(&self, nudge: impl Fn()) {
        self.stop(Position::Closed, nudge);
    }

    /// Closes it for ever.
    pub(super) fn tear(&self, nudge: impl Fn()) {
        self.stop(Position::Torn, nudge);
    }

    /// Whether a thread may go on without a stop.
    pub(super) fn is_open(&self) -> bool {
        self.lock().0 == Position::Open
    }

    /// Returns when it is open, or with `false` where the thread is to end.
    pub(super) fn pass(&self) -> bool {
        let mut inner = self.lock();
        if inner.0 == Position::Open {
            return true;
        }
        inner.1 -= 1;
        self.changed.notify_all();
        while inner.0 == Position::Closed {
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inner.1 += 1;
        inner.0 == Position::Open
    }

    /// A thread ends.
    pub(super) fn leave(&self) {
        self.lock().1 -= 1;
        self.changed.notify_all();
    }

    fn stop(&self, position: Position, nudge: impl Fn()) {
        const PATIENCE: Duration = Duration::from_millis(5);
        let mut inner = self.lock();
        inner.0 = position;
        self.changed.notify_all();
        while inner.1 > 0 {
            drop(inner);
            nudge();
            inner = self.lock();
            if inner.1 > 0 {
                let waited = self.changed.wait_timeout(inner, PATIENCE);
                inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Position, usize)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn threads_stop_and_go_on_and_end() {
        let gate = Arc::new(Gate::new());
        let rounds = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (gate, rounds) = (Arc::clone(&gate), Arc::clone(&rounds));
                gate.enter();
                thread::spawn(move || {
                    while gate.pass() {
                        rounds.fetch_add(1, Ordering::Relaxed);
                        thread::yield_now();
                    }
                    gate.leave();
                })
            })
            .collect();
        gate.close(|| {});
        assert_eq!(rounds.load(Ordering::Relaxed), 0);
        for _ in 0..3 {
            let before = rounds.load(Ordering::Relaxed);
            gate.open();
            while rounds.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
            gate.close(|| {});
            let after = rounds.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(10));
            assert_eq!(rounds.load(Ordering::Relaxed), after);
        }
        gate.tear(|| {});
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn thread_that_ended_is_not_waited_for() {
        let gate = Gate::new();
        gate.enter();
        gate.open();
        gate.leave();
        gate.close(|| {});
        gate.tear(|| {});
    }
}
