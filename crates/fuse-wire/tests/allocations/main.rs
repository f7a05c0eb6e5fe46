//! The codec allocates nothing, whatever the message.

#![cfg(target_endian = "little")]

#[path = "../golden/mod.rs"]
mod golden;
mod sys;

use std::hint::black_box;

use fuse_wire::{Notification, Reply, Request};
use golden::{notifications, replies, requests};

#[test]
fn decoding_and_encoding_allocate_nothing() {
    let (requests, replies) = (requests::all(), replies::all());
    let notifications = notifications::all();
    let mut buffer = [0; 1024];

    let before = sys::allocations();
    for golden in &requests {
        let request = Request::decode(&golden.message, golden.payload_len, golden.agreed).unwrap();
        black_box(request.encode(golden.payload_len, golden.agreed, &mut buffer)).unwrap();
        for context in request.extensions.security_contexts().iter() {
            black_box(context);
        }
        let _ = black_box(Request::decode(&golden.message, 1 << 20, golden.agreed)).unwrap_err();
    }
    for golden in &replies {
        let answer = Reply::decode(golden.form, &golden.message).unwrap();
        black_box(answer.result.unwrap().encode(answer.unique, &mut buffer)).unwrap();
    }
    for golden in &notifications {
        let notification = Notification::decode(&golden.message).unwrap();
        black_box(notification.encode(&mut buffer)).unwrap();
    }
    assert_eq!(sys::allocations() - before, 0);

    // The counter counts.
    black_box(Box::new(7));
    assert!(sys::allocations() > before);
}
