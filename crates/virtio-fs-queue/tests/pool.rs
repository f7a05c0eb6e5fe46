//! Requests that wait: in the pool, while the queue goes on, stops, or loses memory.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use common::*;
use fuse_fs::{Blocking, Outcome, Serve};
use virtio_fs_queue::{Drained, Pool, Position, QueueConfig};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

const BLOCKS: u64 = 1 << 32;

/// Serves requests from `BLOCKS` on only where they may wait, and then when it is told to.
struct Gate {
    entered: Receiver<u64>,
    open: Sender<()>,
}

fn gate() -> (Gate, impl Serve + 'static) {
    let (enter, entered) = channel();
    let (open, opened) = channel();
    let opened = Mutex::new(opened);
    let serve = double(move |mut call: Call<'_>| {
        assert_eq!(call.source.remaining(), 0);
        let sink = call.sink.as_mut().unwrap();
        let room = sink.remaining();
        if call.header.unique >= BLOCKS {
            if call.blocking == Blocking::Forbidden {
                // What is put there now must not show.
                sink.write(b"too early");
                return Outcome::WouldBlock;
            }
            enter.send(call.header.unique).unwrap();
            opened.lock().unwrap().recv().unwrap();
        }
        assert_eq!(sink.remaining(), room, "the sink starts anew");
        let len = sink.write(b"done");
        call.done_with(len)
    });
    (Gate { entered, open }, serve)
}

/// Offers a request number `unique` at descriptor `first`, with a reply of its own.
fn offer<AS: virtio_fs_queue::GuestSpace>(rig: &mut Rig<AS>, first: u16, unique: u64) -> u64 {
    let at = 0x100 * u64::from(first);
    let sent = request(unique, b"");
    rig.put(REQUEST + at, &sent);
    rig.put(REPLY + at, &[0xee; 64]);
    let buffers = [readable(REQUEST + at, sent.len()), writable(REPLY + at, 64)];
    rig.offer_chain(first, &buffers);
    REPLY + at
}

/// The thread that gave the last chain back is not done with it: it interrupts the driver.
#[test]
fn a_full_queue_goes_on_as_soon_as_a_chain_is_given_back() {
    let serve = double(|call| match call.blocking {
        Blocking::Forbidden => Outcome::WouldBlock,
        Blocking::Allowed => call.done(),
    });
    let (interrupt, interrupted) = channel();
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    let space = Arc::new(memory());
    let mut rig = Rig::with(space, config(1), serve, Pool::new(3), |resources| {
        resources.notify = Box::new(move || {
            interrupt.send(()).unwrap();
            let _ = told.lock().unwrap().recv();
        });
    });
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    rig.link(
        TABLE,
        0,
        &[readable(REQUEST, sent.len()), writable(REPLY, 64)],
    );
    for _ in 0..3 {
        rig.offer_chain(0, &[indirect(TABLE, 32)]);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        interrupted.recv().unwrap();
        assert_eq!(rig.used(), [(0, 16)]);
    }
    drop(go_on);
    drop(interrupted);
    assert_eq!(rig.counts().ring_errors, 0);
}

#[test]
fn who_waits_holds_up_nobody() {
    let (gate, serve) = gate();
    let mut rig = rig(8, serve);
    let slow = offer(&mut rig, 0, BLOCKS);
    let fast = offer(&mut rig, 2, 1);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(gate.entered.recv().unwrap(), BLOCKS);
    assert_eq!(rig.used(), [(2, 20)]);
    assert_eq!(rig.out_header(fast).unique, 1);
    offer(&mut rig, 4, 2);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(4, 20)]);
    let interrupts = rig.interrupts();

    gate.open.send(()).unwrap();
    let position = Position {
        next_avail: 3,
        next_used: 3,
    };
    assert_eq!(rig.queue.stop(), position);
    assert_eq!(rig.used(), [(0, 20)]);
    assert_eq!(rig.interrupts(), interrupts + 1);
    assert_eq!(rig.out_header(slow).unique, BLOCKS);
    assert_eq!(rig.get(slow + 16, 4), b"done");
    let counts = rig.counts();
    assert_eq!((counts.chains, counts.offloaded), (3, 1));
}

#[test]
fn stop_waits_for_what_is_in_flight() {
    let (gate, serve) = gate();
    let mut rig = rig(8, serve);
    offer(&mut rig, 0, BLOCKS);
    rig.queue.drain();
    gate.entered.recv().unwrap();
    let stopped = Arc::new(AtomicBool::new(false));
    let stopper = {
        let (queue, stopped) = (Arc::clone(&rig.queue), Arc::clone(&stopped));
        thread::spawn(move || {
            let position = queue.stop();
            stopped.store(true, Ordering::SeqCst);
            position
        })
    };
    while rig.queue.drain() != Drained::Stopped {
        thread::yield_now();
    }
    assert!(!stopped.load(Ordering::SeqCst));
    assert_eq!(rig.used(), []);
    gate.open.send(()).unwrap();
    let position = stopper.join().unwrap();
    assert_eq!((position.next_avail, position.next_used), (1, 1));
    assert_eq!(rig.used(), [(0, 20)]);

    // Another queue goes on where this one ended, after a request that came in between.
    offer(&mut rig, 2, 5);
    let config = QueueConfig {
        position,
        ..rig.config
    };
    let mut next = Rig::new(Arc::clone(&rig.space), config, Echo, Pool::new(0));
    next.put(AVAIL + 2, &2u16.to_le_bytes());
    assert_eq!(next.queue.drain(), Drained::Idle);
    assert_eq!(next.used().len(), 1);
}

#[test]
fn without_threads_the_queue_waits_itself() {
    let (gate, serve) = gate();
    let space = Arc::new(memory());
    let mut rig = Rig::new(space, config(8), serve, Pool::new(0));
    offer(&mut rig, 0, BLOCKS);
    offer(&mut rig, 2, 1);
    gate.open.send(()).unwrap();
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(0, 20), (2, 20)]);
    assert_eq!(rig.counts().offloaded, 1);
}

#[test]
fn more_in_flight_than_descriptors_breaks_the_ring() {
    let (gate, serve) = gate();
    let mut rig = Rig::new(Arc::new(memory()), config(2), serve, Pool::new(4));
    let sent = request(BLOCKS, b"");
    rig.put(REQUEST, &sent);
    rig.link(
        TABLE,
        0,
        &[readable(REQUEST, sent.len()), writable(REPLY, 64)],
    );
    // The same descriptor again and again.
    for _ in 0..2 {
        rig.offer_chain(0, &[indirect(TABLE, 32)]);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        gate.entered.recv().unwrap();
    }
    rig.offer(0);
    assert_eq!(rig.queue.drain(), Drained::Broken);
    assert_eq!(rig.queue.drain(), Drained::Broken);
    assert_eq!(rig.counts().ring_errors, 1);
    for _ in 0..2 {
        gate.open.send(()).unwrap();
    }
    rig.queue.stop();
    assert_eq!(rig.used(), [(0, 20), (0, 20)]);
}

#[test]
fn memory_that_went_away_is_not_touched() {
    let space = GuestMemoryAtomic::new(memory());
    let (gate, serve) = gate();
    let mut rig = Rig::new(space.clone(), config(8), serve, Pool::new(1));
    // One takes the only thread; the other one waits for it, its reply in the second region.
    offer(&mut rig, 0, BLOCKS);
    let sent = request(BLOCKS + 1, b"");
    rig.put(REQUEST + 0x800, &sent);
    rig.offer_chain(
        2,
        &[readable(REQUEST + 0x800, sent.len()), writable(BORDER, 64)],
    );
    assert_eq!(rig.queue.drain(), Drained::Idle);
    gate.entered.recv().unwrap();
    let half = usize::try_from(BORDER).unwrap();
    let (smaller, _) =
        GuestMemoryMmap::remove_region(&rig.space.memory(), GuestAddress(BORDER), half as u64)
            .unwrap();
    space.lock().unwrap().replace(smaller);
    gate.open.send(()).unwrap();
    rig.queue.stop();
    assert_eq!(rig.used(), [(0, 20), (2, 0)]);
    assert_eq!(rig.counts().malformed, 1);
    assert!(gate.entered.try_recv().is_err(), "it was not served");
}

#[test]
fn a_ring_that_went_away_is_broken() {
    let space = GuestMemoryAtomic::new(memory());
    let (gate, serve) = gate();
    let mut rig = Rig::new(space.clone(), config(8), serve, Pool::new(1));
    offer(&mut rig, 0, BLOCKS);
    rig.queue.drain();
    gate.entered.recv().unwrap();
    offer(&mut rig, 2, BLOCKS);
    rig.queue.drain();
    let elsewhere = GuestMemoryMmap::from_ranges(&[(GuestAddress(1 << 40), 4096)]).unwrap();
    space.lock().unwrap().replace(elsewhere);
    gate.open.send(()).unwrap();
    rig.queue.stop();
    assert!(rig.counts().ring_errors >= 1);
}

#[test]
fn memory_that_was_added_during_a_long_drain_is_found() {
    let half = usize::try_from(BORDER).unwrap();
    let small: Memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), half)]).unwrap();
    let space = GuestMemoryAtomic::new(small);
    let inside = space.clone();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let serve = double(move |call: Call<'_>| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            let region = vm_memory::GuestRegionMmap::from_range(GuestAddress(BORDER), half, None);
            let now = inside.memory();
            let larger = now.insert_region(Arc::new(region.unwrap())).unwrap();
            inside.lock().unwrap().replace(larger);
            // The driver learns of it, and uses it at once.
            now.write_obj(2u16, GuestAddress(AVAIL + 4 + 2)).unwrap();
            now.write_obj(2u16, GuestAddress(AVAIL + 2)).unwrap();
        }
        call.done()
    });
    let mut rig = Rig::new(space, config(8), serve, Pool::new(0));
    let sent = request(1, b"");
    rig.link(
        DESCRIPTORS,
        2,
        &[readable(REQUEST, sent.len()), writable(BORDER, 16)],
    );
    offer(&mut rig, 0, 1);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(0, 16), (2, 16)]);
    assert_eq!(rig.counts().malformed, 0);
}

#[test]
fn a_queue_and_its_pool_can_be_dropped_while_a_request_is_under_way() {
    let (gate, serve) = gate();
    let mut rig = rig(8, serve);
    offer(&mut rig, 0, BLOCKS);
    rig.queue.drain();
    gate.entered.recv().unwrap();
    let interrupts = Arc::clone(&rig.interrupts);
    let panics = count_panics_of_the_pool();
    drop(rig);
    // Now the request is the last owner of both, and the last to let go of the counter.
    gate.open.send(()).unwrap();
    while Arc::strong_count(&interrupts) > 1 {
        thread::yield_now();
    }
    assert_eq!(interrupts.load(Ordering::SeqCst), 1);
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

fn count_panics_of_the_pool() -> Arc<AtomicUsize> {
    let panics: Arc<AtomicUsize> = Arc::default();
    let (count, before) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().name() == Some("virtio-fs-pool") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        before(info);
    }));
    panics
}
