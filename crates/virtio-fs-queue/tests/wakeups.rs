//! A driver and a device on threads of their own: no kick and no interrupt may be lost.

mod common;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::channel;
use std::thread;

use common::*;
use fuse_fs::{Blocking, Outcome};
use virtio_fs_queue::{Drained, PollLimit, Polling, Pool, QueueConfig};

const REQUESTS: u32 = 4_000;
const SIZE: u16 = 8;

/// As `vring_need_event` of the specification.
fn passes(event: u16, now: u16, before: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

/// Sends requests, up to `window` of them at once, and waits only for interrupts; the device waits
/// only for kicks. If one is lost, this does not end.
fn play(event_idx: bool, window: u16, every_tenth_waits: bool, polling: PollLimit) {
    let config = QueueConfig {
        event_idx,
        ..config(SIZE)
    };
    let serve = double(move |call: Call<'_>| {
        if every_tenth_waits && call.header.unique == 0 && call.blocking == Blocking::Forbidden {
            return Outcome::WouldBlock;
        }
        call.done()
    });
    let mut rig = Rig::with(
        Arc::new(memory()),
        config,
        serve,
        Pool::new(2),
        |resources| resources.polling = Arc::new(Polling::new(polling)),
    );
    let (kick, kicked) = channel();
    let device = {
        let queue = Arc::clone(&rig.queue);
        thread::spawn(move || {
            for () in kicked {
                assert_eq!(queue.drain(), Drained::Idle);
            }
        })
    };
    rig.put(REQUEST, &request(0, b""));
    rig.put(REQUEST + 0x100, &request(1, b""));
    let mut free: Vec<u16> = (0..window).map(|n| 2 * n).collect();
    let (mut sent, mut done) = (0, 0);
    while done < REQUESTS {
        while sent < REQUESTS
            && let Some(first) = free.pop()
        {
            let at = REQUEST + if sent % 10 == 0 { 0 } else { 0x100 };
            rig.link(DESCRIPTORS, first, &[readable(at, 40), writable(REPLY, 16)]);
            let before = rig.offered;
            fence(Ordering::Release);
            rig.offer(first);
            fence(Ordering::SeqCst);
            let wanted = if event_idx {
                passes(rig.avail_event(), rig.offered, before)
            } else {
                rig.word(USED) & 1 == 0
            };
            if wanted {
                kick.send(()).unwrap();
            }
            sent += 1;
        }
        // Ask for an interrupt, then look whether it came too late for that.
        let interrupts = rig.interrupts();
        rig.set_used_event(rig.seen);
        rig.put(AVAIL, &0u16.to_le_bytes());
        fence(Ordering::SeqCst);
        let mut used = rig.used();
        if used.is_empty() {
            while rig.interrupts() == interrupts {
                thread::yield_now();
            }
            used = rig.used();
        }
        rig.put(AVAIL, &1u16.to_le_bytes());
        for (head, len) in used {
            assert_eq!(len, 16);
            free.push(u16::try_from(head).unwrap());
            done += 1;
        }
    }
    drop(kick);
    device.join().unwrap();
    let position = rig.queue.stop();
    assert_eq!(u32::from(position.next_used), REQUESTS);
    assert_eq!(rig.counts().ring_errors + rig.counts().malformed, 0);
}

#[test]
fn nothing_is_lost_with_event_idx() {
    play(true, 1, false, PollLimit::NEVER);
    play(true, SIZE / 2, false, PollLimit::NEVER);
}

#[test]
fn nothing_is_lost_with_flags() {
    play(false, 1, false, PollLimit::NEVER);
    play(false, SIZE / 2, false, PollLimit::NEVER);
}

#[test]
fn nothing_is_lost_while_the_pool_completes_too() {
    play(true, SIZE / 2, true, PollLimit::NEVER);
    play(false, SIZE / 2, true, PollLimit::NEVER);
}

#[test]
fn nothing_is_lost_while_the_queue_polls() {
    for micros in [1, 50] {
        let limit = PollLimit::from_micros(micros).unwrap();
        for event_idx in [true, false] {
            play(event_idx, 1, false, limit);
            play(event_idx, SIZE / 2, false, limit);
            play(event_idx, SIZE / 2, true, limit);
        }
    }
}
