//! Serving a request does not touch the heap.

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

use common::*;
use fuse_fs::IoFlags;
use sys::allocations;
use virtio_fs_queue::{Drained, PollLimit, Polling, Pool};
use vm_memory::GuestMemoryAtomic;

#[test]
fn no_request_allocates() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 8192]).unwrap();
    let serve = double(move |mut call: Call<'_>| {
        let none = IoFlags::empty();
        let sink = call.sink.take().unwrap();
        let len = sink.write_from_file(file.as_fd(), 0, 8192, none).unwrap();
        call.source
            .read_to_file(file.as_fd(), 0, 4096, none)
            .unwrap();
        call.done_with(len)
    });
    let space = GuestMemoryAtomic::new(memory());
    let mut rig = Rig::with(space, config(64), serve, Pool::new(1), |resources| {
        resources.polling = Arc::new(Polling::new(PollLimit::from_micros(1).unwrap()));
    });
    let sent = request(1, &[0; 5000]);
    rig.put(REQUEST, &sent);
    let chain = [
        readable(REQUEST, 60),
        readable(REQUEST + 60, sent.len() - 60),
        writable(REPLY, 16),
        writable(BORDER - 4096, 8192),
    ];
    let mut broken = chain;
    broken[1].address = END;
    for round in 0..20 {
        rig.offer_chain(0, &chain);
        rig.link(TABLE, 0, &chain);
        rig.offer_chain(8, &[indirect(TABLE, 64)]);
        rig.offer_chain(16, &broken);
        let before = allocations();
        assert_eq!(rig.queue.drain(), Drained::Idle);
        // The first one finds out how much room messages need.
        if round > 0 {
            assert_eq!(allocations() - before, 0, "round {round}");
        }
        assert_eq!(rig.used(), [(0, 8208), (8, 8208), (16, 16)]);
    }
    let before = allocations();
    drop(Arc::new(1));
    assert_eq!(allocations() - before, 1, "they are counted");
}

/// One that others join in.
#[test]
fn no_large_read_allocates() {
    const LEN: usize = 768 * 1024;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; LEN]).unwrap();
    let serve = double(move |mut call: Call<'_>| {
        let none = IoFlags::empty();
        let sink = call.sink.take().unwrap();
        let len = sink.write_from_file(file.as_fd(), 0, LEN, none).unwrap();
        call.done_with(len)
    });
    let space = GuestMemoryAtomic::new(memory());
    let mut rig = Rig::new(space, config(64), serve, Pool::new(1));
    let sent = request(1, b"");
    rig.put(REQUEST, &sent);
    let chain = [
        readable(REQUEST, sent.len()),
        writable(REPLY, 16),
        writable(BORDER - 4096, LEN),
    ];
    for round in 0..20 {
        rig.offer_chain(0, &chain);
        let before = allocations();
        assert_eq!(rig.queue.drain(), Drained::Idle);
        // The first one starts the thread.
        if round > 0 {
            assert_eq!(allocations() - before, 0, "round {round}");
        }
        assert_eq!(rig.used(), [(0, 16 + LEN as u32)]);
    }
}
