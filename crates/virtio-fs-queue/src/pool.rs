use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::help::{Help, Helpers, Large};
use crate::poll::processors;
use crate::sys::{ReplyBuffer, Together};

/// Most threads that wait for locks, unless told otherwise: as many as a large queue has requests.
const MAX_WAITING: usize = 1024;
/// Bytes of stack for each: there is no deep recursion behind a lock.
const WAITING_STACK: usize = 256 * 1024;

/// Most bytes of requests that are kept until a thread has time for them: thousands of ordinary ones,
/// but a guest can make 64 queues of 1024 requests of 128 KiB each.
const MAX_BACKLOG: usize = 16 << 20;

/// Work that may wait.
pub(crate) trait Job: Send {
    /// Bytes that it takes while it waits for a thread.
    fn size(&self) -> usize;

    /// Does it, with a buffer for a reply.
    fn run(self: Box<Self>, reply: &mut [u8]);
}

/// Threads for requests that have to wait, so that these hold up no queue. Where a queue has several
/// large READs to serve, some of them move data beside it, one for each processor but one. Where it
/// has only one, of 512 KiB or more, one of them moves part of that, if other queues leave a processor.
///
/// A thread is started when there is work and none is idle, up to a limit, and kept. All queues of
/// a device share a pool, and devices may. Each queue has no more work here than it has descriptors,
/// and all together no more than takes 16 MiB, which bounds what a guest can pile up: beyond that, a
/// queue waits itself. Dropping the pool does what is left and ends the threads;
/// it waits for that, unless a thread of the pool is who drops it.
///
/// Its threads run on the processors that the thread which made it may run on, also where those of
/// the queues are kept to some.
///
/// What waits for a lock of somebody else, which may take for ever, has a thread of its own beyond
/// that limit, with a limit of its own ([`max_waiting`](Self::max_waiting)). Those are ended by
/// [`Queue::stop`](crate::Queue::stop), not by dropping the pool.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Helpers,
    max_threads: usize,
    max_waiting: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Threads that wait for a lock.
    waiting: AtomicUsize,
    /// Threads that could not be started.
    failures: AtomicU64,
    /// Where threads run: a new one would run where that of the queue does which has work for it.
    processors: Option<CpuSet>,
}

/// One of the threads that wait for a lock, until dropped.
struct PlaceToWait(Arc<Shared>);

impl Drop for PlaceToWait {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a thread is to do.
enum Task {
    Job(Box<dyn Job>),
    Join(Arc<Together>),
}

impl Task {
    fn size(&self) -> usize {
        match self {
            Self::Job(job) => job.size(),
            Self::Join(_) => 0,
        }
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Task>,
    /// Bytes that they take.
    backlog: usize,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    closing: bool,
}

impl Pool {
    /// A pool of at most `max_threads` threads. With none, each queue waits itself.
    #[must_use]
    pub fn new(max_threads: usize) -> Self {
        Self::on(processors(), max_threads)
    }

    /// A pool where there are so many processors.
    pub(crate) fn on(processors: usize, max_threads: usize) -> Self {
        Self {
            helpers: Helpers::on(processors, max_threads),
            shared: Arc::new(Shared {
                state: Mutex::default(),
                work: Condvar::new(),
                waiting: AtomicUsize::new(0),
                failures: AtomicU64::new(0),
                processors: sched_getaffinity(None).ok(),
            }),
            max_threads,
            max_waiting: MAX_WAITING,
        }
    }

    /// At most `threads` threads wait for locks, 1024 unless set. What exceeds it is answered with
    /// ENOLCK.
    #[must_use]
    pub fn max_waiting(mut self, threads: usize) -> Self {
        self.max_waiting = threads;
        self
    }

    /// Hands `job` to a thread; gives it back where there is none and none can be started, or all of
    /// them have enough to do.
    pub(crate) fn submit(&self, job: Box<dyn Job>) -> Result<(), Box<dyn Job>> {
        let mut state = self.shared.lock();
        if !self.find_thread(&mut state) {
            let backlog = state.backlog.saturating_add(job.size());
            if state.threads.is_empty() || backlog > MAX_BACKLOG {
                return Err(job);
            }
        }
        self.hand_over(state, Task::Job(job));
        Ok(())
    }

    /// Hands `job` to a thread that begins with it at once; gives it back where there is none.
    pub(crate) fn submit_now(&self, job: Box<dyn Job>) -> Result<(), Box<dyn Job>> {
        let mut state = self.shared.lock();
        if !self.find_thread(&mut state) {
            return Err(job);
        }
        self.hand_over(state, Task::Job(job));
        Ok(())
    }

    /// Has a thread join in, if there is one that has nothing to do.
    pub(crate) fn call(&self, together: &Arc<Together>) {
        let mut state = self.shared.lock();
        if self.find_thread(&mut state) {
            self.hand_over(state, Task::Join(Arc::clone(together)));
        }
    }

    /// Leave to have a thread move data beside a queue's own, where a processor is left for that.
    pub(crate) fn help(&self) -> Option<Help> {
        self.helpers.begin()
    }

    /// A queue's own thread moves much data, until this is dropped.
    pub(crate) fn begin_large(&self) -> Large<'_> {
        self.helpers.begin_large()
    }

    /// How many threads were started.
    #[cfg(test)]
    pub(crate) fn threads(&self) -> usize {
        self.shared.lock().threads.len()
    }

    /// Whether a thread has nothing to do, or was started.
    fn find_thread(&self, state: &mut State) -> bool {
        if state.idle > state.jobs.len() {
            return true;
        }
        if state.threads.len() >= self.max_threads {
            return false;
        }
        match self.start_thread() {
            Ok(thread) => state.threads.push(thread),
            Err(error) => {
                self.shared.note_failure(&error);
                return false;
            }
        }
        true
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State>, task: Task) {
        state.backlog = state.backlog.saturating_add(task.size());
        state.jobs.push_back(task);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Runs `job` on a thread of its own; gives it back where none can be started.
    pub(crate) fn submit_wait<J: Job + 'static>(&self, job: J) -> Result<(), J> {
        let Some(place) = self.shared.place_to_wait(self.max_waiting) else {
            return Err(job);
        };
        // A thread that cannot be started takes what it was to do with it.
        let handed_over = Arc::new(Mutex::new(Some(job)));
        let taken = Arc::clone(&handed_over);
        let start = |mut reply: ReplyBuffer| {
            thread::Builder::new()
                .name("virtio-fs-wait".to_owned())
                .stack_size(WAITING_STACK)
                .spawn(move || {
                    place.0.spread_out();
                    let _place = place;
                    if let Some(job) = take(&taken) {
                        Box::new(job).run(&mut reply);
                    }
                })
        };
        match ReplyBuffer::new().and_then(start) {
            Ok(_detached) => Ok(()),
            Err(error) => {
                self.shared.note_failure(&error);
                take(&handed_over).map_or(Ok(()), Err)
            }
        }
    }

    fn start_thread(&self) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let reply = ReplyBuffer::new()?;
        thread::Builder::new()
            .name("virtio-fs-pool".to_owned())
            .spawn(move || shared.work(reply))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.shared.lock();
            state.closing = true;
            std::mem::take(&mut state.threads)
        };
        self.shared.work.notify_all();
        let here = thread::current().id();
        if threads.iter().any(|thread| thread.thread().id() == here) {
            // The last owner was a job: its thread cannot wait for itself, and ends on its own.
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the pool panicked");
            }
        }
    }
}

impl Shared {
    /// What a thread of the pool does.
    fn work(&self, mut reply: ReplyBuffer) {
        self.spread_out();
        while let Some(task) = self.next_task() {
            match task {
                Task::Job(job) => job.run(&mut reply),
                Task::Join(together) => together.join(),
            }
        }
    }

    /// Has the thread that calls this run on all processors of the pool.
    fn spread_out(&self) {
        if let Some(processors) = &self.processors
            && let Err(error) = sched_setaffinity(None, processors)
        {
            tracing::debug!(%error, "a thread of the pool stays on the processors of a queue");
        }
    }

    /// Ever more rarely, as it may be so at each request.
    fn note_failure(&self, error: &io::Error) {
        let count = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        if count.is_power_of_two() {
            tracing::warn!(count, %error, "cannot start a thread for a request that waits");
        }
    }

    fn place_to_wait(self: &Arc<Self>, limit: usize) -> Option<PlaceToWait> {
        let more = |waiting: usize| (waiting < limit).then(|| waiting.saturating_add(1));
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| PlaceToWait(Arc::clone(self)))
    }

    fn next_task(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.jobs.pop_front() {
                state.backlog = state.backlog.saturating_sub(task.size());
                return Some(task);
            }
            if state.closing {
                return None;
            }
            state.idle = state.idle.saturating_add(1);
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle = state.idle.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("max_threads", &self.max_threads)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    struct Meet(Arc<Barrier>, Arc<AtomicUsize>);

    impl Job for Meet {
        fn size(&self) -> usize {
            0
        }

        fn run(self: Box<Self>, reply: &mut [u8]) {
            assert_eq!(reply.len(), fuse_fs::REPLY_BUFFER);
            self.0.wait();
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn as_many_jobs_as_threads_run_at_once_and_all_run_before_it_ends() {
        let pool = Pool::new(3);
        let (barrier, done) = (Arc::new(Barrier::new(3)), Arc::default());
        for _ in 0..9 {
            let job = Meet(Arc::clone(&barrier), Arc::clone(&done));
            assert!(pool.submit(Box::new(job)).is_ok());
        }
        drop(pool);
        assert_eq!(done.load(Ordering::SeqCst), 9);
    }

    #[test]
    fn a_pool_without_threads_gives_jobs_back() {
        let job = Meet(Arc::new(Barrier::new(1)), Arc::default());
        assert!(Pool::new(0).submit(Box::new(job)).is_err());
    }

    /// Waits for a word, and is large.
    struct Large(Arc<Barrier>);

    impl Job for Large {
        fn size(&self) -> usize {
            MAX_BACKLOG / 4
        }

        fn run(self: Box<Self>, _: &mut [u8]) {
            self.0.wait();
        }
    }

    #[test]
    fn what_is_piled_up_is_bounded() {
        let pool = Pool::new(1);
        let barrier = Arc::new(Barrier::new(2));
        for _ in 0..2 {
            let mut taken = 0;
            while pool.submit(Box::new(Large(Arc::clone(&barrier)))).is_ok() {
                taken += 1;
                assert!(taken <= 5);
            }
            assert!(taken >= 4, "one of them may be under way already");
            for _ in 0..taken {
                barrier.wait();
            }
        }
    }

    /// Tells how many processors it may run on.
    struct Where(SyncSender<u32>);

    impl Job for Where {
        fn size(&self) -> usize {
            0
        }

        fn run(self: Box<Self>, _: &mut [u8]) {
            let processors = sched_getaffinity(None).unwrap();
            self.0.send(processors.count()).unwrap();
        }
    }

    #[test]
    fn what_waits_does_so_anywhere_whoever_left_it_to_the_pool() {
        let pool = Pool::new(1);
        let all = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|n| all.is_set(*n)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
        let (sender, seen) = sync_channel(2);
        assert!(pool.submit(Box::new(Where(sender.clone()))).is_ok());
        assert!(pool.submit_wait(Where(sender)).is_ok());
        assert_eq!([(); 2].map(|()| seen.recv().unwrap()), [all.count(); 2]);
    }
}
