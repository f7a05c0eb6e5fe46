//! Requests that wait for a lock: beside the pool, and until they are told to give up.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use common::*;
use fuse_fs::{Blocking, Errno, Outcome, PayloadSink, PayloadSource, Serve};
use fuse_wire::abi::{InHeader, OutHeader};
use virtio_fs_queue::{Drained, GuestSpace, Pool};
use zerocopy::IntoBytes;

/// Numbers of requests that wait for the lock, and of one that waits for a device.
const WAITS: u64 = 1 << 32;
const BLOCKS: u64 = 1 << 33;

/// A lock that somebody else holds.
#[derive(Default)]
struct Lock {
    /// Those who wait for it.
    waiting: Mutex<usize>,
    changed: Condvar,
    free: AtomicBool,
    /// How often all who wait were told to give up.
    cancelled: AtomicUsize,
}

#[derive(Clone, Default)]
struct Locked(Arc<Lock>);

impl Locked {
    /// Returns when `count` requests wait.
    fn until_waiting(&self, count: usize) {
        let waiting = self.0.waiting.lock().unwrap();
        let reached = |waiting: &mut usize| *waiting != count;
        drop(self.0.changed.wait_while(waiting, reached).unwrap());
    }

    fn release(&self) {
        self.0.free.store(true, Ordering::SeqCst);
        drop(self.0.waiting.lock().unwrap());
        self.0.changed.notify_all();
    }

    fn wait(&self) -> Result<(), Errno> {
        let lock = &*self.0;
        let before = lock.cancelled.load(Ordering::SeqCst);
        let is_cancelled = || lock.cancelled.load(Ordering::SeqCst) != before;
        let is_free = || lock.free.load(Ordering::SeqCst);
        let mut waiting = lock.waiting.lock().unwrap();
        *waiting += 1;
        lock.changed.notify_all();
        while !is_free() && !is_cancelled() {
            waiting = lock.changed.wait(waiting).unwrap();
        }
        *waiting -= 1;
        lock.changed.notify_all();
        if is_free() {
            Ok(())
        } else {
            Err(Errno::ENOLCK)
        }
    }
}

impl Serve for Locked {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        let unique = InHeader::peek(message).unwrap().unique;
        let result = match blocking {
            Blocking::Forbidden if unique >= BLOCKS => return Outcome::WouldBlock,
            Blocking::Forbidden if unique >= WAITS => return Outcome::WouldWait,
            Blocking::Allowed if unique < BLOCKS => self.wait(),
            _ => Ok(()),
        };
        let header = match result {
            Ok(()) => OutHeader::success(unique, 0),
            Err(errno) => OutHeader::failure(unique, errno),
        };
        reply[..16].copy_from_slice(header.as_bytes());
        Outcome::Reply {
            head: 16,
            payload: 0,
        }
    }

    fn cancel_waits(&self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        drop(self.0.waiting.lock().unwrap());
        self.0.changed.notify_all();
    }

    fn reset(&self) {}
}

/// Offers a request number `unique` at descriptor `first`, and returns where its reply will be.
fn offer<AS: GuestSpace>(rig: &mut Rig<AS>, first: u16, unique: u64) -> u64 {
    let at = 0x80 * u64::from(first);
    let sent = request(unique, b"");
    rig.put(REQUEST + at, &sent);
    rig.put(REPLY + at, &[0xee; 16]);
    let buffers = [readable(REQUEST + at, sent.len()), writable(REPLY + at, 16)];
    rig.offer_chain(first, &buffers);
    REPLY + at
}

fn rig_with(threads: usize, serve: &Locked) -> Rig {
    let space = Arc::new(memory());
    Rig::new(space, config(64), serve.clone(), Pool::new(threads))
}

#[test]
fn who_waits_for_a_lock_takes_no_thread_of_the_pool() {
    for threads in [0, 1] {
        let lock = Locked::default();
        let mut rig = rig_with(threads, &lock);
        for number in 0..4 {
            offer(&mut rig, 2 * number, WAITS + u64::from(number));
        }
        assert_eq!(rig.queue.drain(), Drained::Idle);
        lock.until_waiting(4);
        assert_eq!(rig.used(), []);
        offer(&mut rig, 8, BLOCKS);
        offer(&mut rig, 10, 1);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        while rig.used().is_empty() {
            std::thread::yield_now();
        }
        lock.release();
        lock.until_waiting(0);
        rig.queue.stop();
        assert_eq!(rig.counts().offloaded, 5);
    }
}

#[test]
fn no_more_wait_than_may() {
    let lock = Locked::default();
    let pool = Pool::new(1).max_waiting(2);
    let mut rig = Rig::new(Arc::new(memory()), config(64), lock.clone(), pool);
    for first in [0, 2] {
        offer(&mut rig, first, WAITS);
    }
    rig.queue.drain();
    lock.until_waiting(2);
    let refused = offer(&mut rig, 4, WAITS);
    rig.queue.drain();
    assert_eq!(rig.used(), [(4, 16)]);
    assert_eq!(rig.out_header(refused).error, -Errno::ENOLCK.raw());
    lock.release();
    rig.queue.stop();
    assert_eq!(rig.used().len(), 2);
}

#[test]
fn the_lock_comes_to_who_waits() {
    let lock = Locked::default();
    let mut rig = rig_with(1, &lock);
    let reply = offer(&mut rig, 0, WAITS);
    rig.queue.drain();
    lock.until_waiting(1);
    let interrupts = rig.interrupts();
    lock.release();
    rig.queue.stop();
    assert_eq!(rig.used(), [(0, 16)]);
    assert_eq!(rig.out_header(reply).error, 0);
    assert_eq!(rig.interrupts(), interrupts + 1);
}

#[test]
fn stopping_ends_the_wait() {
    let lock = Locked::default();
    let mut rig = rig_with(1, &lock);
    let replies = [0, 2, 4].map(|first| offer(&mut rig, first, WAITS));
    rig.queue.drain();
    lock.until_waiting(3);
    let position = rig.queue.stop();
    assert_eq!((position.next_avail, position.next_used), (3, 3));
    assert_eq!(rig.used().len(), 3);
    for reply in replies {
        assert_eq!(rig.out_header(reply).error, -Errno::ENOLCK.raw());
    }
}
