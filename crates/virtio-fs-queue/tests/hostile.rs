//! Filesystems that panic, and memory full of noise.

mod common;

use std::sync::Arc;
use std::sync::Once;

use common::*;
use fuse_fs::{Blocking, MemFs, Outcome, Serve, Session};
use proptest::prelude::*;
use virtio_fs_queue::{Drained, Pool, Position, QueueConfig};

const EIO: i32 = 5;

/// Panics on purpose stay out of the output of the tests.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("on purpose") {
                before(info);
            }
        }));
    });
}

/// Panics for request 1 at once, for request 2 where it may wait; asks to wait for ever for 3.
fn panicking() -> impl Serve {
    silence();
    double(|mut call: Call<'_>| {
        let sink = call.sink.take();
        match (call.header.unique, call.blocking) {
            (1, _) | (2, Blocking::Allowed) => {
                sink.unwrap().write(b"half of a reply");
                panic!("on purpose");
            }
            (2, Blocking::Forbidden) | (3, _) => Outcome::WouldBlock,
            _ => call.done(),
        }
    })
}

#[test]
fn who_panics_fails_with_eio_and_the_queue_goes_on() {
    for threads in [0, 2] {
        let space = Arc::new(memory());
        let mut rig = Rig::new(space, config(8), panicking(), Pool::new(threads));
        for unique in [1, 2, 3, 1, 2, 3] {
            let sent = request(unique, b"");
            rig.put(REQUEST, &sent);
            rig.offer_chain(0, &[readable(REQUEST, sent.len()), writable(REPLY, 64)]);
            assert_eq!(rig.queue.drain(), Drained::Idle);
            while rig.word(USED + 2) != rig.offered {
                std::thread::yield_now();
            }
            assert_eq!(rig.used(), [(0, 16)]);
            let header = rig.out_header(REPLY);
            assert_eq!((header.len, header.error), (16, -EIO));
            assert_eq!(header.unique, unique);
        }
        assert_eq!(rig.counts().panics, 4);
        // Without room for an answer.
        let sent = request(1, b"");
        rig.put(REQUEST, &sent);
        rig.offer_chain(0, &[readable(REQUEST, sent.len()), writable(REPLY, 15)]);
        assert_eq!(rig.queue.drain(), Drained::Idle);
        assert_eq!(rig.used(), [(0, 0)]);
        assert_eq!(rig.ask(0, &request(9, b""), 16).len(), 16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    /// Everything the driver can write is noise, anew for each of a few drains.
    #[test]
    fn noise_neither_panics_nor_hangs(
        seed in any::<u64>(),
        small in any::<bool>(),
        event_idx in any::<bool>(),
        next_avail in any::<u16>(),
        jumps in prop::collection::vec(0..10u16, 1..6),
    ) {
        let config = QueueConfig {
            event_idx,
            position: Position { next_avail, next_used: next_avail },
            ..config(16)
        };
        let session = Session::new(MemFs::new());
        let mut rig = Rig::new(Arc::new(memory()), config, session, Pool::new(1));
        let mut noise = Noise(seed | 1);
        for jump in jumps {
            for index in 0..16 {
                rig.describe(DESCRIPTORS, index, noise.descriptor(small));
                rig.describe(TABLE, index, noise.descriptor(small));
            }
            let bytes: Vec<u8> = (0..0x400).map(|_| noise.below(12) as u8).collect();
            rig.put(REQUEST, &bytes);
            let head = noise.below(if small { 16 } else { 20 }) as u16;
            for _ in 0..jump {
                rig.offer(head);
            }
            rig.queue.drain();
        }
        let position = rig.queue.stop();
        let counts = rig.counts();
        prop_assert_eq!(counts.panics, 0);
        let taken = position.next_avail.wrapping_sub(next_avail);
        prop_assert_eq!(u64::from(taken), counts.chains);
        if counts.ring_errors == 0 {
            prop_assert_eq!(position.next_used, position.next_avail);
        }
    }
}

struct Noise(u64);

impl Noise {
    /// A number below `limit` (xorshift).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// A descriptor that is somewhat likely to be right, or that is anything at all.
    fn descriptor(&mut self, likely: bool) -> Descriptor {
        if !likely {
            return Descriptor {
                address: self.below(END + 100) * (1 + self.below(3)),
                len: self.below(1 << 33) as u32,
                flags: self.below(1 << 16) as u16,
                next: self.below(20) as u16,
            };
        }
        let kinds = [0, NEXT, NEXT, NEXT, NEXT | WRITE, WRITE, WRITE, INDIRECT];
        let flags = kinds[self.below(8) as usize];
        let (address, len) = if flags & INDIRECT != 0 {
            (TABLE, 16 * self.below(17))
        } else {
            // Among others the rings themselves.
            let places = [REQUEST, REPLY, BORDER - 20, AVAIL + 64, USED + 64];
            (
                places[self.below(5) as usize] + self.below(99),
                self.below(200),
            )
        };
        Descriptor {
            address,
            len: len as u32,
            flags,
            next: self.below(16) as u16,
        }
    }
}
