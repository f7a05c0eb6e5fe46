//! Chains and rings that break the rules. The next good request is served all the same.

mod common;

use std::sync::Arc;

use common::*;
use fuse_fs::{MemFs, Session};
use fuse_wire::abi::{ForgetIn, GetattrIn, InHeader, InitIn, OutHeader};
use fuse_wire::{Errno, Extensions, NodeId, Operation, Request};
use virtio_fs_queue::{Drained, Pool, QueueConfig, RingError, StartError};
use vm_memory::GuestAddress;
use zerocopy::IntoBytes as _;

const SIZE: u16 = 16;

/// Makes one broken chain available, which comes back with length 0 and is counted; then a good
/// one.
fn assert_refused(rig: &mut Rig, what: &str, head: u16) {
    let before = rig.counts();
    rig.put(REPLY, &[0xee; 64]);
    rig.offer(head);
    assert_eq!(rig.queue.drain(), Drained::Idle, "{what}");
    assert_eq!(rig.used(), [(u32::from(head), 0)], "{what}");
    assert_eq!(rig.get(REPLY, 64), [0xee; 64], "{what}");
    let after = rig.counts();
    assert_eq!(after.malformed, before.malformed + 1, "{what}");
    assert_eq!((after.ring_errors, after.panics), (0, 0), "{what}");
    rig.assert_alive();
}

#[test]
fn chains_that_break_a_rule_come_back_empty() {
    let mut rig = rig(SIZE, Echo);
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    let good = [readable(REQUEST, sent.len()), writable(REPLY, 64)];
    let outside = [
        ("behind the end", END, 1),
        ("across the end", END - 8, 16),
        ("at the end of addresses", u64::MAX, 1),
        ("over the end of addresses", u64::MAX, 2),
        ("over the end, far", u64::MAX - 7, u32::MAX),
        ("longer than memory", 0, u32::MAX),
    ];
    for (what, address, len) in outside {
        for flags in [0, WRITE] {
            let bad = Descriptor {
                address,
                len,
                flags,
                next: 0,
            };
            rig.link(DESCRIPTORS, 0, &[good[0], bad]);
            assert_refused(&mut rig, what, 0);
            rig.link(TABLE, 0, &[good[0], bad]);
            rig.link(DESCRIPTORS, 3, &[indirect(TABLE, 32)]);
            assert_refused(&mut rig, what, 3);
        }
    }

    rig.link(DESCRIPTORS, 0, &[good[0], good[1], good[0]]);
    assert_refused(&mut rig, "readable after writable", 0);
    rig.link(DESCRIPTORS, 0, &[writable(REPLY, 0), good[0], good[1]]);
    assert_refused(&mut rig, "readable after an empty writable", 0);

    for next in [SIZE, SIZE + 1, u16::MAX] {
        let flags = NEXT;
        rig.describe(
            DESCRIPTORS,
            0,
            Descriptor {
                flags,
                next,
                ..good[0]
            },
        );
        assert_refused(&mut rig, "next out of range", 0);
        rig.describe(
            TABLE,
            0,
            Descriptor {
                flags,
                next,
                ..good[0]
            },
        );
        rig.link(DESCRIPTORS, 1, &[indirect(TABLE, 16)]);
        assert_refused(&mut rig, "next out of range of the table", 1);
    }
}

/// As with memory of a DAX window, which is the guest's, and not known here: whoever uses that for the
/// data of a request is to get an error rather than an answer that nobody wrote.
#[test]
fn requests_with_data_outside_are_answered() {
    let mut rig = rig(SIZE, Echo);
    let sent = request(1, b"");
    let good = [readable(REQUEST, sent.len()), writable(REPLY, 16)];
    let outside = [readable(END, 4096), writable(END, 4096)];
    let data = BORDER;
    let inside = [readable(data, 8), writable(data, 8)];
    for chain in [
        vec![good[0], outside[0], good[1]],
        vec![good[0], outside[0], inside[0], good[1]],
        vec![good[0], good[1], outside[1]],
        vec![good[0], good[1], outside[1], inside[1]],
        vec![good[0], outside[0], good[1], outside[1], inside[1]],
    ] {
        rig.put(REQUEST, &sent);
        rig.put(data, &[0xee; 8]);
        let before = rig.counts();
        rig.link(DESCRIPTORS, 0, &chain);
        rig.offer(0);
        assert_eq!(rig.queue.drain(), Drained::Idle, "{chain:?}");
        assert_eq!(rig.used(), [(0, 16)], "{chain:?}");
        let reply = OutHeader::failure(1, Errno::EFAULT);
        assert_eq!(rig.get(REPLY, 16), reply.as_bytes(), "{chain:?}");
        assert_eq!(rig.get(data, 8), [0xee; 8], "{chain:?}");
        assert_eq!(rig.counts().malformed, before.malformed + 1, "{chain:?}");
        rig.assert_alive();
    }
    // Not where the head of the request, or the room for the answer's, is outside.
    for chain in [
        vec![outside[0], good[0], good[1]],
        vec![good[0], outside[1], good[1]],
    ] {
        rig.put(REQUEST, &sent);
        rig.link(DESCRIPTORS, 0, &chain);
        assert_refused(&mut rig, "no head", 0);
    }
}

#[test]
fn loops_end() {
    let mut rig = rig(SIZE, Echo);
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    for len in [0, 1, sent.len()] {
        let around = |next| Descriptor {
            flags: NEXT,
            next,
            ..readable(REQUEST, len)
        };
        for table in [DESCRIPTORS, TABLE] {
            let head = if table == TABLE { 5 } else { 0 };
            rig.link(DESCRIPTORS, 5, &[indirect(TABLE, 48)]);
            rig.describe(table, 0, around(0));
            assert_refused(&mut rig, "to itself", head);
            rig.link(DESCRIPTORS, 5, &[indirect(TABLE, 48)]);
            rig.describe(table, 0, around(1));
            rig.describe(table, 1, around(2));
            rig.describe(table, 2, around(1));
            assert_refused(&mut rig, "to one before", head);
        }
    }
    // As a loop of buffers that are far too long in total.
    let huge = Descriptor {
        flags: NEXT,
        next: 0,
        ..readable(0, usize::try_from(END).unwrap())
    };
    rig.describe(DESCRIPTORS, 0, huge);
    assert_refused(&mut rig, "a loop of 2 MiB", 0);
}

#[test]
fn indirect_tables_that_break_a_rule_are_refused() {
    let mut rig = rig(SIZE, Echo);
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    let good = [readable(REQUEST, sent.len()), writable(REPLY, 64)];
    rig.link(TABLE, 0, &good);
    for len in [0, 1, 15, 17, 31, 33, 16 * 1025, 1 << 20] {
        rig.link(DESCRIPTORS, 0, &[indirect(TABLE, len)]);
        assert_refused(&mut rig, &format!("a table of {len} bytes"), 0);
    }
    for address in [END, END - 16, BORDER - 16, u64::MAX, u64::MAX - 31] {
        rig.link(DESCRIPTORS, 0, &[indirect(address, 32)]);
        assert_refused(
            &mut rig,
            "a table that is not in memory, or in two regions",
            0,
        );
    }
    rig.link(DESCRIPTORS, 0, &[indirect(TABLE, 32), good[1]]);
    assert_refused(&mut rig, "a table that is followed", 0);

    rig.link(TABLE + 64, 0, &[indirect(TABLE, 32)]);
    rig.link(DESCRIPTORS, 0, &[indirect(TABLE + 64, 16)]);
    assert_refused(&mut rig, "a table in a table", 0);
    rig.link(TABLE + 64, 0, &[indirect(TABLE + 64, 16)]);
    rig.link(DESCRIPTORS, 0, &[indirect(TABLE + 64, 16)]);
    assert_refused(&mut rig, "a table in itself", 0);

    // Not broken: a descriptor before the table, a table that may be written to, one that is not
    // aligned, and one of the greatest size.
    for (first, table) in [
        (&good[..1], TABLE + 64),
        (&[], TABLE),
        (&[], TABLE + 3),
        (&[], TABLE + 15),
    ] {
        let rest = &good[first.len()..];
        rig.link(table, 0, rest);
        let mut chain = first.to_vec();
        let mut last = indirect(table, 16 * rest.len());
        last.flags |= WRITE;
        chain.push(last);
        rig.offer_chain(0, &chain);
        rig.queue.drain();
        assert_eq!(rig.used(), [(0, 56)]);
    }
    let mut longest = vec![readable(REQUEST, 0); 1022];
    longest.extend(good);
    rig.link(TABLE, 0, &longest);
    rig.offer_chain(0, &[indirect(TABLE, 16 * 1024)]);
    rig.queue.drain();
    assert_eq!(rig.used(), [(0, 56)]);
}

#[test]
fn indirect_tables_are_refused_where_not_negotiated() {
    let config = QueueConfig {
        indirect: false,
        ..config(SIZE)
    };
    let mut rig = Rig::new(Arc::new(memory()), config, Echo, Pool::new(0));
    rig.link(TABLE, 0, &[readable(REQUEST, 40), writable(REPLY, 64)]);
    rig.link(DESCRIPTORS, 0, &[indirect(TABLE, 32)]);
    assert_refused(&mut rig, "not negotiated", 0);
}

#[test]
fn empty_descriptors_are_passed_over_wherever_they_point() {
    let mut rig = rig(SIZE, Echo);
    let sent = request(1, b"abc");
    rig.put(REQUEST, &sent);
    let nowhere = [readable(u64::MAX, 0), writable(END, 0)];
    let chain = [
        nowhere[0],
        readable(REQUEST, sent.len()),
        nowhere[0],
        nowhere[1],
        writable(REPLY, 64),
        nowhere[1],
    ];
    rig.offer_chain(0, &chain);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    let expected = echo_reply(&sent, 64);
    assert_eq!(rig.used(), [(0, expected.len() as u32)]);
    assert_eq!(rig.get(REPLY, expected.len()), expected);
    // Nothing but those.
    rig.offer_chain(0, &nowhere);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(0, 0)]);
    rig.assert_alive();
}

/// A request to a session, encoded.
fn encode(nodeid: NodeId, operation: Operation<'_>) -> Vec<u8> {
    let header = InHeader {
        unique: 5,
        nodeid,
        ..Default::default()
    };
    let request = Request {
        header,
        operation,
        extensions: Extensions::default(),
    };
    let mut message = vec![0; 4096];
    let len = request.encode(0, Default::default(), &mut message).unwrap();
    message.truncate(len);
    message
}

fn getattr() -> Vec<u8> {
    encode(NodeId::ROOT, Operation::GetAttr(GetattrIn::default()))
}

/// A queue in front of a session that has begun.
fn begun() -> Rig {
    let mut rig = rig(SIZE, Session::new(MemFs::new()));
    let init = InitIn {
        major: 7,
        minor: 31,
        ..Default::default()
    };
    // INIT is left to the pool.
    rig.put(REQUEST, &encode(NodeId(0), Operation::Init(init)));
    let len = encode(NodeId(0), Operation::Init(init)).len();
    rig.offer_chain(0, &[readable(REQUEST, len), writable(REPLY, 80)]);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    while rig.word(USED + 2) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(rig.used(), [(0, 80)]);
    rig
}

/// A session answers a GETATTR in full.
fn assert_serves(rig: &mut Rig) {
    let reply = rig.ask(0, &getattr(), 200);
    assert_eq!(reply.len(), 16 + 104);
    assert_eq!(rig.out_header(REPLY).len, 120);
    assert_eq!(rig.out_header(REPLY).error, 0);
}

#[test]
fn truncated_headers_are_answered_where_they_can_be() {
    let mut rig = begun();
    let whole = getattr();
    for len in 0..whole.len() {
        let reply = rig.ask(0, &whole[..len], 64);
        if len < 16 {
            assert_eq!(reply, [], "{len}");
        } else {
            let header = rig.out_header(REPLY);
            assert_eq!((header.len, header.unique), (16, 5), "{len}");
            assert!((-511..0).contains(&header.error), "{len}");
            assert_eq!(reply.len(), 16, "{len}");
        }
        assert_eq!(rig.get(REPLY + 16, 48), [0xee; 48], "{len}");
        assert_serves(&mut rig);
    }
}

#[test]
fn a_length_that_lies_is_refused() {
    let mut rig = begun();
    let whole = getattr();
    let len = u32::try_from(whole.len()).unwrap();
    for lie in [0, 1, 39, 40, len - 1, len + 1, u32::MAX] {
        let mut message = whole.clone();
        message[..4].copy_from_slice(&lie.to_ne_bytes());
        assert_eq!(rig.ask(0, &message, 200).len(), 16, "{lie}");
        assert!(rig.out_header(REPLY).error < 0);
        assert_serves(&mut rig);
    }
}

#[test]
fn a_reply_never_exceeds_its_room() {
    let mut rig = begun();
    for room in 0..=130 {
        let reply = rig.ask(0, &getattr(), room);
        let expected = match room {
            0..16 => 0,
            16..120 => 16,
            _ => 120,
        };
        assert_eq!(reply.len(), expected, "{room}");
        if expected > 0 {
            assert_eq!(rig.out_header(REPLY).len as usize, expected);
            assert_eq!(rig.out_header(REPLY).error < 0, expected == 16);
        }
    }
    // No writable descriptor at all.
    rig.put(REQUEST, &getattr());
    rig.offer_chain(0, &[readable(REQUEST, 56)]);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(0, 0)]);
    // No readable one.
    rig.offer_chain(0, &[writable(REPLY, 64)]);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(0, 0)]);
    assert_serves(&mut rig);
}

#[test]
fn forget_has_no_reply_even_where_there_is_room() {
    let mut rig = begun();
    let forget = encode(NodeId(2), Operation::Forget(ForgetIn { nlookup: 1 }));
    assert_eq!(rig.ask(0, &forget, 64), []);
    rig.offer_chain(0, &[readable(REQUEST, forget.len())]);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    assert_eq!(rig.used(), [(0, 0)]);
    assert_serves(&mut rig);
}

#[test]
fn a_ring_that_is_broken_stays_so_and_what_came_before_is_given_back() {
    type Break = fn(&mut Rig);
    let ways: [(&str, Break); 4] = [
        ("jump", |rig| {
            rig.put(AVAIL + 2, &(2 + SIZE + 1).to_le_bytes())
        }),
        ("jump back", |rig| rig.put(AVAIL + 2, &0u16.to_le_bytes())),
        ("head", |rig| rig.offer(SIZE)),
        ("last head", |rig| rig.offer(u16::MAX)),
    ];
    for (what, break_it) in ways {
        let mut rig = rig(SIZE, Echo);
        for _ in 0..2 {
            rig.assert_alive();
        }
        let interrupts = rig.interrupts();
        let good = request(1, b"");
        rig.put(REQUEST, &good);
        if what.contains("head") {
            rig.offer_chain(0, &[readable(REQUEST, good.len()), writable(REPLY, 64)]);
        }
        break_it(&mut rig);
        for _ in 0..3 {
            assert_eq!(rig.queue.drain(), Drained::Broken, "{what}");
        }
        assert_eq!(rig.counts().ring_errors, 1, "{what}");
        let given_back = usize::from(what.contains("head"));
        assert_eq!(rig.used().len(), given_back, "{what}");
        assert_eq!(rig.interrupts(), interrupts + given_back, "{what}");
        let position = rig.queue.stop();
        assert_eq!(usize::from(position.next_used), 2 + given_back);
    }
}

#[test]
fn queues_that_cannot_be_are_not_started() {
    let start = |config| {
        let resources = virtio_fs_queue::Resources {
            memory: Arc::new(memory()),
            filesystem: Arc::new(Echo),
            pool: Arc::new(Pool::new(0)),
            polling: Arc::new(virtio_fs_queue::Polling::never()),
            log: None,
            stats: Arc::default(),
            notify: Box::new(|| ()),
        };
        virtio_fs_queue::Queue::start(config, resources).map(|_| ())
    };
    for size in [0, 3, 65535, 100] {
        assert_eq!(start(config(size)), Err(StartError::Size(size)));
    }
    let at = |descriptors, avail, used| QueueConfig {
        descriptors: GuestAddress(descriptors),
        avail: GuestAddress(avail),
        used: GuestAddress(used),
        ..config(SIZE)
    };
    assert_eq!(start(at(0, 0x1000, 0x2000)), Ok(()));
    for config in [
        at(8, 0x1000, 0x2000),
        at(0, 0x1001, 0x2000),
        at(0, 0x1000, 0x2002),
    ] {
        assert!(matches!(start(config), Err(StartError::Misaligned { .. })));
    }
    let used_len = 4 + 8 * u64::from(SIZE);
    for config in [
        at(END, 0x1000, 0x2000),
        at(0, END - 4, 0x2000),
        at(0, u64::MAX - 1, 0x2000),
        at(0, 0x1000, END + 4 - used_len),
        // In two regions.
        at(BORDER - 16, 0x1000, 0x2000),
        at(0, BORDER - 4, 0x2000),
    ] {
        let error = start(config).unwrap_err();
        assert!(matches!(error, StartError::Ring(RingError::Outside { .. })));
    }
    // The event field behind the ring is needed only where it means something.
    let tight = at(0, 0x1000, END - used_len);
    assert_eq!(start(tight), Ok(()));
    let event_idx = true;
    assert!(start(QueueConfig { event_idx, ..tight }).is_err());
}
