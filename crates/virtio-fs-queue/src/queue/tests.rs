//! Polling, with limits that no test lives to see: what ends a poll here is never the clock. And
//! stopping at moments that only chance brings about. And large READs, as if there were so many
//! processors.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use fuse_fs::{Blocking, Outcome, Serve};
use fuse_wire::Opcode;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestRegionMmap};

use super::{Drained, Queue};
use crate::common::*;
use crate::poll::{PollLimit, Polling};
use crate::{Counts, GuestSpace, Pool, QueueConfig};

const FOR_EVER: PollLimit = PollLimit(Duration::from_secs(1 << 20));
const MOMENT: PollLimit = PollLimit(Duration::from_nanos(1));

/// A queue that polls as if there were 8 processors.
fn polling<AS: GuestSpace>(
    space: AS,
    config: QueueConfig,
    serve: impl Serve + 'static,
    limit: PollLimit,
) -> Rig<AS> {
    Rig::with(space, config, serve, Pool::new(1), |resources| {
        resources.polling = Arc::new(Polling::on(8, limit));
    })
}

fn with_event_idx() -> QueueConfig {
    QueueConfig {
        event_idx: true,
        ..config(16)
    }
}

/// Offers a request that needs no kick, and waits until it is served.
fn ask_without_kick<AS: GuestSpace>(rig: &mut Rig<AS>, at: u64) {
    let sent = request(1, b"");
    rig.put(at, &sent);
    rig.offer_chain(0, &[readable(at, sent.len()), writable(REPLY, 64)]);
    while rig.used().is_empty() {
        thread::yield_now();
    }
}

#[test]
fn what_comes_during_a_poll_needs_no_kick_and_stopping_ends_it() {
    for config in [config(16), with_event_idx()] {
        let mut rig = polling(Arc::new(memory()), config, Echo, FOR_EVER);
        let queue = Arc::clone(&rig.queue);
        let device = thread::spawn(move || queue.drain());
        for asked in 1..=20 {
            ask_without_kick(&mut rig, REQUEST);
            // The driver was told before the queue went to look out for more.
            while rig.interrupts() < usize::from(!config.event_idx) * asked {
                thread::yield_now();
            }
        }
        // Kicks were suppressed all the time.
        match config.event_idx {
            true => assert_eq!(rig.avail_event(), 0),
            false => assert_eq!(rig.word(USED), 1),
        }
        assert_eq!(rig.queue.stop().next_used, 20);
        assert_eq!(device.join().unwrap(), Drained::Stopped);
        assert_eq!(rig.counts().polls_in_vain, 0);
        assert!(rig.counts().polls_with_result > 0);
    }
}

#[test]
fn a_poll_that_is_ended_is_none_with_a_result_nor_in_vain() {
    let stop: fn(&Rig<Arc<Memory>>) = |rig| {
        rig.queue.stop();
    };
    let break_ring: fn(&Rig<Arc<Memory>>) = |rig| rig.put(AVAIL + 2, &1000u16.to_le_bytes());
    for (end, drained) in [(stop, Drained::Stopped), (break_ring, Drained::Broken)] {
        let mut rig = polling(Arc::new(memory()), config(16), Echo, FOR_EVER);
        let sent = request(1, b"");
        rig.put(REQUEST, &sent);
        rig.offer_chain(0, &[readable(REQUEST, sent.len()), writable(REPLY, 64)]);
        let queue = Arc::clone(&rig.queue);
        let device = thread::spawn(move || queue.drain());
        // Behind this it polls.
        while rig.interrupts() == 0 {
            thread::yield_now();
        }
        end(&rig);
        assert_eq!(device.join().unwrap(), drained);
        let counts = rig.counts();
        assert_eq!((counts.polls_in_vain, counts.polls_with_result), (0, 0));
    }
}

#[test]
fn what_comes_during_a_poll_may_be_in_memory_that_was_added_meanwhile() {
    let space = GuestMemoryAtomic::new(memory());
    let mut rig = polling(space.clone(), config(16), Echo, FOR_EVER);
    let queue = Arc::clone(&rig.queue);
    let device = thread::spawn(move || queue.drain());
    ask_without_kick(&mut rig, REQUEST);
    let added = GuestRegionMmap::from_range(GuestAddress(END), 0x1000, None).unwrap();
    let larger = rig.space.memory().insert_region(Arc::new(added)).unwrap();
    space.lock().unwrap().replace(larger);
    ask_without_kick(&mut rig, END);
    assert_eq!(rig.get(REPLY, 56), echo_reply(&request(1, b""), 64));
    assert_eq!(rig.counts().malformed, 0);
    rig.queue.stop();
    assert_eq!(device.join().unwrap(), Drained::Stopped);
}

#[test]
fn a_driver_that_breaks_the_ring_ends_a_poll() {
    let mut rig = polling(Arc::new(memory()), config(16), Echo, FOR_EVER);
    let queue = Arc::clone(&rig.queue);
    let device = thread::spawn(move || queue.drain());
    ask_without_kick(&mut rig, REQUEST);
    rig.put(AVAIL + 2, &1000u16.to_le_bytes());
    assert_eq!(device.join().unwrap(), Drained::Broken);
}

#[test]
fn after_a_poll_in_vain_kicks_are_asked_for_and_the_next_polls_are_rarer() {
    for config in [config(16), with_event_idx()] {
        let mut rig = polling(Arc::new(memory()), config, Echo, MOMENT);
        for asked in 1..=15u16 {
            let sent = request(1, b"");
            rig.ask(0, &sent, 64);
            match config.event_idx {
                true => assert_eq!(rig.avail_event(), asked),
                false => assert_eq!(rig.word(USED), 0),
            }
        }
        // The first of 15 opportunities, then after 1, 2, 4 that passed; 8 are being let pass.
        let counts = rig.counts();
        assert_eq!((counts.polls_in_vain, counts.polls_with_result), (4, 0));
    }
}

#[test]
fn a_queue_that_left_a_request_to_the_pool_does_not_poll() {
    let waits = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&waits);
    let serve = double(move |call: Call<'_>| {
        if call.blocking == Blocking::Forbidden && asked.load(Ordering::SeqCst) {
            return Outcome::WouldBlock;
        }
        call.done()
    });
    let mut rig = polling(Arc::new(memory()), config(16), serve, MOMENT);
    let sent = request(1, b"");
    for _ in 0..3 {
        rig.put(REQUEST, &sent);
        rig.offer_chain(0, &[readable(REQUEST, sent.len()), writable(REPLY, 64)]);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        while rig.used().is_empty() {
            thread::yield_now();
        }
    }
    assert_eq!(rig.counts().polls_in_vain, 0);
    waits.store(false, Ordering::SeqCst);
    rig.ask(0, &sent, 64);
    assert_eq!(rig.counts().polls_in_vain, 1);
}

/// Bytes of data in a READ that is large.
const LARGE: usize = 128 << 10;

/// Offers request number `n` + 1, with `room` for its data.
fn offer_with_room<AS: GuestSpace>(rig: &mut Rig<AS>, n: u16, opcode: Opcode, room: usize) {
    let mut sent = request(u64::from(n) + 1, b"");
    sent[4..8].copy_from_slice(&(opcode as u32).to_le_bytes());
    let at = REQUEST + 0x100 * u64::from(n);
    rig.put(at, &sent);
    let reply = writable(REPLY + 0x4_0000 * u64::from(n), 16 + room);
    rig.link(DESCRIPTORS, 4 * n, &[readable(at, sent.len()), reply]);
    rig.offer(4 * n);
}

/// Offers two requests with `room` for their data at once, of which the first is not done before the
/// second, if it is served beside it. Returns in which order they were, and the counts.
fn ask_for_two(processors: usize, opcode: Opcode, room: usize) -> (Vec<u64>, Counts) {
    let (done, second) = channel();
    let (done, second) = (Mutex::new(done), Mutex::new(second));
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let serve = double(move |call: Call<'_>| {
        let unique = call.header.unique;
        if unique == 1 && call.blocking == Blocking::Allowed {
            second.lock().unwrap().recv().unwrap();
        }
        noted.lock().unwrap().push(unique);
        if unique == 2 {
            done.lock().unwrap().send(()).unwrap();
        }
        call.done()
    });
    let pool = Pool::on(processors, 1);
    let mut rig = Rig::with(Arc::new(memory()), config(16), serve, pool, |_| {});
    for n in [0, 1] {
        offer_with_room(&mut rig, n, opcode, room);
    }
    rig.queue.drain();
    rig.queue.stop();
    assert_eq!(rig.used().len(), 2);
    let order = order.lock().unwrap().clone();
    (order, rig.counts())
}

#[test]
fn a_large_read_is_served_beside_the_next_one() {
    let (order, counts) = ask_for_two(2, Opcode::Read, LARGE);
    assert_eq!((order, counts.offloaded), (vec![2, 1], 1));
}

#[test]
fn what_is_small_or_no_read_or_has_no_processor_is_served_in_turn() {
    for (processors, opcode, room) in [
        (1, Opcode::Read, LARGE),
        (2, Opcode::Read, LARGE / 2),
        (2, Opcode::GetAttr, LARGE),
    ] {
        let (order, counts) = ask_for_two(processors, opcode, room);
        assert_eq!((order, counts.offloaded), (vec![1, 2], 0));
    }
}

#[test]
fn where_all_threads_wait_a_large_read_is_served_in_turn() {
    let (enter, entered) = channel();
    let (open, opened) = channel::<()>();
    let gate = Mutex::new((enter, opened));
    let serve = double(move |call: Call<'_>| {
        if call.header.unique == 3 {
            if call.blocking == Blocking::Forbidden {
                return Outcome::WouldBlock;
            }
            let gate = gate.lock().unwrap();
            gate.0.send(()).unwrap();
            gate.1.recv().unwrap();
        } else {
            assert_eq!(call.blocking, Blocking::Forbidden);
        }
        call.done()
    });
    let mut rig = Rig::with(
        Arc::new(memory()),
        config(16),
        serve,
        Pool::on(2, 1),
        |_| {},
    );
    offer_with_room(&mut rig, 2, Opcode::Read, LARGE);
    rig.queue.drain();
    entered.recv().unwrap();
    offer_with_room(&mut rig, 0, Opcode::Read, LARGE);
    offer_with_room(&mut rig, 1, Opcode::Read, LARGE);
    rig.queue.drain();
    assert_eq!(rig.used().len(), 2);
    open.send(()).unwrap();
    rig.queue.stop();
    assert_eq!(rig.used().len(), 1);
}

/// Memory whose map is let go of when the queue that uses it has to end.
#[derive(Clone)]
struct EndedBetweenRounds {
    memory: Arc<Memory>,
    end: fn(&Queue<Self>),
    queue: Arc<OnceLock<Weak<Queue<Self>>>>,
}

#[derive(Clone)]
struct LookedUp(EndedBetweenRounds);

impl GuestAddressSpace for EndedBetweenRounds {
    type M = Memory;
    type T = LookedUp;

    fn memory(&self) -> LookedUp {
        LookedUp(self.clone())
    }
}

impl Deref for LookedUp {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.0.memory
    }
}

impl Drop for LookedUp {
    fn drop(&mut self) {
        if let Some(queue) = self.0.queue.get().and_then(Weak::upgrade)
            && queue.shared.resources.stats.read().chains > 0
        {
            (self.0.end)(&queue);
        }
    }
}

#[test]
fn what_was_served_is_given_back_whenever_the_queue_has_to_end() {
    let stop: fn(&Queue<_>) = |queue| queue.stopping.store(true, Ordering::SeqCst);
    // As a thread of the pool does.
    let break_ring: fn(&Queue<_>) = |queue| queue.shared.broken.store(true, Ordering::SeqCst);
    for (end, drained) in [(stop, Drained::Stopped), (break_ring, Drained::Broken)] {
        let space = EndedBetweenRounds {
            memory: Arc::new(memory()),
            end,
            queue: Arc::default(),
        };
        let memory = Arc::clone(&space.memory);
        let serve = double(move |call: Call<'_>| {
            // More is available from now on, so that another round is to begin.
            let idx = GuestAddress(AVAIL + 2);
            memory.store(2u16.to_le(), idx, Ordering::Release).unwrap();
            call.done()
        });
        let mut rig = polling(space.clone(), config(16), serve, PollLimit::NEVER);
        space.queue.set(Arc::downgrade(&rig.queue)).unwrap();
        let sent = request(1, b"");
        rig.put(REQUEST, &sent);
        rig.offer_chain(0, &[readable(REQUEST, sent.len()), writable(REPLY, 64)]);
        assert_eq!(rig.queue.drain(), drained);
        assert_eq!(rig.used(), [(0, 16)]);
        let position = rig.queue.stop();
        assert_eq!((position.next_avail, position.next_used), (1, 1));
    }
}
