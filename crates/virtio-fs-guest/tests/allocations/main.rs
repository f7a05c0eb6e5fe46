//! In steady state neither the driver nor the device touches the heap.
//!
//! One test only: all threads are counted.

#[path = "../support/mod.rs"]
mod support;
mod sys;

use fuse_wire::abi::{GetattrIn, OpenIn, ReadIn, ReleaseIn, WriteIn};
use fuse_wire::{Handle, LookupName, NodeId, Operation, Reply};
use support::Device;
use sys::allocations;
use virtio_fs_guest::{Options, Payload, Queue};

const RDWR: u32 = 2;
const SIZE: u32 = 128 << 10;
const DEPTH: usize = 16;

/// Keeps requests of all kinds in flight, `rounds` of each.
fn drive(queue: &mut Queue, node: NodeId, fh: Handle, rounds: usize) {
    let operations = [
        Operation::Lookup {
            name: LookupName::new(c"file").unwrap(),
        },
        Operation::GetAttr(GetattrIn::default()),
        Operation::Read(ReadIn {
            fh,
            size: SIZE,
            ..ReadIn::default()
        }),
        Operation::Write(WriteIn {
            fh,
            size: SIZE,
            ..WriteIn::default()
        }),
    ];
    let mut left = rounds * operations.len();
    while left > 0 || queue.in_flight() > 0 {
        while left > 0 && queue.in_flight() < DEPTH {
            left -= 1;
            // Each slot is to see each kind.
            let operation = operations[(left + left / DEPTH) % operations.len()];
            let (node, payload) = match operation {
                Operation::Lookup { .. } => (NodeId::ROOT, Payload::None),
                Operation::Write(_) => (node, Payload::Stale(SIZE as usize)),
                _ => (node, Payload::None),
            };
            queue.submit(node, operation, payload).unwrap();
        }
        let mut completion = queue.wait().unwrap();
        completion.reply().unwrap();
    }
}

/// Opens and closes the file.
fn open_and_release(queue: &mut Queue, node: NodeId) {
    let operation = Operation::Open(OpenIn {
        flags: RDWR,
        ..OpenIn::default()
    });
    let mut completion = queue.call(node, operation, Payload::None).unwrap();
    let Reply::Open(opened) = completion.reply().unwrap() else {
        panic!("no reply to OPEN");
    };
    drop(completion);
    let operation = Operation::Release(ReleaseIn {
        fh: opened.fh,
        ..ReleaseIn::default()
    });
    let completion = queue.call(node, operation, Payload::None).unwrap();
    completion.result().unwrap();
}

#[test]
fn requests_do_not_touch_the_heap() {
    // What is left to other threads, as large reads beside others are, does allocate.
    let device = Device::start_without_threads();
    let mut mount = device.mount(&Options::default());
    let (entry, opened) = mount.create(NodeId::ROOT, c"file", RDWR, 0o644).unwrap();
    mount
        .write(entry.nodeid, opened.fh, 0, &vec![1; SIZE as usize])
        .unwrap();
    let queue = &mut mount.connection().request_queues()[0];
    let mut run = |rounds: usize| {
        drive(queue, entry.nodeid, opened.fh, rounds);
        for _ in 0..rounds {
            open_and_release(queue, entry.nodeid);
        }
    };
    // Buffers grow to what is needed, and each slot has its own.
    run(500);
    let before = allocations();
    run(200);
    assert_eq!(allocations() - before, 0);
}
