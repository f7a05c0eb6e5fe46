//! The rings: what is taken, what is given back, who is woken up when.

mod common;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use common::*;
use virtio_fs_queue::{Drained, Pool, Position, Queue, QueueConfig};
use vm_memory::{Bytes, GuestAddress};

type Handle = Arc<OnceLock<Weak<Queue<Arc<Memory>>>>>;

#[test]
fn a_request_is_answered() {
    let mut rig = rig(4, Echo);
    let sent = request(9, b"hello");
    assert_eq!(rig.ask(2, &sent, 100), echo_reply(&sent, 100));
    assert_eq!(rig.interrupts(), 1);
    let counts = rig.counts();
    assert_eq!((counts.chains, counts.interrupts), (1, 1));
    assert_eq!((counts.malformed, counts.ring_errors), (0, 0));
}

#[test]
fn the_indices_wrap_around() {
    for event_idx in [false, true] {
        let position = Position {
            next_avail: 65530,
            next_used: 65533,
        };
        let config = QueueConfig {
            event_idx,
            position,
            ..config(4)
        };
        let mut rig = Rig::new(Arc::new(memory()), config, Echo, Pool::new(0));
        for round in 0..20u16 {
            rig.set_used_event(rig.seen);
            let sent = request(round.into(), &round.to_le_bytes());
            assert_eq!(rig.ask(round % 3, &sent, 64), echo_reply(&sent, 64));
            assert_eq!(rig.interrupts(), usize::from(round) + 1);
        }
        assert_eq!(
            rig.queue.stop(),
            Position {
                next_avail: 14,
                next_used: 17
            }
        );
    }
}

#[test]
fn a_ring_of_one_descriptor_works() {
    let mut rig = rig(1, Echo);
    let sent = request(1, b"x");
    rig.put(REQUEST, &sent);
    rig.link(
        TABLE,
        0,
        &[readable(REQUEST, sent.len()), writable(REPLY, 64)],
    );
    for _ in 0..3 {
        rig.offer_chain(0, &[indirect(TABLE, 32)]);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        assert_eq!(rig.used(), [(0, 16 + 41)]);
    }
}

#[test]
fn one_drain_interrupts_once() {
    for event_idx in [false, true] {
        let config = QueueConfig {
            event_idx,
            ..config(16)
        };
        let mut rig = Rig::new(Arc::new(memory()), config, Echo, Pool::new(0));
        offer_some(&mut rig, 4);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        assert_eq!(rig.used().len(), 4);
        assert_eq!(rig.interrupts(), 1);
        // Nothing new: no interrupt.
        assert_eq!(rig.queue.drain(), Drained::Idle);
        assert_eq!(rig.interrupts(), 1);
    }
}

#[test]
fn a_long_drain_interrupts_now_and_then() {
    let mut rig = rig(64, Echo);
    offer_some(&mut rig, 32);
    rig.queue.drain();
    assert_eq!((rig.used().len(), rig.interrupts()), (32, 8));
    // Large requests and replies are told at once.
    let sent = request(1, &vec![7; 70_000]);
    rig.put(REQUEST, &sent);
    for first in [0, 2, 4] {
        rig.offer_chain(
            first,
            &[readable(REQUEST, sent.len()), writable(BORDER, 80_000)],
        );
    }
    rig.queue.drain();
    assert_eq!((rig.used().len(), rig.interrupts()), (3, 11));
}

#[test]
fn no_interrupt_is_honoured_without_event_idx() {
    let mut rig = rig(16, Echo);
    rig.put(AVAIL, &1u16.to_le_bytes());
    offer_some(&mut rig, 3);
    rig.queue.drain();
    assert_eq!((rig.used().len(), rig.interrupts()), (3, 0));
    rig.put(AVAIL, &0u16.to_le_bytes());
    offer_some(&mut rig, 3);
    rig.queue.drain();
    assert_eq!((rig.used().len(), rig.interrupts()), (3, 1));
}

#[test]
fn with_event_idx_the_driver_says_which_completion_interrupts() {
    let config = QueueConfig {
        event_idx: true,
        ..config(16)
    };
    let mut rig = Rig::new(Arc::new(memory()), config, Echo, Pool::new(0));
    // The flag means nothing then.
    rig.put(AVAIL, &1u16.to_le_bytes());
    // The first after the start always interrupts: what was agreed on before is not known.
    rig.set_used_event(1000);
    let mut expected = [1, 1, 1, 2, 2, 3].into_iter();
    for event in [1000, 1000, 1000, 3, 3, 5] {
        rig.set_used_event(event);
        offer_some(&mut rig, 1);
        rig.queue.drain();
        assert_eq!(rig.used().len(), 1);
        assert_eq!(Some(rig.interrupts()), expected.next(), "event {event}");
    }
    // In the middle of a batch.
    rig.set_used_event(8);
    offer_some(&mut rig, 5);
    rig.queue.drain();
    assert_eq!((rig.used().len(), rig.interrupts()), (5, 4));
    assert_eq!(rig.avail_event(), 11);
}

#[test]
fn kicks_are_suppressed_while_the_ring_is_being_drained() {
    let mut rig = rig(16, Echo);
    assert_eq!(rig.word(USED), 0);
    offer_some(&mut rig, 1);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.word(USED), 0);

    // Seen from within.
    let space = Arc::new(memory());
    let inside = Arc::clone(&space);
    let serve = double(move |call| {
        let flags: u16 = inside.read_obj(GuestAddress(USED)).unwrap();
        assert_eq!(u16::from_le(flags), 1, "NO_NOTIFY");
        call.done()
    });
    let mut rig = Rig::new(space, config(16), serve, Pool::new(0));
    offer_some(&mut rig, 3);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.counts().panics, 0);
    assert_eq!(rig.word(USED), 0);
}

#[test]
fn what_is_made_available_during_a_drain_is_served() {
    for event_idx in [false, true] {
        let space = Arc::new(memory());
        let inside = Arc::clone(&space);
        // While number n is served, number n + 1 comes, without a kick.
        let serve = double(move |call| {
            let next = u16::try_from(call.header.unique).unwrap() + 1;
            if next < 40 {
                let slot = u64::from(next % 4);
                inside
                    .write_obj(0u16, GuestAddress(AVAIL + 4 + 2 * slot))
                    .unwrap();
                let again = call.header.unique + 1;
                inside.write_obj(again, GuestAddress(REQUEST + 8)).unwrap();
                inside.write_obj(next + 1, GuestAddress(AVAIL + 2)).unwrap();
            }
            call.done()
        });
        let config = QueueConfig {
            event_idx,
            ..config(4)
        };
        let mut rig = Rig::new(space, config, serve, Pool::new(0));
        let sent = request(0, b"");
        rig.put(REQUEST, &sent);
        rig.offer_chain(0, &[readable(REQUEST, sent.len()), writable(REPLY, 16)]);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        assert_eq!(rig.counts().chains, 40);
        assert_eq!(rig.word(USED + 2), 40);
        if event_idx {
            assert_eq!(rig.avail_event(), 40);
        }
    }
}

#[test]
fn a_drain_ends_when_the_queue_is_stopped_and_later_ones_touch_nothing() {
    for event_idx in [false, true] {
        let config = QueueConfig {
            event_idx,
            ..config(16)
        };
        let mut rig = Rig::new(Arc::new(memory()), config, Echo, Pool::new(0));
        offer_some(&mut rig, 2);
        rig.queue.drain();
        let position = Position {
            next_avail: 2,
            next_used: 2,
        };
        assert_eq!(rig.queue.stop(), position);
        let before = rig.get(0, REPLY as usize);
        assert_eq!(rig.queue.drain(), Drained::Stopped);
        assert!(rig.get(0, REPLY as usize) == before);
        offer_some(&mut rig, 2);
        let before = rig.get(0, REPLY as usize);
        assert_eq!(rig.queue.drain(), Drained::Stopped);
        assert!(rig.get(0, REPLY as usize) == before);
        assert_eq!(rig.queue.stop(), position);

        // Another one goes on from there.
        let config = QueueConfig { position, ..config };
        let offered = rig.offered;
        let mut rig = Rig::new(Arc::clone(&rig.space), config, Echo, Pool::new(0));
        rig.put(AVAIL + 2, &offered.to_le_bytes());
        assert_eq!(rig.queue.drain(), Drained::Idle);
        assert_eq!(rig.used().len(), 2);
    }
}

#[test]
fn a_drain_that_a_driver_keeps_busy_ends_when_the_queue_is_stopped() {
    let space = Arc::new(memory());
    let inside = Arc::clone(&space);
    let handle = Handle::default();
    let queue = Arc::clone(&handle);
    let serve = double(move |call| {
        let idx: u16 = inside.read_obj(GuestAddress(AVAIL + 2)).unwrap();
        inside
            .write_obj(idx.wrapping_add(1), GuestAddress(AVAIL + 2))
            .unwrap();
        if idx == 100 {
            let queue = queue.get().unwrap().upgrade().unwrap();
            // It waits for the drain; this is within.
            std::thread::spawn(move || queue.stop());
        }
        call.done()
    });
    let mut rig = Rig::new(space, config(4), serve, Pool::new(0));
    handle.set(Arc::downgrade(&rig.queue)).unwrap();
    let sent = request(0, b"");
    rig.put(REQUEST, &sent);
    rig.offer_chain(0, &[readable(REQUEST, sent.len()), writable(REPLY, 16)]);
    assert_eq!(rig.queue.drain(), Drained::Stopped);
    let position = rig.queue.stop();
    assert_eq!(position.next_avail, position.next_used);
    assert_eq!(rig.word(USED + 2), position.next_used);
    assert_eq!(
        rig.interrupts.load(Ordering::SeqCst) as u64,
        rig.counts().interrupts
    );
}

#[test]
fn of_large_writes_as_many_are_told_of_as_are_left() {
    for (len, depth, expected) in [
        (0x2_0000, 1, 1),
        // One and one; two and one; two, one and one; four, two, one and one.
        (0x2_0000, 2, 2),
        (0x2_0000, 3, 2),
        (0x2_0000, 4, 3),
        (0x2_0000, 8, 4),
        // Two, two, two, one and one; and larger ones each.
        (0x4_8000, 8, 5),
        (0x8_0000, 8, 8),
    ] {
        let mut rig = rig(16, double(|call| call.done()));
        rig.put(BORDER, &request(1, b"written"));
        for n in 0..depth {
            let buffers = [readable(BORDER, len), writable(REPLY, 16)];
            rig.offer_chain(2 * n, &buffers);
        }
        rig.queue.drain();
        assert_eq!(rig.used().len(), usize::from(depth));
        assert_eq!(rig.interrupts(), expected, "{depth} of {len}");
    }
}

/// Offers `count` requests, one descriptor pair each.
fn offer_some(rig: &mut Rig, count: u16) {
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    for n in 0..count {
        let buffers = [readable(REQUEST, sent.len()), writable(REPLY, 64)];
        rig.offer_chain(2 * n, &buffers);
    }
}
