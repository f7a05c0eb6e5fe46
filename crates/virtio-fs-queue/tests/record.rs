//! A queue whose process may end at any time: what was in flight is served by the next one.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use common::*;
use fuse_fs::{Blocking, Outcome, Serve};
use virtio_fs_queue::{
    Drained, GuestSpace, InFlightRecord, Polling, Pool, Position, Queue, QueueConfig, Resources,
    StartError, Stats,
};
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::NewBitmap;
use vm_memory::{Bytes, GuestAddress, MmapRegion, VolatileMemory};

const SIZE: u16 = 16;
/// Bytes that are worth a look: the rings and what the descriptors name.
const RINGS: usize = 0x3_0000;

/// What outlives the process.
struct Moment {
    rings: Vec<u8>,
    record: Vec<u8>,
}

impl Moment {
    fn of<B: Bitmap>(space: &Memory<B>, record: &MmapRegion) -> Self {
        let mut moment = Self {
            rings: vec![0; RINGS],
            record: vec![0; record.size()],
        };
        space
            .read_slice(&mut moment.rings, GuestAddress(0))
            .unwrap();
        record
            .as_volatile_slice()
            .read_slice(&mut moment.record, 0)
            .unwrap();
        moment
    }

    fn restore(&self) -> (Arc<Memory>, Arc<MmapRegion>) {
        let space = memory();
        space.write_slice(&self.rings, GuestAddress(0)).unwrap();
        let record = region();
        let slice = record.as_volatile_slice();
        slice.write_slice(&self.record, 0).unwrap();
        (Arc::new(space), record)
    }
}

fn region() -> Arc<MmapRegion> {
    Arc::new(MmapRegion::new(0x1000).unwrap())
}

fn record(region: &Arc<MmapRegion>) -> InFlightRecord {
    InFlightRecord::new(Arc::clone(region), 0, SIZE).unwrap()
}

fn word<B: Bitmap>(space: &Memory<B>, address: u64) -> u16 {
    space.read_obj(GuestAddress(address)).unwrap()
}

/// Goes on where the rings are, at a place in the available ring that means nothing.
fn start<B: Bitmap + Send + Sync + 'static>(
    space: &Arc<Memory<B>>,
    record: InFlightRecord,
    filesystem: Arc<dyn Serve>,
    notify: impl Fn() + Send + Sync + 'static,
) -> Rig<Arc<Memory<B>>> {
    let position = Position {
        next_avail: 0xdead,
        next_used: word(space, USED + 2),
    };
    let config = QueueConfig {
        position,
        ..config(SIZE)
    };
    let stats: Arc<Stats> = Arc::default();
    let resources = Resources {
        memory: Arc::clone(space),
        filesystem,
        pool: Arc::new(Pool::new(1)),
        polling: Arc::new(Polling::never()),
        log: None,
        stats: Arc::clone(&stats),
        notify: Box::new(notify),
    };
    Rig {
        queue: Arc::new(Queue::start_recorded(config, resources, record).unwrap()),
        space: Arc::clone(space),
        config,
        stats,
        interrupts: Arc::default(),
        offered: word(space, AVAIL + 2),
        seen: 0,
    }
}

/// Offers requests 0, 1, ... `count` as chains of two descriptors.
fn offer<AS: GuestSpace>(rig: &mut Rig<AS>, count: u16) {
    for n in 0..count {
        let sent = request(n.into(), b"");
        let place = u64::from(n) * 0x100;
        rig.put(REQUEST + place, &sent);
        let chain = [
            readable(REQUEST + place, sent.len()),
            writable(REPLY + place, 64),
        ];
        rig.offer_chain(2 * n, &chain);
    }
}

/// All that was given back since the rings were set up.
fn heads_given_back<AS: GuestSpace>(rig: &mut Rig<AS>) -> Vec<u32> {
    let mut heads: Vec<_> = rig.used().into_iter().map(|(head, _)| head).collect();
    heads.sort_unstable();
    heads
}

/// Calls back when guest memory was written to.
#[derive(Debug, Clone, Default)]
struct Watched;

static AFTER_WRITE: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

impl Bitmap for Watched {
    fn mark_dirty(&self, _: usize, _: usize) {
        if let Some(look) = AFTER_WRITE.get() {
            look();
        }
    }

    fn dirty_at(&self, _: usize) -> bool {
        false
    }

    fn slice_at(&self, _: usize) -> Self {
        Self
    }
}

impl WithBitmapSlice<'_> for Watched {
    type S = Self;
}

impl BitmapSlice for Watched {}

impl NewBitmap for Watched {
    fn with_len(_: usize) -> Self {
        Self
    }
}

/// Whenever the process ends, each chain is given back once, by it or by the next one.
#[test]
fn each_chain_is_given_back_once() {
    let moments: Arc<Mutex<Vec<Moment>>> = Arc::default();
    let space: Arc<Memory<Watched>> = Arc::new(tracked_memory());
    let region = region();
    let look = {
        let (moments, space, region) = (
            Arc::clone(&moments),
            Arc::clone(&space),
            Arc::clone(&region),
        );
        move || {
            let moment = Moment::of(&space, &region);
            moments.lock().unwrap().push(moment);
        }
    };
    let notify = look.clone();
    let after_write = look.clone();
    // Every third waits until the others are done; nothing happens during a look.
    let gate = Arc::new(RwLock::new(()));
    let closed = Arc::clone(&gate);
    let filesystem = double(move |call| {
        if call.blocking == Blocking::Allowed {
            drop(closed.read());
        }
        look();
        if call.header.unique % 3 == 0 && call.blocking == Blocking::Forbidden {
            return Outcome::WouldBlock;
        }
        call.done()
    });
    let mut rig = start(&space, record(&region), Arc::new(filesystem), notify);
    offer(&mut rig, 8);
    assert!(AFTER_WRITE.set(Box::new(after_write)).is_ok());
    let others = gate.write().unwrap();
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used().len(), 5);
    rig.seen = 0;
    drop(others);
    assert_eq!(
        rig.queue.stop(),
        Position {
            next_avail: 8,
            next_used: 8
        }
    );
    let all: Vec<u32> = (0..8).map(|n| 2 * n).collect();
    assert_eq!(heads_given_back(&mut rig), all);

    let moments = std::mem::take(&mut *moments.lock().unwrap());
    assert!(moments.len() > 40, "{}", moments.len());
    for moment in moments {
        let (space, region) = moment.restore();
        let mut rig = start(&space, record(&region), Arc::new(Unpayloaded), || ());
        for n in 0..8u64 {
            let sent = request(n, b"");
            rig.put(REQUEST + n * 0x100, &sent);
        }
        rig.queue.drain();
        assert_eq!(rig.queue.stop().next_avail, rig.offered);
        assert_eq!(heads_given_back(&mut rig), all);
        assert_eq!(rig.counts().malformed, 0);
    }
}

/// Answers whatever it is.
struct Unpayloaded;

impl Serve for Unpayloaded {
    fn serve(
        &self,
        message: &[u8],
        source: &mut dyn fuse_fs::PayloadSource,
        sink: Option<&mut dyn fuse_fs::PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        double(|call| call.done()).serve(message, source, sink, reply, blocking)
    }

    fn reset(&self) {}
}

/// A record of chains that were taken and never given back.
fn abandoned(count: u16) -> (Arc<Memory>, Arc<MmapRegion>) {
    let (space, region) = (Arc::new(memory()), region());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let (words, word) = std::sync::mpsc::channel::<()>();
    let word = Mutex::new(word);
    let filesystem = double(move |call| {
        if call.blocking == Blocking::Forbidden {
            counted.fetch_add(1, Ordering::SeqCst);
            return Outcome::WouldWait;
        }
        let _ = word.lock().unwrap().recv();
        call.done()
    });
    let mut rig = start(&space, record(&region), Arc::new(filesystem), || ());
    offer(&mut rig, count);
    rig.queue.drain();
    assert_eq!(calls.load(Ordering::SeqCst), usize::from(count));
    let moment = Moment::of(&space, &region);
    drop(words);
    rig.queue.stop();
    moment.restore()
}

#[test]
fn what_was_in_flight_comes_first_and_in_its_order() {
    let (space, region) = abandoned(5);
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let order = Arc::clone(&seen);
    let filesystem = double(move |call| {
        order.lock().unwrap().push(call.header.unique);
        call.done()
    });
    let mut rig = start(&space, record(&region), Arc::new(filesystem), || ());
    offer_again(&rig, 5);
    let sent = request(99, b"");
    rig.put(REQUEST + 0x1000, &sent);
    let chain = [readable(REQUEST + 0x1000, sent.len()), writable(REPLY, 64)];
    rig.offer_chain(12, &chain);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4, 99]);
    assert_eq!(rig.queue.stop().next_avail, 6);
}

/// The requests that are in flight: a moment has the rings only.
fn offer_again(rig: &Rig, count: u64) {
    for n in 0..count {
        rig.put(REQUEST + n * 0x100, &request(n, b""));
    }
}

#[test]
fn a_queue_that_is_stopped_before_it_was_drained_gives_back_what_was_in_flight() {
    let (space, region) = abandoned(5);
    let mut rig = start(&space, record(&region), Arc::new(Unpayloaded), || ());
    offer_again(&rig, 5);
    let stopped = Position {
        next_avail: 5,
        next_used: 5,
    };
    for _ in 0..2 {
        assert_eq!(rig.queue.stop(), stopped);
    }
    assert_eq!(heads_given_back(&mut rig), [0, 2, 4, 6, 8]);
}

#[test]
fn a_record_that_makes_no_sense_breaks_no_more_than_its_ring() {
    let (space, region) = abandoned(5);
    // All descriptors are in flight, and so far five chains were available.
    for entry in 0..u64::from(SIZE) {
        let at = 16 + 16 * entry as usize;
        region.as_volatile_slice().write_obj(1u8, at).unwrap();
    }
    let mut rig = start(&space, record(&region), Arc::new(Unpayloaded), || ());
    offer_again(&rig, 5);
    assert_eq!(rig.queue.drain(), Drained::Broken);
    assert_eq!(rig.used().len(), usize::from(SIZE));
    assert_eq!(rig.queue.drain(), Drained::Broken);
}

#[test]
fn a_record_has_to_have_room_for_the_ring() {
    let resources = Resources {
        memory: Arc::new(memory()),
        filesystem: Arc::new(Unpayloaded),
        pool: Arc::new(Pool::new(0)),
        polling: Arc::new(Polling::never()),
        log: None,
        stats: Arc::default(),
        notify: Box::new(|| ()),
    };
    let started = Queue::start_recorded(config(2 * SIZE), resources, record(&region()));
    let error = StartError::Record { size: 32, room: 16 };
    assert_eq!(started.map(|_| ()).unwrap_err(), error);
}
