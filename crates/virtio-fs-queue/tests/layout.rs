//! However a request is laid out in memory, it is the same request.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use common::*;
use fuse_fs::{Blocking, IoFlags, Outcome};
use proptest::prelude::*;
use virtio_fs_queue::{Drained, Pool, WriteLog};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion};

/// Where buffers go: on both sides of the border of the two regions.
const BUFFERS: u64 = BORDER - 0x4000;

/// Cuts `len` bytes at `cuts`, puts the pieces `gap` apart, and writes `data` there.
fn scatter(rig: &Rig, start: u64, gap: u64, data: &[u8], cuts: &[usize]) -> Vec<(u64, usize)> {
    let mut pieces = Vec::new();
    let (mut at, mut from) = (start, 0);
    for &cut in cuts.iter().chain([&data.len()]) {
        let piece = &data[from..cut];
        rig.put(at, piece);
        pieces.push((at, piece.len()));
        at += piece.len() as u64 + gap;
        from = cut;
    }
    pieces
}

/// Sends `sent`, cut up, with `room` bytes for the reply, cut up, and checks the answer.
fn assert_same(rig: &mut Rig, sent: &[u8], request_cuts: &[usize], room: usize, cuts: &[usize]) {
    let request_pieces = scatter(rig, BUFFERS, 3, sent, request_cuts);
    let reply_start = BORDER - 5;
    let untouched = vec![0xee; 0x1000];
    rig.put(reply_start, &untouched);
    let reply_pieces = scatter(rig, reply_start, 3, &vec![0xee; room], cuts);
    let mut buffers = Vec::new();
    buffers.extend(request_pieces.iter().map(|&(at, len)| readable(at, len)));
    buffers.extend(reply_pieces.iter().map(|&(at, len)| writable(at, len)));
    rig.offer_chain(0, &buffers);
    assert_eq!(rig.queue.drain(), Drained::Idle);

    let mut expected = echo_reply(sent, room);
    assert_eq!(rig.used(), [(0, expected.len() as u32)]);
    expected.resize(room, 0xee);
    let mut reply = Vec::new();
    for (at, len) in reply_pieces {
        reply.extend(rig.get(at, len));
        assert_eq!(rig.get(at + len as u64, 3), [0xee; 3]);
    }
    assert!(reply == expected, "{request_cuts:?} {cuts:?}");
}

#[test]
fn requests_and_replies_may_be_cut_anywhere() {
    let mut rig = rig(64, Echo);
    let sent = request(11, b"0123456789abcdef");
    let room = 16 + sent.len();
    for cut in 0..=sent.len() {
        assert_same(&mut rig, &sent, &[cut], room, &[]);
        assert_same(&mut rig, &sent, &[cut, cut], room, &[cut]);
    }
    for cut in 0..=room {
        assert_same(&mut rig, &sent, &[], room, &[cut]);
    }
    let everywhere: Vec<usize> = (1..50).collect();
    assert_same(&mut rig, &sent, &everywhere, room, &[]);
    assert_same(&mut rig, &sent, &[], room, &everywhere);
}

/// How a list of buffers becomes a chain.
#[derive(Debug, Clone)]
struct Layout {
    sent: Vec<u8>,
    request_cuts: Vec<usize>,
    room: usize,
    reply_cuts: Vec<usize>,
    /// How many descriptors come before an indirect table that has the others.
    direct: Option<usize>,
    shuffle: Vec<u16>,
    base: u64,
}

fn layout() -> impl Strategy<Value = Layout> {
    let cuts = || prop::collection::vec(0..=300usize, 0..12);
    let order = Just((0u16..32).collect::<Vec<_>>()).prop_shuffle();
    (
        prop::collection::vec(any::<u8>(), 0..260),
        cuts(),
        0..300usize,
        cuts(),
        prop::option::of(0..30usize),
        order,
        BORDER - 700..BORDER + 100,
    )
        .prop_map(
            |(body, request_cuts, room, reply_cuts, direct, shuffle, base)| {
                let sent = request(13, &body);
                let sorted = |mut cuts: Vec<usize>, end: usize| {
                    cuts.retain(|cut| *cut <= end);
                    cuts.sort_unstable();
                    cuts
                };
                Layout {
                    request_cuts: sorted(request_cuts, sent.len()),
                    reply_cuts: sorted(reply_cuts, room),
                    sent,
                    room,
                    direct,
                    shuffle,
                    base,
                }
            },
        )
}

proptest! {
    #[test]
    fn any_layout_gives_what_one_piece_gives(layout in layout()) {
        let mut rig = rig(32, Echo);
        let request = scatter(&rig, layout.base, 0, &layout.sent, &layout.request_cuts);
        let reply_at = layout.base + 0x1000 + layout.sent.len() as u64 % 7;
        let fill = vec![0xee; layout.room];
        let reply = scatter(&rig, reply_at, 1, &fill, &layout.reply_cuts);
        let mut buffers: Vec<_> = request.iter().map(|&(at, len)| readable(at, len)).collect();
        buffers.extend(reply.iter().map(|&(at, len)| writable(at, len)));

        // Descriptors in any order of the table, some of them in an indirect one.
        let direct = layout.direct.map_or(buffers.len(), |direct| direct.min(buffers.len() - 1));
        let (before, within) = buffers.split_at(direct);
        let mut chain = before.to_vec();
        if !within.is_empty() {
            rig.link(TABLE, 0, within);
            chain.push(indirect(TABLE, 16 * within.len()));
        }
        for (n, descriptor) in chain.iter().enumerate() {
            let mut descriptor = *descriptor;
            if n + 1 < chain.len() {
                descriptor.flags |= NEXT;
                descriptor.next = layout.shuffle[n + 1];
            }
            rig.describe(DESCRIPTORS, layout.shuffle[n], descriptor);
        }
        rig.offer(layout.shuffle[0]);
        prop_assert_eq!(rig.queue.drain(), Drained::Idle);

        let mut expected = echo_reply(&layout.sent, layout.room);
        let used = (u32::from(layout.shuffle[0]), expected.len() as u32);
        prop_assert_eq!(rig.used(), [used]);
        expected.resize(layout.room, 0xee);
        let got: Vec<u8> = reply.iter().flat_map(|&(at, len)| rig.get(at, len)).collect();
        prop_assert!(got == expected);
        prop_assert_eq!(rig.counts().malformed, 0);
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn payload_goes_between_files_and_both_regions() {
    const LEN: usize = 9000;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern(LEN)).unwrap();
    let from = file.try_clone().unwrap();
    let out = tempfile::tempfile().unwrap();
    let to = out.try_clone().unwrap();
    let serve = double(move |call: Call<'_>| match call.header.unique {
        // READ: in two transfers, the first of which ends within a segment.
        1 => {
            let sink = call.sink.unwrap();
            let none = IoFlags::empty();
            let first = sink.write_from_file(from.as_fd(), 0, 5001, none).unwrap();
            assert_eq!((first, sink.remaining()), (5001, LEN - 5001));
            let rest = sink.remaining() + 1;
            let second = sink
                .write_from_file(from.as_fd(), 5001, rest, none)
                .unwrap();
            assert_eq!((second, sink.remaining()), (LEN - 5001, 0));
            assert_eq!(sink.write(b"x"), 0);
            assert_eq!(sink.write_from_file(from.as_fd(), 0, 1, none).unwrap(), 0);
            let call = Call { sink: None, ..call };
            call.done_with(LEN)
        }
        // WRITE.
        _ => {
            let source = &mut *call.source;
            assert_eq!(source.remaining(), LEN);
            let none = IoFlags::empty();
            // A negative offset as the system sees it.
            assert!(source.read_to_file(to.as_fd(), u64::MAX, 10, none).is_err());
            assert_eq!(source.read_to_file(to.as_fd(), 10, 777, none).unwrap(), 777);
            let mut middle = [0; 100];
            assert_eq!(source.read(&mut middle), 100);
            to.write_all_at(&middle, 787).unwrap();
            let rest = source
                .read_to_file(to.as_fd(), 887, usize::MAX, none)
                .unwrap();
            assert_eq!((rest, source.remaining()), (LEN - 877, 0));
            call.done()
        }
    });
    let mut rig = rig(64, serve);
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    let mut buffers = vec![
        readable(REQUEST, 40),
        writable(REPLY, 10),
        writable(REPLY + 10, 6),
    ];
    // One across the border, one after the other, one backwards.
    buffers.push(writable(BORDER - 3000, 4096));
    buffers.push(writable(BORDER + 0x8000, 900));
    buffers.push(writable(BORDER - 0x8000, 4004));
    rig.offer_chain(0, &buffers);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(0, 16 + LEN as u32)]);
    assert_eq!(rig.out_header(REPLY).len, 16 + LEN as u32);
    let mut got = rig.get(BORDER - 3000, 4096);
    got.extend(rig.get(BORDER + 0x8000, 900));
    got.extend(rig.get(BORDER - 0x8000, 4004));
    assert!(got == pattern(LEN));

    // The same memory, as the data of a WRITE (opcode 16, 40 bytes of arguments).
    let mut sent = request(2, &[0; 40]);
    sent[4] = 16;
    sent[5] = 0;
    rig.put(REQUEST, &sent);
    for buffer in &mut buffers {
        buffer.flags = 0;
    }
    let chain = [
        &[readable(REQUEST, 80)],
        &buffers[3..],
        &[writable(REPLY, 16)],
    ]
    .concat();
    rig.offer_chain(0, &chain);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.counts().panics, 0);
    assert_eq!(rig.used(), [(0, 16)]);
    let mut written = Vec::new();
    let mut whole: &File = &out;
    std::io::Seek::rewind(&mut whole).unwrap();
    whole.read_to_end(&mut written).unwrap();
    assert!(written[10..] == pattern(LEN));
}

/// The pages that were written to.
#[derive(Default)]
struct Pages(Mutex<BTreeSet<u64>>);

impl WriteLog for Pages {
    fn wrote(&self, address: GuestAddress, len: usize) {
        let last = address.0 + len as u64 - 1;
        let pages = (address.0 / 4096..=last / 4096).map(|page| page * 4096);
        self.0.lock().unwrap().extend(pages);
    }
}

#[test]
fn what_the_device_writes_is_noted() {
    for by_pool in [false, true] {
        assert_noted(by_pool);
    }
}

fn assert_noted(by_pool: bool) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern(8192)).unwrap();
    let serve = double(move |call: Call<'_>| {
        if by_pool && call.blocking == Blocking::Forbidden {
            return Outcome::WouldBlock;
        }
        let sink = call.sink.unwrap();
        let file = file.as_fd();
        let len = sink
            .write_from_file(file, 0, 5000, IoFlags::empty())
            .unwrap();
        let call = Call { sink: None, ..call };
        call.done_with(len)
    });
    let space = Arc::new(tracked_memory::<AtomicBitmap>());
    let log: Arc<Pages> = Arc::default();
    let theirs = Arc::clone(&log);
    let mut rig = Rig::with(
        Arc::clone(&space),
        config(8),
        serve,
        Pool::new(1),
        |resources| {
            resources.log = Some(theirs);
        },
    );
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    // The reply begins in a page of its own and its data lies on both sides of the border.
    let data = BORDER - 100;
    rig.offer_chain(
        0,
        &[
            readable(REQUEST, 40),
            writable(REPLY, 16),
            writable(data, 100 + 3 * 4096),
        ],
    );
    for region in space.iter() {
        let map: &MmapRegion<AtomicBitmap> = region;
        map.bitmap().reset();
    }
    assert_eq!(rig.queue.drain(), Drained::Idle);
    rig.queue.stop();
    let mut dirty = Vec::new();
    for region in space.iter() {
        for offset in (0..region.len()).step_by(4096) {
            if region.bitmap().dirty_at(offset as usize) {
                dirty.push(region.start_addr().0 + offset);
            }
        }
    }
    // 100 bytes before the border, 4900 behind it: two pages. The others have room only.
    let expected = [USED, REPLY, BORDER - 4096, BORDER, BORDER + 4096];
    assert_eq!(dirty, expected);
    let logged: Vec<_> = log.0.lock().unwrap().iter().copied().collect();
    assert_eq!(logged, expected);
    assert_eq!(rig.used(), [(0, 5016)]);
    let mut page = [0; 16];
    space.read_slice(&mut page, GuestAddress(REPLY)).unwrap();
    assert_ne!(page, [0; 16]);
}
